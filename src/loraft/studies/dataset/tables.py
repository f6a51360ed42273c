"""Builds the tables and notes of a data source's statistics, for the terminal, a report page or Markdown."""

from rich.table import Table

from loraft.display.table import add_row, number_table, shorten
from loraft.studies.dataset.records import DatasetStatistics

NEAR_SHOWN = 3  # near-duplicates shown for each pair of splits


def splits(data: DatasetStatistics) -> Table:
    """Rows of each split, their share of all rows, the share of each label in the split, and duplicates."""
    table = number_table("split", "rows", "share", *data.labels, "repeated rows")
    for split in data.splits:
        shares = [f"{100 * count / split.rows:.2f} %" for count in split.labels.values()]
        repeated = data.duplicates[split.name].total
        add_row(table, split.name, f"{split.rows:,}", f"{split.share:.1%}", *shares, f"{repeated:,}")
    totals = [sum(split.labels[label] for split in data.splits) for label in data.labels]
    repeated = sum(found.total for found in data.duplicates.values())
    shares = [f"{100 * count / data.rows:.2f} %" for count in totals]
    add_row(table, "all", f"{data.rows:,}", "100.0%", *shares, f"{repeated:,}")
    return table


def shares(data: DatasetStatistics) -> Table:
    """The second column by the labels, in percent of all rows, with totals; without a second column the totals only."""
    cross, total = data.shares, data.rows
    first = f"{data.by} / {data.label_column} (%)" if data.by else f"{data.label_column} (%)"
    table = number_table(first, *cross.columns, "total")
    for name, counts in zip(cross.rows, cross.counts, strict=True):
        if data.by:
            add_row(table, name, *(f"{100 * count / total:.2f}" for count in [*counts, sum(counts)]))
    totals = [sum(column) for column in zip(*cross.counts, strict=True)]
    add_row(table, "total", *(f"{100 * count / total:.2f}" for count in [*totals, total]))
    return table


def lengths(data: DatasetStatistics) -> Table:
    """Sentence lengths in words for each label; lengths of sentences and prompts in tokens where they were measured."""
    rows = {f"words, {name}": of_label for name, of_label in data.lengths.items()}
    if data.tokens is not None:
        rows |= {"tokens, sentence": data.tokens.sentence, "tokens, prompt and answer": data.tokens.prompt}
    names = next(iter(rows.values())).quantiles
    table = number_table("length", "mean", *(f"{name} up to" for name in names), "longest")
    for name, row in rows.items():
        add_row(table, name, f"{row.mean:.1f}", *map(str, row.quantiles.values()), str(row.longest))
    return table


def leaks(data: DatasetStatistics) -> Table:
    """Numbers of rows of one split that are in another, exactly or nearly."""
    table = number_table("leaks", "the same sentence", "nearly the same")
    for pair in data.leaks:
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
    tables = [shares(data), splits(data), lengths(data), *leak_tables(data), *conflict_tables(data)]
    return [*tables, longest(data)]


def leak_tables(data: DatasetStatistics) -> list[Table]:
    """The tables of rows that two splits share; none where there is one split."""
    tables = [leaks(data)] if data.leaks else []
    return [*tables, near_copies(data)] if any(pair.examples for pair in data.leaks) else tables


def conflict_tables(data: DatasetStatistics) -> list[Table]:
    """The table of sentences with several labels; none where there is no such sentence."""
    return [conflicts(data)] if data.conflicts.examples else []
