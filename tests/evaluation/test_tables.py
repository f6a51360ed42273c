"""Tables of an evaluation: what stands in which cell."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers.baselines import NOTE, ROWS, beside, noted
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loraft.evaluation.classification_report import EvaluationReport, ProbabilityScores, classification_report
from loraft.evaluation.tables import (
    baselines,
    baselines_notes,
    before_after,
    calibration,
    calibration_notes,
    confusion,
    per_class,
    summary,
)
from loraft.models.calibration import Calibration


def cells(table: Table) -> list[list[str]]:
    """The texts of all rows, the header first."""
    columns = [[column.header, *column.cells] for column in table.columns]
    return [[cell.plain for cell in row if isinstance(cell, Text)] for row in zip(*columns, strict=True)]


def report(predictions: list[int], *, scored: bool = True) -> EvaluationReport:
    probs = [[0.75, 0.25]] * 4 if scored else None
    return classification_report([0, 0, 1, 1], probs, predictions, ["[chê]", "khen"], bootstrap_samples=100,
                                 confidence=0.95, seed=0)  # fmt: skip


GOOD, BAD = report([0, 0, 1, 0]), report([0, 1, 0, 0])
UNSURE = report([0, -1, -1, 1], scored=False)


def shown(low_high: tuple[float, float]) -> str:
    return f" [{low_high[0]:.3f}, {low_high[1]:.3f}]"


def test_before_and_after_stand_side_by_side_with_their_difference_in_points() -> None:
    # GOOD: 3 of 4; label 0 has precision 2/3 and recall 1, label 1 precision 1 and recall 1/2; F1 0.8 and 2/3.
    # BAD: 1 of 4; label 0 has precision 1/3 and recall 1/2, so F1 0.4; label 1 has none right.
    assert cells(before_after(BAD, GOOD)) == [
        ["", "before: zero-shot", "after: adapter", "points"],
        ["accuracy", "0.2500", "0.7500" + shown(GOOD.intervals["accuracy"]), "+50.0"],
        ["macro F1", "0.2000", "0.7333" + shown(GOOD.intervals["macro_f1"]), "+53.3"],
        ["macro precision", "0.1667", "0.8333", "+66.7"],
        ["macro recall", "0.2500", "0.7500", "+50.0"],
        ["F1 [chê] (n=2)", "0.4000", "0.8000", "+40.0"],
        ["F1 khen (n=2)", "0.0000", "0.6667", "+66.7"],
    ]


def test_without_a_measurement_before_its_column_is_empty() -> None:
    rows = cells(before_after(None, GOOD))[1:]
    assert {(row[1], row[3]) for row in rows} == {("", "")}
    assert rows[-1][2] == "0.6667"


def test_a_loss_is_negative() -> None:
    assert cells(before_after(GOOD, BAD))[1][3] == "-50.0"


@pytest.mark.parametrize(
    ("before", "after", "shares"),
    [(UNSURE, GOOD, ["0.5000", "0.0000"]), (GOOD, UNSURE, ["0.0000", "0.5000"]), (None, UNSURE, ["0.0000", "0.5000"])],
)
def test_answers_that_are_no_label_get_a_row_where_there_are_some(
    before: EvaluationReport | None, after: EvaluationReport, shares: list[str]
) -> None:
    assert cells(before_after(before, after))[-1] == ["answers that are no label", *shares, ""]
    assert "answers that are no label" not in [row[0] for row in cells(before_after(GOOD, GOOD))]


def test_the_summary_says_which_answers_were_no_label() -> None:
    found = cells(summary(GOOD))
    assert found[0] == ["", "value"]
    assert found[1] == ["accuracy", "0.7500" + shown(GOOD.intervals["accuracy"])]
    assert found[5:] == [["rows", "4"]]
    assert cells(summary(UNSURE))[5:] == [["answers that are no label", "0.5000"], ["rows", "4"]]


SCORED = replace(GOOD, expected_calibration_error=0.125, log_loss=0.5, brier_score=0.25,
                 calibration_error_interval=(0.0, 0.25))  # fmt: skip
BEFORE = ProbabilityScores(0.5, (0.375, 0.75), 0.75, 0.5, accuracy=0.5, macro_f1=0.25)


def test_probabilities_stand_as_scored_and_calibrated() -> None:
    both = replace(SCORED, calibration=Calibration(1.5, None, 150, 157), before_calibration=BEFORE)
    (table,) = calibration(both)
    assert cells(table) == [
        ["probabilities", "as scored", "calibrated"],
        ["calibration error", "0.5000 [0.375, 0.750]", "0.1250 [0.000, 0.250]"],
        ["log loss, nats", "0.7500", "0.5000"],
        ["Brier score", "0.5000", "0.2500"],
    ]
    assert calibration_notes(both) == [
        "calibrated: temperature 1.500, fitted on 150 validation rows; 157 more are set aside for promises"
    ]
    output = io.StringIO()
    Console(file=output, width=80).print(table)
    assert "…" not in output.getvalue()
    assert len([line for line in output.getvalue().splitlines() if line.strip()]) == 5  # no cell is broken


def test_biases_are_told_with_the_labels_that_they_change() -> None:
    found = replace(
        SCORED, calibration=Calibration(1.5, (0.25, -0.25), 300), before_calibration=replace(BEFORE, changed=2)
    )
    assert cells(calibration(found)[0])[4:] == [["accuracy", "0.5000", "0.7500"], ["macro F1", "0.2500", "0.7333"]]
    assert calibration_notes(found) == [
        "calibrated: temperature 1.500, biases +0.25, -0.25, fitted on 300 validation rows",
        "biases change labels: 2 of 4 here",
    ]


def test_without_calibration_probabilities_are_as_scored() -> None:
    assert cells(calibration(SCORED)[0])[0] == ["probabilities", "as scored"]
    earlier = replace(SCORED, brier_score=None, calibration_error_interval=None)  # as read from an earlier file
    assert cells(calibration(earlier)[0])[1:] == [["calibration error", "0.1250"], ["log loss, nats", "0.5000"]]
    assert calibration_notes(SCORED) == calibration(UNSURE) == []


def test_each_label_has_a_row_of_scores() -> None:
    assert cells(per_class(GOOD)) == [
        ["label", "precision", "recall", "F1", "rows"],
        ["[chê]", "0.6667", "1.0000", "0.8000", "2"],
        ["khen", "1.0000", "0.5000", "0.6667", "2"],
    ]


def test_the_confusion_has_true_labels_as_rows() -> None:
    assert cells(confusion(GOOD)) == [["true / predicted", "[chê]", "khen"], ["[chê]", "2", "0"], ["khen", "1", "1"]]
    assert cells(confusion(UNSURE)) == [
        ["true / predicted", "[chê]", "khen", "no label"], ["[chê]", "1", "0", "1"], ["khen", "0", "1", "1"],
    ]  # fmt: skip


# --- many labels ------------------------------------------------------------------------------------------------------

EIGHTY = [f"dịch vụ {n:02}: giờ mở cửa" for n in range(80)]


def many() -> EvaluationReport:
    """Label n has n % 4 + 1 rows; of every fifth label all are taken for label 7, and of label 1 one is no label."""
    references = [n for n in range(80) for _ in range(n % 4 + 1)]
    answers = [7 if n % 5 == 0 else n for n in references]
    answers[references.index(1)] = -1
    return classification_report(references, None, answers, EIGHTY, bootstrap_samples=100, confidence=0.95, seed=0)


def test_of_many_labels_the_worst_are_listed_and_the_most_frequent_confusions() -> None:
    found = many()
    rows = cells(per_class(found))[1:]
    assert len(rows) == 16
    assert rows[0] == [
        EIGHTY[15],
        "0.0000",
        "0.0000",
        "0.0000",
        "4",
    ]  # of the labels without any right row, the largest
    assert {row[3] for row in rows[:15]} == {"0.0000"}
    assert rows[-1][0] == "the worst of 80 labels; 65 more"
    assert [row[0] for row in cells(before_after(found, found))[5:20]] == [
        f"F1 {row[0]} (n={row[4]})" for row in rows[:15]
    ]
    head, *wrong, rest = cells(confusion(found))
    assert head == ["true", "predicted", "rows", "of its rows"]
    assert wrong[0] == [EIGHTY[15], EIGHTY[7], "4", "100.0%"]
    assert [int(row[2]) for row in wrong] == [4] * 4 + [3] * 4 + [2] * 4 + [1] * 3
    # 40 rows of 16 labels go to label 7, and one is no label: what 15 lines do not show is the 16th label's and that.
    assert rest == ["all other confusions", "", "2", ""]


@pytest.mark.parametrize("make", [per_class, confusion, summary])
def test_many_labels_fit_80_columns_one_line_each(make: Callable[[EvaluationReport], Table]) -> None:
    table = make(many())
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    lines = [line for line in console.file.getvalue().splitlines() if line.strip()]  # type: ignore[attr-defined]
    assert len(lines) == table.row_count + 2  # head and rule


def test_rows_that_were_shortened_are_in_the_tables() -> None:
    short = replace(GOOD, truncated=2, cut=0.375)
    assert cells(summary(short))[-1] == ["rows shortened, share of all tokens", "2 of 4, 37.5%"]
    assert cells(before_after(GOOD, short))[-1] == ["rows shortened, share of all tokens", "", "2 of 4, 37.5%", ""]


def test_a_baseline_has_a_line_for_each_score_with_the_models_difference_and_what_is_shown() -> None:
    (table,) = baselines({"": beside()})
    assert cells(table) == [
        ["baseline", "score", "value", "points [95% interval]", "shown to be"],
        *ROWS,
    ]
    assert baselines({"": None}) == []


def test_what_decides_where_interval_and_test_disagree_stands_below_the_table() -> None:
    assert baselines_notes({"": beside()}) == baselines_notes({"": None}) == []
    assert baselines_notes({"": noted()}) == [NOTE]
    assert baselines_notes({"1": beside(), "2": noted()}, "run") == [f"run 2, {NOTE}"]


def test_several_models_are_named_in_a_column_and_the_table_fits_80_columns() -> None:
    (table,) = baselines({"1": beside(), "2": None, "3": beside()}, "run")
    assert [row[:3] for row in cells(table)] == [
        ["run", "baseline", "score"],
        *([[n, "TF-IDF + linear SVM", "accuracy"], ["", "", "macro F1"]][i] for n in "13" for i in (0, 1)),
    ]
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    assert len(console.file.getvalue().splitlines()) == 2 + 4  # type: ignore[attr-defined]  # no cell is folded
