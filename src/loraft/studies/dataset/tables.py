"""Builds the tables and notes of a data source's statistics, for the terminal, a report page or Markdown."""

from collections.abc import Sequence

from rich.table import Table

from loraft.data.checks import Leaks
from loraft.display.table import MANY_LABELS, SHOWN_LABELS, add_row, number_table, shorten
from loraft.studies.dataset.records import DatasetStatistics

NEAR_SHOWN = 3  # near-duplicates shown for each pair of splits


def splits(data: DatasetStatistics) -> Table:
    """Rows of each split, their share of all rows, the share of each label in the split, and duplicates.

    Many labels are in a table of their own, see `labels`.
    """
    columns = data.labels if len(data.labels) <= MANY_LABELS else ()
    table = number_table("split", "rows", "share", *columns, "repeated rows")
    for split in data.splits:
        shares = [f"{100 * split.labels[label] / split.rows:.2f} %" for label in columns]
        repeated = data.duplicates[split.name].same
        add_row(table, split.name, f"{split.rows:,}", f"{split.share:.1%}", *shares, f"{repeated:,}")
    totals = _totals(data)
    repeated = sum(found.same for found in data.duplicates.values())
    shares = [f"{100 * totals[label] / data.rows:.2f} %" for label in columns]
    add_row(table, "all", f"{data.rows:,}", "100.0%", *shares, f"{repeated:,}")
    return table


def _totals(data: DatasetStatistics) -> dict[str, int]:
    return {label: sum(split.labels[label] for split in data.splits) for label in data.labels}


def labels(data: DatasetStatistics) -> Table:
    """The rarest of many labels: their rows in each split and their share of all rows."""
    totals = _totals(data)
    table = number_table("label, the rarest first", *(split.name for split in data.splits), "share of all rows")
    for label in sorted(totals, key=lambda label: totals[label])[:SHOWN_LABELS]:
        counts = [f"{split.labels[label]:,}" for split in data.splits]
        add_row(table, label, *counts, f"{100 * totals[label] / data.rows:.2f} %")
    add_row(table, f"{len(totals) - SHOWN_LABELS} more", *[""] * (len(data.splits) + 1))
    return table


def shares(data: DatasetStatistics) -> Table:
    """The second column by the labels, in percent of all rows, with totals; without a second column the totals only.

    Of many labels the most frequent ones are rows, if the second column has few values.
    """
    cross, total = data.shares, data.rows
    first = f"{data.by} / {data.label_column} (%)" if data.by else f"{data.label_column} (%)"
    if len(cross.columns) > MANY_LABELS:
        return _most_frequent(data)
    table = number_table(first, *cross.columns, "total")
    for name, counts in zip(cross.rows, cross.counts, strict=True):
        if data.by:
            add_row(table, name, *(f"{100 * count / total:.2f}" for count in [*counts, sum(counts)]))
    totals = [sum(column) for column in zip(*cross.counts, strict=True)]
    add_row(table, "total", *(f"{100 * count / total:.2f}" for count in [*totals, total]))
    return table


def _most_frequent(data: DatasetStatistics) -> Table:
    cross, total = data.shares, data.rows
    values = cross.rows if data.by and len(cross.rows) <= MANY_LABELS else ()
    first = f"{data.label_column} / {data.by} (%)" if values else f"{data.label_column} (%)"
    table = number_table(f"{first}, the most frequent first", *values, "total")
    columns = list(zip(*cross.counts, strict=True))
    for k in sorted(range(len(columns)), key=lambda k: -sum(columns[k]))[:SHOWN_LABELS]:
        counts = [*(columns[k] if values else ()), sum(columns[k])]
        add_row(table, cross.columns[k], *(f"{100 * count / total:.2f}" for count in counts))
    add_row(table, f"{len(columns) - SHOWN_LABELS} more", *[""] * (len(values) + 1))
    return table


def lengths(data: DatasetStatistics) -> Table:
    """Sentence lengths in words for each label; lengths of sentences and prompts in tokens where they were measured.

    Of many labels those with the longest sentences.
    """
    names = list(data.lengths)
    if len(data.labels) > MANY_LABELS:
        of_labels = sorted(names[1:], key=lambda name: -data.lengths[name].mean)
        names = [names[0], *of_labels[:SHOWN_LABELS]]
    rows = {f"words, {name}": data.lengths[name] for name in names}
    if data.tokens is not None:
        rows |= {"tokens, sentence": data.tokens.sentence, "tokens, prompt and answer": data.tokens.prompt}
    quantiles = next(iter(rows.values())).quantiles
    table = number_table("length", "mean", *(f"{name} up to" for name in quantiles), "longest")
    for name, row in rows.items():
        add_row(table, name, f"{row.mean:.1f}", *map(str, row.quantiles.values()), str(row.longest))
    return table


def words_up_to(data: DatasetStatistics) -> Table:
    """The share of the rows of each split that have at most n words between blanks."""
    shares = data.words_up_to
    table = number_table("rows with at most n words", *(f"n = {n}" for n in shares["all"]))
    for name, of_split in shares.items():
        add_row(table, name, *(f"{share:.1%}" for share in of_split.values()))
    return table


def leaks(pairs: Sequence[Leaks]) -> Table:
    """Numbers of rows of one split that are in another, exactly or nearly."""
    table = number_table("leaks", "the same sentence", "nearly the same")
    for pair in pairs:
        near = "not looked for" if pair.near is None else f"{pair.near:,}"
        add_row(table, f"{pair.right} rows that {pair.left} has", f"{pair.exact:,}", near)
    return table


def near_legend(data: DatasetStatistics) -> str:
    """What "nearly the same" means, as a sentence."""
    return f"nearly the same: the Jaccard index of their character 4-grams is above {data.near_threshold:g}"


def longest(data: DatasetStatistics) -> Table:
    """The longest rows: by tokens where those were measured, else by words."""
    if data.tokens is not None:
        table = number_table("longest rows", "tokens", "prompt and answer", "sentence")
        rows = [(row.place, (row.tokens, row.prompt)) for row in data.tokens.longest]
    else:
        table = number_table("longest rows", "words", "characters", "sentence")
        rows = [(row.place, (row.words, row.characters)) for row in data.longest]
    table.columns[-1].justify = "left"
    for place, numbers in rows:
        add_row(table, f"{place.split} row {place.row}", *map(str, numbers), shorten(place.text, 45))
    return table


def conflicts(data: DatasetStatistics) -> Table:
    """Sentences with several labels, and the number of rows of each label."""
    table = number_table("labels", "sentence")
    table.columns[-1].justify = "left"
    for sentence in data.conflicts.examples:
        labels = ", ".join(f"{label} {count}" for label, count in sentence.labels.items())
        add_row(table, labels, shorten(sentence.text))
    return table


def conflict_total(data: DatasetStatistics) -> str:
    """The number of sentences with several labels, as a sentence."""
    total = data.conflicts
    found = f"{total.sentences:,}, in {total.rows:,} rows" if total.sentences else "none"
    return f"sentences with several labels: {found}"


def data_notes(data: DatasetStatistics) -> list[str]:
    """What was found or left out when the rows were read, and what is not described: one sentence a line."""
    found = [
        f"{split.name}: {', '.join(f'{n:,} {what}' for what, n in split.notes.items())}"
        for split in data.splits
        if split.notes
    ]
    tokens = data.tokens
    if tokens is not None and tokens.shortened:
        found.append(
            f"{tokens.shortened:,} of {data.rows:,} sentences are shortened to fit prompt.max_length"
            f" ({tokens.max_length:,} tokens), by {tokens.cut:.1%} of the tokens of all sentences"
        )
    return [*found, *data.notes]


def near_copies(data: DatasetStatistics) -> Table:
    """The least similar near-duplicates between splits, which show whether the others are copies."""
    table = number_table("Jaccard index", "row", "sentence", "row", "sentence")
    for column in table.columns[1:]:
        column.justify = "left"
    for pair in data.leaks:
        for near in pair.examples[:NEAR_SHOWN]:
            cells = [
                cell
                for place in (near.left, near.right)
                for cell in (f"{place.split} {place.row}", shorten(place.text))
            ]
            add_row(table, f"{near.jaccard:.2f}", *cells)
    return table


def data_tables(data: DatasetStatistics) -> list[Table]:
    """All tables that are not empty, in the order in which they are printed."""
    tables = [*row_tables(data), *length_tables(data), *leak_tables(data), *conflict_tables(data)]
    return [*tables, longest(data)]


def length_tables(data: DatasetStatistics) -> list[Table]:
    """The tables of sentence lengths; the shares by number of words where the file has them."""
    return [lengths(data), *([words_up_to(data)] if data.words_up_to else [])]


def row_tables(data: DatasetStatistics) -> list[Table]:
    """The tables of rows by label and split."""
    return [shares(data), splits(data), *([labels(data)] if len(data.labels) > MANY_LABELS else [])]


def leak_tables(data: DatasetStatistics) -> list[Table]:
    """The tables of rows that two splits share; none where there is one split."""
    tables = [leaks(data.leaks)] if data.leaks else []
    return [*tables, near_copies(data)] if any(pair.examples for pair in data.leaks) else tables


def conflict_tables(data: DatasetStatistics) -> list[Table]:
    """The table of sentences with several labels; none where there is no such sentence."""
    return [conflicts(data)] if data.conflicts.examples else []
