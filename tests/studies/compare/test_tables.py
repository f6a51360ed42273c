"""Tables of a comparison: differences in points, the verdict, and the rows that changed."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.baselines import NOTE, ROWS, beside, noted
from helpers.compared_runs import GOLD, make_run, wrong_on
from rich.console import Console

from loraft.display.page import cells
from loraft.evaluation.choosing import Metric
from loraft.evaluation.intervals import Difference
from loraft.evaluation.metrics import ALL_SCORES
from loraft.studies.compare.compare import ComparedRun, ComparedScores, Comparison, McNemar, compare
from loraft.studies.compare.tables import baselines, changed, comparison, comparison_notes


@pytest.fixture
def three(tmp_path: Path) -> Comparison:
    """Of 60 rows the first run has 20 wrong, the second 3 (one of them right in the first), the third 20 others."""
    wrong = {"a": range(20), "b": (0, 1, 30), "c": range(20, 40)}
    return compare([make_run(tmp_path / name, wrong_on(*rows)) for name, rows in wrong.items()])


def test_a_line_for_each_score_has_points_interval_and_p_and_the_verdict_stands_once(three: Comparison) -> None:
    heads, rows = cells(comparison(three))
    assert heads == ["run", "score", "value", "points [95% interval]", "mended", "broken", "p", "shown to be"]
    assert [row[:2] for row in rows] == [[str(n), score] for n in (1, 2, 3) for score in ("accuracy", "macro F1")]
    assert rows[0] == ["1", "accuracy", "0.6667", "", "", "", "", "first"]
    assert rows[1][-1] == ""
    low, high = three.others[0].difference["accuracy"].interval
    assert rows[2][:4] == ["2", "accuracy", "0.9500", f"+28.3 [{100 * low:+.1f}, {100 * high:+.1f}]"]  # 17 of 60
    assert rows[2][4:] == ["18", "1", "<0.001", "better"]  # 2 of 2^19 outcomes are as far from even, times 21
    assert rows[3][4:] == ["", "", "<0.001", "better"]
    # 20 rows are right in the third run only, 20 in the first only: no difference, and p is 1 also when corrected.
    assert rows[4][3].startswith("+0.0 [-")
    assert rows[4][4:] == ["20", "20", "1", "neither"]


@pytest.mark.parametrize("score", ["mean_absolute_error", "label_f1", "quadratic_kappa"])
def test_the_table_fits_80_columns_with_each_metric_and_an_error_is_in_steps(score: str, three: Comparison) -> None:
    metric = Metric(score, "F1 of positive" if score == "label_f1" else ALL_SCORES[score], score, ordinal=True)
    widest = {"accuracy": 0.1, "macro_f1": 0.1, score: 0.1}
    gaps = dict.fromkeys(widest, Difference(-0.123, (-0.234, -0.111), 0.01, 0.0123))
    run = replace(three.others[0], compared=ComparedScores("b", widest), difference=gaps)
    table = comparison(replace(three, metric=metric, first=ComparedScores("a", widest), others=(run,)))
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    assert len(console.file.getvalue().splitlines()) == 2 + 6  # type: ignore[attr-defined]  # no cell is folded
    own = cells(table)[1][3]
    assert own[3] == ("-0.12 [-0.23, -0.11] steps" if score == "mean_absolute_error" else "-12.3 [-23.4, -11.1]")


def test_p_values_are_the_corrected_ones() -> None:
    scores = ComparedScores("b", {"accuracy": 0.5})
    difference = {"accuracy": Difference(0.0, (-0.1, 0.1), 0.01, 0.0234567)}
    run = ComparedRun(scores, difference, McNemar(3, 5, 0.01, 0.0234567), (), False, False)
    result = Comparison(60, ("x", "y"), 0.9, ComparedScores("a", {"accuracy": 0.5}), (run,))
    heads, rows = cells(comparison(result))
    assert heads[3] == "points [90% interval]"
    assert rows[1][6] == "0.0235"


def test_the_notes_number_the_runs_and_name_the_rule(three: Comparison, tmp_path: Path) -> None:
    *runs, second, third, legend, rule = comparison_notes(three)
    assert second == "run 2 is better than run 1 (accuracy, macro F1)"
    assert third == "run 3 cannot be told apart from run 1 (accuracy, macro F1)"
    assert runs == [f"run {n}: {tmp_path / name}" for n, name in enumerate("abc", start=1)]
    assert legend.startswith("points: difference to run 1 on 60 test rows")
    assert rule.startswith("p: McNemar's exact test of the accuracy, a paired permutation of the rows for the macro F1")
    assert rule.endswith("Holm-corrected for 4 tests; better or worse: a p of at most 0.05")


def test_changed_rows_are_the_first_of_each_outcome_and_the_number_of_the_others(three: Comparison) -> None:
    heads, rows = cells(changed(three, 2, 3))
    assert heads == ["changed", "row", "reference", "run 1", "run 2", "sentence"]
    assert [row[:2] for row in rows] == [
        ["mended", "13"], ["mended", "14"], ["mended", "15"], ["mended", "15 more"], ["broken", "41"]
    ]  # fmt: skip
    assert rows[0][2:5] == ["positive", "negative", "positive"]  # row 13 is index 2: label 2, wrong in run 1
    assert rows[4][2:5] == ["negative", "negative", "neutral"]
    assert rows[0][5].startswith("câu phản hồi 2")
    assert cells(changed(three, 3, 3))[1][0][1] == "11"  # each run has rows of its own
    assert not any("more" in row[1] for row in cells(changed(three, 2, 18))[1])  # all 18 mended rows are shown


def test_an_answer_that_is_no_label_is_shown_as_that(tmp_path: Path) -> None:
    silent: list[int | None] = [None, *GOLD[1:]]
    one, other = make_run(tmp_path / "a", GOLD), make_run(tmp_path / "b", silent)
    assert cells(changed(compare([one, other]), 2, 5))[1][0][2:5] == ["negative", "negative", "no label"]
    assert cells(changed(compare([other, one]), 2, 5))[1][0][2:5] == ["negative", "no label", "negative"]


def test_baselines_are_shown_beside_each_run_whose_results_have_them(three: Comparison) -> None:
    assert baselines(three) == []
    result = replace(three, first=replace(three.first, baselines=beside()))
    (table,) = baselines(result)
    assert cells(table)[1] == [["1", *ROWS[0]], ["", *ROWS[1]]]
    assert comparison_notes(result)[5] == "run 1: The adapter is worse."
    noting = replace(three, first=replace(three.first, baselines=noted()))
    assert comparison_notes(noting)[-1] == f"run 1, {NOTE}"
