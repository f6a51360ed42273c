"""Builds the tables and notes of a comparison of runs, for the terminal."""

from collections.abc import Collection

from rich.table import Table

from loraft.display.table import add_row, narrow_table, number_table
from loraft.evaluation import tables as evaluation_tables
from loraft.evaluation import verdicts
from loraft.evaluation.baselines import Baselines
from loraft.evaluation.shares import percent
from loraft.studies.compare.compare import OUTCOMES, ComparedScores, Comparison


def comparison(result: Comparison) -> Table:
    """Scores of each run as fractions, differences in percentage points with their intervals and p-values.

    Runs are numbered as in `comparison_notes`.
    """
    points = f"points [{percent(result.confidence)} interval]"
    table = narrow_table("run", "score", "value", points, "mended", "broken", "p", "shown to be",
                         drop=("broken", "mended", "p"))  # fmt: skip
    table.padding = 0  # the frame parts the columns: it then fits 80
    word = "first"
    for score, value in _in_order(result, result.first):
        add_row(table, "1", result.metric.head(score), f"{value:.4f}", *[""] * 4, word)
        word = ""
    for number, run in enumerate(result.others, start=2):
        counts = [str(run.mcnemar.b), str(run.mcnemar.c)]  # of the run: on its first line only
        for score, value in _in_order(result, run.compared):
            one = run.difference[score]
            gap = verdicts.cell(score, one.difference, one.interval)
            p_cell = "" if one.p_holm is None else "<0.001" if one.p_holm < 0.001 else f"{one.p_holm:.3g}"
            word = verdicts.SHOWN[verdicts.better(score, one, result.confidence)]
            add_row(table, str(number), result.metric.head(score), f"{value:.4f}", gap, *counts, p_cell, word)
            counts = ["", ""]
    table.columns[1].justify = "left"
    return table


def _in_order(result: Comparison, scores: ComparedScores) -> list[tuple[str, float]]:
    return [(score, scores.scores[score]) for score in result.metric.shown(scores.scores)]


def baselines(result: Comparison) -> list[Table]:
    """The baselines beside each run; runs are numbered as in `comparison_notes`."""
    return evaluation_tables.baselines(_beside(result), "run", result.metric)


def _beside(result: Comparison) -> dict[str, Baselines | None]:
    """The baselines of each run by its number."""
    runs = [result.first, *(other.compared for other in result.others)]
    return {str(n): run.baselines for n, run in enumerate(runs, start=1)}


def worse(result: Comparison) -> list[str]:
    """For each run that is worse than the first one, which scores are shown to be lower, and by how much."""
    lines = []
    for other in result.others:
        gaps = [
            f"{result.metric.name(score)} {verdicts.in_points(one, result.confidence, score)}"
            for score, one in other.difference.items()
            if verdicts.better(score, one, result.confidence) < 0
        ]
        if other.worse:
            lines.append(f"worse than {result.first.run}: {other.compared.run}: {', '.join(gaps)}")
    return lines


def comparison_notes(result: Comparison, left_out: Collection[str] = ()) -> list[str]:
    """The number of each run, the verdicts, and what the columns mean: one sentence a line.

    Args:
        result: the comparison.
        left_out: heads of columns that are not shown, which no note explains.
    """
    counts = {"mended": "the run", "broken": "run 1"}
    others = " and ".join(result.metric.name(one) for one in result.first.scores if one != "accuracy")
    tests = sum(len(other.difference) for other in result.others)
    runs: list[ComparedScores] = [result.first, *(other.compared for other in result.others)]
    said = [
        f"run {number} {verdicts.against(run.difference, result.confidence, 'run 1', result.metric.name)}"
        for number, run in enumerate(result.others, start=2)
    ]
    said += [f"run {n}: {run.baselines.verdict}" for n, run in enumerate(runs, start=1) if run.baselines]
    return [
        *(f"run {number}: {run.run}" for number, run in enumerate(runs, start=1)),
        *said,
        "; ".join(
            [
                f"points: difference to run 1 on {result.n:,} test rows",
                *(
                    f"{head}: rows that only {whose} has right"
                    for head, whose in counts.items()
                    if head not in left_out
                ),
            ]
        ),
        "p: McNemar's exact test of the accuracy, a paired permutation of the rows for the"
        f" {others}; Holm-corrected for"
        f" {tests} tests; better or worse: a p of at most {1 - result.confidence:.2g}",
        *(
            f"run {number}, {result.metric.name(score)}: {one.note}"
            for number, run in enumerate(result.others, start=2)
            for score, one in run.difference.items()
            if one.note
        ),
        *evaluation_tables.baselines_notes(_beside(result), "run", result.metric),
        *result.warnings,
    ]


def changed(result: Comparison, number: int, most: int) -> Table:
    """Rows that a run and the first run answer differently.

    Args:
        result: the comparison.
        number: number of the run, as in `comparison_notes`; 2 or more.
        most: largest number of rows to show for each outcome.
    """
    table = number_table("changed", "row", "reference", "run 1", f"run {number}", "sentence")
    for column in table.columns[2:]:
        column.justify = "left"
    for outcome in OUTCOMES:
        rows = [row for row in result.others[number - 2].changed if row.outcome == outcome]
        for row in rows[:most]:
            answers = [row.label, row.first or "no label", row.other or "no label"]
            add_row(table, outcome, str(row.row), *answers, row.text)
        if len(rows) > most:
            add_row(table, outcome, f"{len(rows) - most} more", "", "", "", "")
    return table
