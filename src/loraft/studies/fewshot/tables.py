"""Tables of the few-shot study and of a data source, for the terminal, a page or Markdown."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from loraft.display.table import add_row, number_table
from loraft.studies.fewshot.summary import BACKBONE, name_of


def fewshot(study: Mapping[str, Any]) -> Table:
    """Every number of shots, the baselines and the adapter: mean, standard deviation and interval; fractions.

    Args:
        study: what `fewshots.fewshot` returns.
    """
    generated = study["decode"] == "generate"
    # A line has to fit 100 columns: of precision and recall the mean alone, the rest is in the JSON.
    table = number_table("", "accuracy", "macro F1", "prec.", "recall", *(["no\nlabel"] if generated else []))
    table.padding, table.pad_edge = (0, 1, 0, 0), False
    for row in study["rows"]:
        cells = [_spread(row[score]) for score in ("accuracy", "macro_f1")]
        cells += [f"{row[score]['mean']:.3f}" for score in ("macro_precision", "macro_recall")]
        add_row(table, row["name"], *cells, *([f"{row['no_label']:.1%}"] if generated else []))
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
    table = number_table("", "draw", "accuracy", "macro F1", "no label", "training rows in the prompt")
    table.columns[-1].justify = "left"
    for draw in study["draws"]:
        shown = draw["train_rows"]
        rows = "its own for every test row" if shown is None else ", ".join(map(str, shown))
        scores = [f"{draw[score]:.4f}" for score in ("accuracy", "macro_f1")]
        name = name_of(draw["model"], draw["shots"])
        add_row(table, name, str(draw["draw"] + 1), *scores, f"{draw['no_label']:.1%}", rows)
    return table


def _spread(score: Mapping[str, Any]) -> str:
    low, high = score["interval"]
    sd = " " * len("±0.000") if score["sd"] is None else f"±{score['sd']:.3f}"  # means stand under each other
    return f"{score['mean']:.3f}{sd} [{low:.3f}, {high:.3f}]"
