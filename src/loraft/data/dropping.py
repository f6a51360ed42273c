"""Drop training rows as the config asks: repeated rows, rows that conflict, rows that another split holds."""

from array import array
from collections import Counter
from collections.abc import Callable, Sequence

from loraft.config.data_section import DataConfig
from loraft.data.examples import Examples, Label, digest
from loraft.data.near_duplicates import rows_also_in

CONFLICT = "several labels"


def dropped(
    examples: Examples, section: DataConfig, others: Callable[[], Sequence[str]], notes: Counter[str]
) -> Examples:
    """The training rows that are left, in their order; the numbers of those that were dropped go into the notes.

    Args:
        examples: labelled rows of the train split.
        section: `drop_conflicts`, `drop_leaked` and `drop_duplicates`, applied in this order.
        others: returns the sentences of the validation and the test split; called with `drop_leaked` only.
        notes: what was found or left out: number of rows.
    """
    left = examples
    if section.drop_conflicts:
        label_of: dict[bytes, Label | str] = {}
        for text, label in zip(left.texts, left.labels, strict=True):
            if label_of.setdefault(key := digest(text), label) != label:
                label_of[key] = CONFLICT
        left = _of(left, [i for i, text in enumerate(left.texts) if label_of[digest(text)] != CONFLICT])
        notes["conflicting rows dropped"] = len(examples) - len(left)
    if section.drop_leaked:
        exact, near = rows_also_in(others(), left.texts, near=True)
        inside = {*exact, *(pair.left for pair in near)}
        left = _of(left, [i for i in range(len(left)) if i not in inside])
        notes["rows of validation or test dropped"] = len(inside)
    first = first_rows(left)
    what = "duplicate rows dropped" if section.drop_duplicates else "duplicate rows"
    notes[what] = len(left) - len(first)
    for name in [name for name, count in notes.items() if not count]:
        del notes[name]
    return _of(left, first) if section.drop_duplicates else left


def first_rows(examples: Examples) -> Sequence[int]:
    """The indices of the rows that are no copy of an earlier one, with the same text and label."""
    seen: set[bytes] = set()
    first = array("q")
    for i, row in enumerate(zip(examples.texts, examples.labels, strict=True)):
        if (key := digest(*row)) not in seen:
            seen.add(key)
            first.append(i)
    return first


def _of(examples: Examples, rows: Sequence[int]) -> Examples:
    return examples if len(rows) == len(examples) else Examples(examples[i] for i in rows)
