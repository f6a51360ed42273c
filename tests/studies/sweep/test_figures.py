"""The sweep's figure: each combination of swept keys is a line over rank, or over another key."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import sweeps as swept
from helpers.sweeps import answered, ranked, trial

from loraft.studies.sweep.figures import sweep_curve
from loraft.studies.sweep.records import SettingRecord, SettingScores, SweepResult


def over(*settings: dict[str, Any]) -> SweepResult:
    """A sweep over these settings, equally good but for validation, where the first is best."""
    records = [trial(each, answered([True, False] * 30), 0.9 - i / 10) for i, each in enumerate(settings)]
    return ranked(records, {record.name: answered([True, False] * 30) for record in records})


def measured(setting: SettingRecord) -> SettingScores:
    assert setting.measured is not None
    return setting.measured


@pytest.fixture
def figures(drawn: list[Any]) -> list[Any]:
    """The figures that were drawn."""
    return drawn


def draw(figures: list[Any], result: SweepResult, tmp_path: Path) -> Any:
    sweep_curve(result, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    return figures[-1]


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def faces(axes: Any, x: float) -> list[Any]:
    """The colour inside each mark at that place, lowest first; "none" is nothing but an edge."""
    found = [line for line in axes.lines if line.get_marker() in "os^Dvp" and x in list(line.get_xdata())]
    return ["none" if line.get_fillstyle() == "none" else line.get_markerfacecolor()
            for line in sorted(found, key=lambda line: line.get_zorder())]  # fmt: skip


def seeds_of(axes: Any) -> list[float]:
    """Where the marks of single seeds are, which are drawn last; the ends of the bars look alike."""
    assert axes.lines[-1].get_marker() == "_"
    return list(axes.lines[-1].get_xdata())


def test_the_rank_is_the_axis_and_backbone_data_and_alpha_policy_are_named(figures: list[Any], tmp_path: Path) -> None:
    figure = draw(figures, swept.result((8, 2, 4)), tmp_path)
    upper, lower = figure.axes
    assert [label.get_text() for label in lower.get_xticklabels()] == ["2", "4", "8"]
    assert lower.get_xlabel() == "LoRA rank r"
    assert (upper.get_ylabel(), lower.get_ylabel()) == (
        "macro-F1 (fraction, test split)",
        "accuracy (fraction, test split)",
    )
    assert figure.get_suptitle().splitlines() == [
        "loraft-vi-tiny on feedback, sentiment", "alpha policy: fixed, alpha 32", "bars: 95% interval",
    ]  # fmt: skip
    assert len(upper.containers) == 1  # one line, with its bars


def test_points_and_bars_are_the_means_and_intervals_of_the_settings(figures: list[Any], tmp_path: Path) -> None:
    result = swept.result((2, 4), seeds=(1, 2))
    for axes, score in zip(draw(figures, result, tmp_path).axes, ("macro_f1", "accuracy"), strict=True):
        line, _, (bars,) = axes.containers[0].lines
        spreads = [measured(row).scores[score] for row in result.settings]
        assert list(line.get_ydata()) == [spread.mean for spread in spreads]
        ends = [tuple(end[1] for end in segment) for segment in bars.get_segments()]
        assert ends == [pytest.approx(spread.interval) for spread in spreads]


def test_marks_tell_which_settings_differ_from_the_best(figures: list[Any], tmp_path: Path) -> None:
    result = swept.result((1, 2, 8, 16), rows=1000)
    tests = {row.settings["lora.r"]: measured(row).versus_best for row in result.settings}
    standings = {rank: test and test.same for rank, test in tests.items()}
    assert result.best_setting is not None
    best = result.best_setting.settings["lora.r"]
    same = 24 - best  # of 8 and 16
    assert standings == {1: False, 2: False, best: None, same: True}
    figure = draw(figures, result, tmp_path)
    for axes in figure.axes:
        marks = {rank: faces(axes, x) for x, rank in enumerate((1, 2, 8, 16))}
        assert marks == {1: ["0.0", "white"], 2: ["0.0", "white"], best: ["0.0", "none"], same: ["0.0"]}
    assert legend(figure) == [
        f"best on validation: rank {best}", "cannot be told apart from the best", "differs from the best",
    ]  # fmt: skip


def test_a_setting_that_was_not_compared_is_crossed(figures: list[Any], tmp_path: Path) -> None:
    result = over({"lora.r": 1}, {"lora.r": 2})
    first, second = result.settings
    alone = replace(second, measured=replace(measured(second), versus_best=None))
    figure = draw(figures, replace(result, settings=(first, alone)), tmp_path)
    assert [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "x"] == [1.0]
    assert legend(figure)[1:] == ["other test rows or seeds than the best"]


def test_other_keys_are_lines_of_their_own(figures: list[Any], tmp_path: Path) -> None:
    figure = draw(figures, over(*({"train.optim": o, "lora.r": r} for o in ("sgd", "adamw_torch") for r in (1, 2))),
                  tmp_path)  # fmt: skip
    assert legend(figure)[-2:] == ["optim sgd", "optim adamw_torch"]
    lines = [bar.lines[0] for bar in figure.axes[0].containers]
    for look in ("color", "marker", "linestyle"):
        assert len({getattr(line, f"get_{look}")() for line in lines}) == 2  # told apart in greyscale


def test_lines_and_single_seeds_are_drawn_beside_each_other(figures: list[Any], tmp_path: Path) -> None:
    keys = [{"train.optim": o, "lora.r": r, "seed": s} for o in ("sgd", "adamw_torch") for r in (1, 2) for s in (1, 2)]
    upper = draw(figures, over(*keys), tmp_path).axes[0]
    lines = [list(bar.lines[0].get_xdata()) for bar in upper.containers]
    assert lines == [pytest.approx([-0.1, 0.9]), pytest.approx([0.1, 1.1])]
    assert sorted(seeds_of(upper)) == pytest.approx([0.2] * 4 + [1.2] * 4)


@pytest.mark.parametrize(
    ("settings", "ticks"),
    [
        ([{"train.learning_rate": 5e-4}, {"train.learning_rate": 1e-4}], ["0.0001", "0.0005"]),
        ([{"quant.method": "none"}, {"quant.method": "nf4"}], ["none", "nf4"]),
        ([{"lora.target_modules": ["q_proj"]}, {"lora.target_modules": "all-linear"}], ["q_proj", "all-linear"]),
    ],
)
def test_without_ranks_another_key_is_the_axis(
    figures: list[Any], tmp_path: Path, settings: list[dict[str, Any]], ticks: list[str]
) -> None:
    lower = draw(figures, over(*settings), tmp_path).axes[1]
    assert [label.get_text() for label in lower.get_xticklabels()] == ticks
    assert lower.get_xlabel() == next(iter(settings[0])).split(".")[1]


def test_seeds_alone_are_one_point_with_its_seeds_beside(figures: list[Any], tmp_path: Path) -> None:
    figure = draw(figures, over({"seed": 1}, {"seed": 2}), tmp_path)
    assert figure.get_suptitle().splitlines()[-1] == "means of 2 seeds, bars: 95% interval"
    assert legend(figure) == ["best on validation: all seeds", "one seed"]
    assert len(seeds_of(figure.axes[0])) == 2


def test_settings_and_seeds_that_failed_are_left_out(figures: list[Any], tmp_path: Path) -> None:
    figure = draw(figures, swept.result((1, 2, 4), seeds=(1, 2), failed=("r1-s1", "r2-s1", "r2-s2")), tmp_path)
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["1", "4"]
    assert len(seeds_of(figure.axes[0])) == 3
