"""Drop training rows as the config asks: repeated rows, rows that conflict, rows that another split holds."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from loraft.config.data_section import DataConfig
from loraft.data.near_duplicates import rows_also_in
from loraft.data.records import Example


def dropped(
    examples: Sequence[Example], section: DataConfig, others: Callable[[], Sequence[str]], notes: Counter[str]
) -> list[Example]:
    """The training rows that are left, in their order; the numbers of those that were dropped go into the notes.

    Args:
        examples: labelled rows of the train split.
        section: `drop_conflicts`, `drop_leaked` and `drop_duplicates`, applied in this order.
        others: returns the sentences of the validation and the test split; called with `drop_leaked` only.
        notes: what was found or left out: number of rows.
    """
    left = list(examples)
    if section.drop_conflicts:
        labels_of: defaultdict[str, set[int | tuple[int, ...] | None]] = defaultdict(set)
        for example in left:
            labels_of[example.text].add(example.label)
        kept = [example for example in left if len(labels_of[example.text]) == 1]
        notes["conflicting rows dropped"], left = len(left) - len(kept), kept
    if section.drop_leaked:
        exact, near = rows_also_in(others(), [example.text for example in left], near=True)
        inside = {*exact, *(pair.left for pair in near)}
        kept = [example for i, example in enumerate(left) if i not in inside]
        notes["rows of validation or test dropped"], left = len(left) - len(kept), kept
    first_of: dict[tuple[str, int | tuple[int, ...] | None], Example] = {}
    for example in left:
        first_of.setdefault((example.text, example.label), example)
    what = "duplicate rows dropped" if section.drop_duplicates else "duplicate rows"
    notes[what] = len(left) - len(first_of)
    for name in [name for name, count in notes.items() if not count]:
        del notes[name]
    return list(first_of.values()) if section.drop_duplicates else left
