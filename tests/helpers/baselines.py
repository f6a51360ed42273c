"""Baselines beside a model that was never measured."""

from dataclasses import replace

from loraft.evaluation.baselines import Baselines, ComparedBaseline
from loraft.evaluation.intervals import Difference


def beside() -> Baselines:
    """A baseline that has 20 points more accuracy, and a macro F1 that is not shown to differ."""
    gaps = {
        "accuracy": Difference(-0.2, (-0.249, -0.151), 0.001, 0.004),
        "macro_f1": Difference(0.123, (-0.1, 0.25), 0.2, 0.2),
    }
    scores = {"accuracy": 0.9, "macro_f1": 0.5}
    return Baselines(
        7, 0.95, (ComparedBaseline("TF-IDF + linear SVM", scores, gaps, "worse"),), "The adapter is worse."
    )


NOTE = "TF-IDF + linear SVM, macro F1: the interval holds 0, but the corrected p decides: a difference is shown"


def noted() -> Baselines:
    """The same with that note, which stands below the table."""
    (row,) = (found := beside()).rows
    gap = replace(row.differences["macro_f1"], note=NOTE.partition("F1: ")[2])
    return replace(found, rows=(replace(row, differences={**row.differences, "macro_f1": gap}),))


ROWS = [["TF-IDF + linear SVM", "accuracy", "0.9000", "-20.0 [-24.9, -15.1]", "worse"],
        ["", "macro F1", "0.5000", "+12.3 [-10.0, +25.0]", "neither"]]  # fmt: skip  # of its table
