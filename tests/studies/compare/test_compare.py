"""Comparisons of runs: differences, tests and changed rows against counts made by hand."""

from pathlib import Path

import pytest
from helpers.compared_runs import GOLD, make_run, wrong_on
from scipy.stats import binomtest

from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.errors import RunError
from loraft.evaluation.intervals import differences
from loraft.runs.predictions import read_predictions
from loraft.runs.records import as_json
from loraft.runs.run import Run
from loraft.studies.compare.compare import compare
from loraft.studies.compare.tables import comparison_notes


def test_differences_are_those_of_the_second_run_minus_the_first(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a", wrong_on(*range(20))), make_run(tmp_path / "b", wrong_on(0, 1, 30))
    result = compare([first, second])
    (other,) = result.others
    assert result.n == 60
    assert result.first.run == str(first)
    assert result.first.scores["accuracy"] == pytest.approx(40 / 60)
    assert other.difference["accuracy"].difference == pytest.approx(17 / 60)
    low, high = other.difference["accuracy"].interval
    assert 0 < low < 17 / 60 < high < 1
    assert (other.mcnemar.b, other.mcnemar.c) == (18, 1)
    p_value = binomtest(1, 19).pvalue
    assert (other.mcnemar.p_value, other.difference["accuracy"].p_value) == pytest.approx((p_value, p_value))
    assert other.mcnemar.p_holm == other.difference["accuracy"].p_holm == pytest.approx(2 * p_value)  # two scores
    assert (other.worse, other.better) == (False, True)


def test_confidence_samples_and_seed_are_those_of_the_first_runs_config(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a", wrong_on(*range(20))), make_run(tmp_path / "b", wrong_on(0, 1, 30))
    as_it_was = compare([first, second])
    settings = ["eval.confidence=0.5", "eval.bootstrap_samples=100", "seed=7"]
    Run(first).config_path.write_text(dump_config(resolve(overrides=settings)), encoding="utf-8")
    result = compare([first, second])
    assert result.confidence == 0.5
    answers = [read_predictions(Run(path)) for path in (first, second)]
    expected = differences(
        GOLD, [answers[1].predictions_N], [answers[0].predictions_N], 3, bootstrap_samples=100, confidence=0.5, seed=7
    )
    for score, difference in result.others[0].difference.items():
        assert difference.interval == expected[score].interval != as_it_was.others[0].difference[score].interval


def test_the_changed_rows_are_told_with_their_outcome(tmp_path: Path) -> None:
    second = wrong_on(0, 30)
    second[0] = (GOLD[0] + 2) % 3  # wrong before, otherwise wrong now
    result = compare([make_run(tmp_path / "a", wrong_on(0, 1)), make_run(tmp_path / "b", second)])
    changed = result.others[0].changed
    assert [(row.row, row.outcome) for row in changed] == [(12, "mended"), (41, "broken"), (11, "wrong in both")]
    assert changed[0].text.startswith("câu phản hồi 1")
    assert (changed[0].label, changed[0].first, changed[0].other) == ("neutral", "positive", "neutral")


def test_worse_is_worse_beyond_chance(tmp_path: Path) -> None:
    good, slightly, clearly = (
        make_run(tmp_path / name, wrong_on(*rows)) for name, rows in (("a", [1]), ("b", [1, 2]), ("c", range(20)))
    )
    others = compare([good, slightly, clearly]).others
    assert [other.difference["accuracy"].difference < 0 for other in others] == [True, True]
    assert [other.worse for other in others] == [False, True]
    # b has one more row wrong than the first run, p = 2 / 2^1; c has 19 more, p = 2 / 2^19, the smallest of four p.
    assert [other.mcnemar.p_value for other in others] == pytest.approx([1.0, 2**-18])
    assert [other.mcnemar.p_holm for other in others] == pytest.approx([1.0, 2**-16])


def test_an_interval_below_0_alone_makes_no_run_worse(tmp_path: Path) -> None:
    # Six rows broken, none mended: McNemar's p is 2 / 2^6, for two scores 0.0625, while both intervals lie below 0.
    good, slightly = make_run(tmp_path / "a", GOLD), make_run(tmp_path / "b", wrong_on(*range(6)))
    result = compare([good, slightly])
    (other,) = result.others
    assert all(difference.interval[1] < 0 for difference in other.difference.values())
    assert other.difference["accuracy"].p_holm == pytest.approx(0.0625)
    assert (other.worse, other.better) == (False, False)
    assert comparison_notes(result)[-2:] == [
        f"run 2, {score}: the interval leaves out 0, but the corrected p decides: no difference is shown"
        for score in ("accuracy", "macro F1")
    ]
    for rows, worse in ((5, False), (8, True)):
        assert compare([good, make_run(tmp_path / f"c{rows}", wrong_on(*range(rows)))]).others[0].worse == worse


def test_an_answer_that_is_no_label_is_wrong(tmp_path: Path) -> None:
    silent: list[int | None] = [None, *GOLD[1:]]
    result = compare([make_run(tmp_path / "a", GOLD), make_run(tmp_path / "b", silent)])
    (other,) = result.others
    assert other.difference["accuracy"].difference == pytest.approx(-1 / 60)
    assert other.changed[0].other is None
    assert other.changed[0].outcome == "broken"


def test_a_run_equals_its_copy_and_is_not_compared_with_itself(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", wrong_on(3, 4))
    with pytest.raises(RunError, match="the same run twice"):
        compare([path, tmp_path / "b" / ".." / "a"])
    (other,) = compare([path, make_run(tmp_path / "c", wrong_on(3, 4))]).others
    for one in other.difference.values():
        assert (one.difference, one.p_holm, one.note) == (0.0, 1.0, None)
        assert one.interval[0] < -0.03 < 0.03 < one.interval[1]
    assert other.mcnemar.p_value == 1
    assert other.changed == ()
    assert not other.worse


def test_runs_on_other_rows_are_refused_with_the_first_difference(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", GOLD)
    for name, other, reason in (
        ("b", make_run(tmp_path / "b", GOLD[:30], GOLD[:30]), "60 and 30 test rows"),
        ("c", make_run(tmp_path / "c", GOLD, text="câu khác"), "row 11: 'câu phản hồi 0"),
        ("d", make_run(tmp_path / "d", GOLD, [*GOLD[:9], 2, *GOLD[10:]]), "row 20 is negative in one and positive"),
    ):
        with pytest.raises(RunError, match=f"{name}: has other test rows than .*a \\({reason}"):
            compare([first, other])


def test_unfinished_broken_and_single_runs_are_refused(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a", GOLD), make_run(tmp_path / "b", GOLD)
    with pytest.raises(RunError, match=r"too few runs \(got 1\)"):
        compare([first])
    Run(second).predictions_path.write_text('{"row": 1', encoding="utf-8")
    with pytest.raises(RunError, match="is not JSON"):
        compare([first, second])
    Run(second).results_path.unlink()
    with pytest.raises(RunError, match="not finished"):
        compare([first, second])


def test_in_json_scores_are_keys_of_the_run_itself(tmp_path: Path) -> None:
    content = as_json(compare([make_run(tmp_path / "a", GOLD), make_run(tmp_path / "b", wrong_on(3))]))
    assert content.keys() == {"n", "labels", "confidence", "first", "others", "warnings", "metric"}
    assert content["first"].keys() == {"run", "accuracy", "macro_f1", "baselines"}
    (other,) = content["others"]
    assert other.keys() == {
        *content["first"], "difference", "mcnemar", "changed", "worse", "better", "verdict"
    }  # fmt: skip
    assert other["difference"]["accuracy"].keys() == {"difference", "interval", "p_value", "p_holm", "note"}
