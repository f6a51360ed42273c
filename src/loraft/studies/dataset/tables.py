"""Tables of the few-shot study and of a data source, for the terminal, a page or Markdown."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from loraft.display.table import add_row, number_table, shorten


def splits(data: Mapping[str, Any]) -> Table:
    """Rows of each split, their share of all, and the share of each label in the split."""
    table = number_table("split", "rows", "share", *data["labels"], "repeated rows")
    for split in data["splits"]:
        shares = [f"{100 * count / split['rows']:.2f} %" for count in split["labels"].values()]
        repeated = sum(data["duplicates"][split["name"]].values())
        add_row(table, split["name"], f"{split['rows']:,}", f"{split['share']:.1%}", *shares, f"{repeated:,}")
    totals = [sum(split["labels"][label] for split in data["splits"]) for label in data["labels"]]
    repeated = sum(sum(counts.values()) for counts in data["duplicates"].values())
    shares = [f"{100 * count / data['rows']:.2f} %" for count in totals]
    add_row(table, "all", f"{data['rows']:,}", "100.0%", *shares, f"{repeated:,}")
    return table


def shares(data: Mapping[str, Any]) -> Table:
    """The second column by the labels, in percent of all rows, with totals."""
    cross, total = data["shares"], data["rows"]
    first = f"{data['by']} / {data['label_column']} (%)" if data["by"] else f"{data['label_column']} (%)"
    table = number_table(first, *cross["columns"], "total")
    for name, counts in zip(cross["rows"], cross["counts"], strict=True):
        if data["by"]:
            add_row(table, name, *(f"{100 * count / total:.2f}" for count in [*counts, sum(counts)]))
    totals = [sum(column) for column in zip(*cross["counts"], strict=True)]
    add_row(table, "total", *(f"{100 * count / total:.2f}" for count in [*totals, total]))
    return table


def lengths(data: Mapping[str, Any]) -> Table:
    """Sentence lengths of each label in words, and where they were measured of sentences and prompts in tokens."""
    rows = {f"words, {name}": quantiles for name, quantiles in data["lengths"].items()}
    if data["tokens"]:
        rows |= {"tokens, sentence": data["tokens"]["sentence"], "tokens, prompt and answer": data["tokens"]["prompt"]}
    heads = list(next(iter(rows.values())))
    table = number_table("length", *(f"{name} up to" if name.endswith("%") else name for name in heads))
    for name, quantiles in rows.items():
        add_row(table, name, *(f"{value:.1f}" if head == "mean" else f"{value}" for head, value in quantiles.items()))
    return table


def leaks(data: Mapping[str, Any]) -> Table:
    """Rows of one split that stand in another, to the letter or nearly."""
    table = number_table("leaks", "the same sentence", "nearly the same")
    for pair in data["leaks"]:
        near = "not looked for" if pair["near"] is None else f"{pair['near']:,}"
        add_row(table, f"{pair['right']} rows that {pair['left']} has", f"{pair['exact']:,}", near)
    return table


def near_legend(data: Mapping[str, Any]) -> str:
    """What "nearly the same" means."""
    return f"nearly the same: the Jaccard index of their character 4-grams is above {data['near_threshold']:g}"


def longest(data: Mapping[str, Any]) -> Table:
    """The longest rows: by tokens where those were measured, else by words."""
    if data["tokens"]:
        table = number_table("longest rows", "tokens", "prompt and answer", "sentence")
        rows = [(row, [row["tokens"], row["prompt"]]) for row in data["tokens"]["longest"]]
    else:
        table = number_table("longest rows", "words", "characters", "sentence")
        rows = [(row, [row["words"], row["characters"]]) for row in data["longest"]]
    table.columns[-1].justify = "left"
    for row, numbers in rows:
        add_row(table, f"{row['split']} row {row['row']}", *map(str, numbers), shorten(row["text"], 45))
    return table


def conflicts(data: Mapping[str, Any]) -> Table:
    """Sentences that stand there with several labels."""
    table = number_table("labels", "sentence")
    table.columns[-1].justify = "left"
    for item in data["conflicts"]["examples"]:
        add_row(table, ", ".join(f"{label} {count}" for label, count in item["labels"].items()), shorten(item["text"]))
    return table


def conflict_total(data: Mapping[str, Any]) -> str:
    """How many sentences stand there with several labels."""
    torn = data["conflicts"]
    found = f"{torn['sentences']:,}, in {torn['rows']:,} rows" if torn["sentences"] else "none"
    return f"sentences with several labels: {found}"


def data_notes(data: Mapping[str, Any]) -> list[str]:
    """What was found or left out when the rows were read, and what could not be described: one sentence a line."""
    read = {split["name"]: split["notes"] for split in data["splits"] if split["notes"]}
    found = [f"{name}: {', '.join(f'{n:,} {what}' for what, n in notes.items())}" for name, notes in read.items()]
    return [*found, *data["notes"]]


def near_copies(data: Mapping[str, Any]) -> Table:
    """The near-duplicates between splits that are least alike, which tell whether the others are copies."""
    table = number_table("Jaccard index", "row", "sentence", "row", "sentence")
    for column in table.columns[1:]:
        column.justify = "left"
    for pair in data["leaks"]:
        for item in pair["examples"][:3]:
            cells = [item[pair[side]] for side in ("left", "right")]
            texts = [cell for row in cells for cell in (f"{row['split']} {row['row']}", shorten(row["text"]))]
            add_row(table, f"{item['jaccard']:.2f}", *texts)
    return table


def data_tables(data: Mapping[str, Any]) -> list[Table]:
    """The tables of `datastats.describe`'s result that have something to say, in order."""
    shown = [shares(data), splits(data), lengths(data)]
    shown += [leaks(data)] if data["leaks"] else []
    shown += [near_copies(data)] if any(pair["examples"] for pair in data["leaks"]) else []
    shown += [conflicts(data)] if data["conflicts"]["examples"] else []
    return [*shown, longest(data)]
