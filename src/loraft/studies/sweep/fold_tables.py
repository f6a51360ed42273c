"""Builds the tables of a training by folds and the notes below them, for the terminal and the report."""

from rich.table import Table

from loraft.display.table import add_row, number_table
from loraft.evaluation import tables
from loraft.evaluation.shares import percent
from loraft.studies.sweep.fold_records import FoldsResult


def folds_tables(result: FoldsResult) -> list[Table]:
    """Out-of-fold scores over all rows, per label, the baselines, and the metric of each fold."""
    report, metric = result.report, result.metric
    return [
        tables.summary(report, metric),
        *tables.calibration(report),
        tables.per_class(report),
        *tables.baselines({"": result.baselines}, metric=metric),
        _each(result),
    ]


def _each(result: FoldsResult) -> Table:
    table = number_table("fold", "training rows", "rows", "kept step", result.metric.word)
    for fold in result.folds:
        step = "" if fold.best_step is None else str(fold.best_step)
        add_row(table, fold.name, f"{fold.train_rows:,}", f"{fold.n:,}", step, f"{fold.score:.4f}")
    return table


def folds_notes(result: FoldsResult) -> list[str]:
    """What the numbers are, one sentence a line, and the verdict against the baselines."""
    verdict = [] if result.baselines is None else [result.baselines.verdict]
    report = result.report
    beside = tables.baselines_notes({"": result.baselines}, metric=result.metric)
    chosen = f"the checkpoint of a fold is picked by {result.metric.word} on a tenth of the other folds' rows"
    if result.kept == "last":
        chosen = (
            "a fold keeps the weights of its last step; a tenth of the other folds' rows is validation and picks none"
        )
    return [
        f"each of {result.report.n:,} rows is predicted by the adapter of the fold that left it out; in brackets:"
        f" {percent(result.report.confidence)} interval over rows",
        f"{chosen}; near-duplicates are in one fold",
        *tables.calibration_notes(report),
        *beside,
        *verdict,
    ]
