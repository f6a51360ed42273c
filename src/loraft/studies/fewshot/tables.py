"""Builds the tables and notes of a few-shot study, for the terminal, a report page or Markdown."""

from collections.abc import Collection

from rich.table import Table

from loraft.display.table import add_row, number_table
from loraft.evaluation.intervals import Spread
from loraft.evaluation.shares import percent
from loraft.studies.fewshot.records import FewshotResult, TableRow
from loraft.studies.fewshot.summary import BACKBONE, name_of

SHORT_NAMES = {"macro_precision": "prec.", "macro_recall": "recall"}


def fewshot(study: FewshotResult) -> Table:
    """The scores of baselines, adapter and each number of shots: mean, standard deviation and interval, as fractions.

    Scores without an interval are shown by their mean only; their standard deviation is in the JSON.
    """
    generated = study.decode == "generate"
    shown = study.metric.columns({score for row in study.rows for score in row.scores})
    names = [SHORT_NAMES.get(score, head) for score, head in shown.items()]
    table = number_table("", *names, *(["no label"] if generated else []), drop=("recall", "prec.", "accuracy"))
    table.padding, table.pad_edge = (0, 1, 0, 0), False
    for row in study.rows:
        cells = [_spread(row.scores[score]) if score in row.scores else "" for score in shown]
        add_row(table, row.name, *cells, *([f"{row.no_label:.1%}"] if generated else []))
    return table


def fewshot_notes(study: FewshotResult, left_out: Collection[str] = ()) -> list[str]:
    """What the numbers of the few-shot table are, one sentence a line.

    Args:
        study: the result.
        left_out: heads of columns that are not shown, which no note explains.
    """
    prompted = {row.shots: row for row in study.rows if row.model == BACKBONE}
    draws = f"{study.repeats} draws" if study.repeats > 1 else "one draw"
    shown = study.metric.columns({score for row in study.rows for score in row.scores})
    both = SHORT_NAMES.keys() <= shown.keys()
    averages = [score.removeprefix("macro_") for score, head in SHORT_NAMES.items() if both and head not in left_out]
    tokens = ", ".join(f"{row.tokens:,} with {k}" for k, row in prompted.items())
    return [
        f"{draws} of {study.selection} demonstrations for each number of shots,"
        f" on the same {study.data['test'].rows:,} test rows",
        *study.order_told,
        f"±: standard deviation over draws; [ ]: {percent(study.confidence)} interval over draws and test rows"
        + (f"; {', '.join(averages)}: macro averages" if averages else ""),
        f"tokens of the longest prompt and answer by shots: {tokens}",
        *(f"shortened to fit, {row.name}: {_cut(row, study.data['test'].rows)}" for row in study.rows if _cuts(row)),
    ]


def _cuts(row: TableRow) -> bool:
    return row.demonstrations_cut > 0 or row.truncated > 0


def _cut(row: TableRow, rows: int) -> str:
    """How much of a row's prompts was cut away: mean over draws, in words."""
    parts = [f"{row.demonstrations_cut:.1%} of the demonstrations' tokens"] if row.demonstrations_cut else []
    if row.truncated:
        parts.append(f"{row.truncated:,.0f} of {rows:,} test rows, {row.cut:.1%} of all rows' tokens")
    return "; ".join(parts)


def fewshot_draws(study: FewshotResult) -> Table:
    """The scores of each draw, as fractions, and the numbers of the training rows in its prompt, in their order."""
    heads = study.metric.columns(study.draws[0].report.scores)
    scores = [score for score in heads if score not in SHORT_NAMES]
    names = [heads[score] for score in scores]
    table = number_table("", "draw", *names, "no label", "training rows in the prompt")
    table.columns[-1].justify = "left"
    for draw in study.draws:
        rows = "its own for every test row" if draw.train_rows is None else ", ".join(map(str, draw.train_rows))
        cells = [f"{draw.report.scores[score]:.4f}" for score in scores]
        name = name_of(draw.model, draw.shots)
        add_row(table, name, str(draw.draw + 1), *cells, f"{draw.report.no_label:.1%}", rows)
    return table


def _spread(score: Spread) -> str:
    if score.interval is None:
        return f"{score.mean:.3f}"
    low, high = score.interval
    sd = " " * len("±0.000") if score.sd is None else f"±{score.sd:.3f}"  # so that the means are aligned
    return f"{score.mean:.3f}{sd} [{low:.3f}, {high:.3f}]"
