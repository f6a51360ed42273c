"""Drop training rows as the config asks: repeated rows, rows that conflict, rows that another split holds."""

from collections import Counter
from collections.abc import Callable, Sequence

from loraft.config.data_section import DataConfig
from loraft.data.examples import Examples, conflicting_texts, digest, first_rows
from loraft.data.near_duplicates import rows_also_in


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
        several = conflicting_texts([left])
        left = _of(left, [i for i, text in enumerate(left.texts) if digest(text) not in several])
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


def _of(examples: Examples, rows: Sequence[int]) -> Examples:
    return examples if len(rows) == len(examples) else Examples(examples[i] for i in rows)
