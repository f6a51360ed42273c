"""Tables of the few-shot study and of a data source, for the terminal, a page or Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from loraft.spreads import BACKBONE, name_of


def fewshot(study: Mapping[str, Any]) -> Table:
    """Every number of shots, the baselines and the adapter: mean, standard deviation and interval; fractions.

    Args:
        study: what `fewshots.fewshot` returns.
    """
    generated = study["decode"] == "generate"
    # A line has to fit 100 columns: of precision and recall the mean alone, the rest is in the JSON.
    table = _table("", "accuracy", "macro F1", "prec.", "recall", *(["no\nlabel"] if generated else []))
    table.padding, table.pad_edge = (0, 1, 0, 0), False
    for row in study["rows"]:
        cells = [_spread(row[score]) for score in ("accuracy", "macro_f1")]
        cells += [f"{row[score]['mean']:.3f}" for score in ("macro_precision", "macro_recall")]
        _add(table, row["name"], *cells, *([f"{row['no_label']:.1%}"] if generated else []))
    return table


def fewshot_notes(study: Mapping[str, Any]) -> list[str]:
    """What the numbers of the few-shot table are, one sentence a line."""
    prompted = {row["shots"]: row for row in study["rows"] if row["model"] == BACKBONE}
    repeats = study["repeats"]
    draws = f"{repeats} draws" if repeats > 1 else "one draw"
    tokens = ", ".join(f"{row['tokens']:,} with {k}" for k, row in prompted.items())
    return [
        f"{draws} of {study['selection']} demonstrations for each number of shots,"
        f" on the same {study['data']['test']['rows']:,} test rows",
        f"±: standard deviation over draws; [ ]: {study['confidence']:.0%} interval over draws and test rows;"
        " precision, recall: macro averages",
        f"tokens of the longest prompt and answer by shots: {tokens}",
    ]


def fewshot_draws(study: Mapping[str, Any]) -> Table:
    """Every draw by itself, with the rows of the training file that were shown, in the order of the prompt."""
    table = _table("", "draw", "accuracy", "macro F1", "no label", "training rows in the prompt")
    table.columns[-1].justify = "left"
    for draw in study["draws"]:
        shown = draw["train_rows"]
        rows = "its own for every test row" if shown is None else ", ".join(map(str, shown))
        scores = [f"{draw[score]:.4f}" for score in ("accuracy", "macro_f1")]
        name = name_of(draw["model"], draw["shots"])
        _add(table, name, str(draw["draw"] + 1), *scores, f"{draw['no_label']:.1%}", rows)
    return table


def splits(data: Mapping[str, Any]) -> Table:
    """Rows of each split, their share of all, and the share of each label in the split."""
    table = _table("split", "rows", "share", *data["labels"], "repeated rows")
    for split in data["splits"]:
        shares = [f"{100 * count / split['rows']:.2f} %" for count in split["labels"].values()]
        repeated = sum(data["duplicates"][split["name"]].values())
        _add(table, split["name"], f"{split['rows']:,}", f"{split['share']:.1%}", *shares, f"{repeated:,}")
    totals = [sum(split["labels"][label] for split in data["splits"]) for label in data["labels"]]
    repeated = sum(sum(counts.values()) for counts in data["duplicates"].values())
    shares = [f"{100 * count / data['rows']:.2f} %" for count in totals]
    _add(table, "all", f"{data['rows']:,}", "100.0%", *shares, f"{repeated:,}")
    return table


def shares(data: Mapping[str, Any]) -> Table:
    """The second column by the labels, in percent of all rows, with totals."""
    cross, total = data["shares"], data["rows"]
    first = f"{data['by']} / {data['label_column']} (%)" if data["by"] else f"{data['label_column']} (%)"
    table = _table(first, *cross["columns"], "total")
    for name, counts in zip(cross["rows"], cross["counts"], strict=True):
        if data["by"]:
            _add(table, name, *(f"{100 * count / total:.2f}" for count in [*counts, sum(counts)]))
    totals = [sum(column) for column in zip(*cross["counts"], strict=True)]
    _add(table, "total", *(f"{100 * count / total:.2f}" for count in [*totals, total]))
    return table


def lengths(data: Mapping[str, Any]) -> Table:
    """Sentence lengths of each label in words, and where they were measured of sentences and prompts in tokens."""
    rows = {f"words, {name}": quantiles for name, quantiles in data["lengths"].items()}
    if data["tokens"]:
        rows |= {"tokens, sentence": data["tokens"]["sentence"], "tokens, prompt and answer": data["tokens"]["prompt"]}
    heads = list(next(iter(rows.values())))
    table = _table("length", *(f"{name} up to" if name.endswith("%") else name for name in heads))
    for name, quantiles in rows.items():
        _add(table, name, *(f"{value:.1f}" if head == "mean" else f"{value}" for head, value in quantiles.items()))
    return table


def leaks(data: Mapping[str, Any]) -> Table:
    """Rows of one split that stand in another, to the letter or nearly."""
    table = _table("leaks", "the same sentence", "nearly the same")
    for pair in data["leaks"]:
        near = "not looked for" if pair["near"] is None else f"{pair['near']:,}"
        _add(table, f"{pair['right']} rows that {pair['left']} has", f"{pair['exact']:,}", near)
    return table


def near_legend(data: Mapping[str, Any]) -> str:
    """What "nearly the same" means."""
    return f"nearly the same: the Jaccard index of their character 4-grams is above {data['near_threshold']:g}"


def longest(data: Mapping[str, Any]) -> Table:
    """The longest rows: by tokens where those were measured, else by words."""
    if data["tokens"]:
        table = _table("longest rows", "tokens", "prompt and answer", "sentence")
        rows = [(row, [row["tokens"], row["prompt"]]) for row in data["tokens"]["longest"]]
    else:
        table = _table("longest rows", "words", "characters", "sentence")
        rows = [(row, [row["words"], row["characters"]]) for row in data["longest"]]
    table.columns[-1].justify = "left"
    for row, numbers in rows:
        _add(table, f"{row['split']} row {row['row']}", *map(str, numbers), _short(row["text"], 45))
    return table


def conflicts(data: Mapping[str, Any]) -> Table:
    """Sentences that stand there with several labels."""
    table = _table("labels", "sentence")
    table.columns[-1].justify = "left"
    for item in data["conflicts"]["examples"]:
        _add(table, ", ".join(f"{label} {count}" for label, count in item["labels"].items()), _short(item["text"]))
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
    table = _table("Jaccard index", "row", "sentence", "row", "sentence")
    for column in table.columns[1:]:
        column.justify = "left"
    for pair in data["leaks"]:
        for item in pair["examples"][:3]:
            cells = [item[pair[side]] for side in ("left", "right")]
            texts = [cell for row in cells for cell in (f"{row['split']} {row['row']}", _short(row["text"]))]
            _add(table, f"{item['jaccard']:.2f}", *texts)
    return table


def data_tables(data: Mapping[str, Any]) -> list[Table]:
    """The tables of `datastats.describe`'s result that have something to say, in order."""
    shown = [shares(data), splits(data), lengths(data)]
    shown += [leaks(data)] if data["leaks"] else []
    shown += [near_copies(data)] if any(pair["examples"] for pair in data["leaks"]) else []
    shown += [conflicts(data)] if data["conflicts"]["examples"] else []
    return [*shown, longest(data)]


def listing(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of words; brackets in them are text and no markup."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(Text(column))
    for row in rows:
        _add(table, *row)
    return table


def _spread(score: Mapping[str, Any]) -> str:
    low, high = score["interval"]
    sd = " " * len("±0.000") if score["sd"] is None else f"±{score['sd']:.3f}"  # means stand under each other
    return f"{score['mean']:.3f}{sd} [{low:.3f}, {high:.3f}]"


def _short(text: str, limit: int = 90) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _add(table: Table, *cells: str) -> None:
    table.add_row(*map(Text, cells))  # a sentence or a label may hold what rich reads as markup


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(Text(first))
    for column in columns:
        table.add_column(Text(column), justify="right")
    return table
