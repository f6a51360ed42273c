"""The sweep's figure: each combination of swept keys is a line over rank, or over another key."""

from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest

from loraft import sweepplots


def sweep(settings: list[dict[str, Any]], seeds: int = 1) -> dict[str, Any]:
    spread = {"mean": 0.8, "sd": None, "interval": [0.7, 0.9]}
    rows = [{"settings": each, "seeds": seeds, "accuracy": spread, "macro_f1": spread} for each in settings]
    trials = [
        {"settings": each, "accuracy": 0.8, "macro_f1": 0.8, "name": f"thử {i}"} for i, each in enumerate(settings)
    ]
    return {
        "keys": list(settings[0]), "settings": rows, "trials": [*trials, {"settings": settings[0], "status": "failed"}],
        "best": trials[0], "backbone": "loraft-vi-tiny", "data": "phản hồi", "task": "sentiment",
        "alpha_policies": ["proportional, alpha 2 r"], "confidence": 0.95,
    }  # fmt: skip


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were drawn."""
    drawn: list[Any] = []

    class Kept(matplotlib.figure.Figure):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            drawn.append(self)

    monkeypatch.setattr(matplotlib.figure, "Figure", Kept)
    return drawn


def draw(figures: list[Any], result: dict[str, Any], tmp_path: Path) -> Any:
    sweepplots.sweep_curve(result, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    return figures[-1]


def test_the_rank_is_the_axis_and_the_alpha_policy_in_the_title(figures: list[Any], tmp_path: Path) -> None:
    figure = draw(figures, sweep([{"lora.r": r} for r in (8, 2, 4)]), tmp_path)
    upper, lower = figure.axes
    assert [label.get_text() for label in lower.get_xticklabels()] == ["2", "4", "8"]
    assert lower.get_xlabel() == "LoRA rank r"
    assert (upper.get_ylabel(), lower.get_ylabel()) == (
        "macro-F1 (fraction, test split)",
        "accuracy (fraction, test split)",
    )
    assert "alpha policy: proportional, alpha 2 r" in upper.get_title()
    assert "95% interval" in upper.get_title()
    assert len(upper.containers) == 1  # one line, with its bars


def test_other_keys_are_lines_of_their_own(figures: list[Any], tmp_path: Path) -> None:
    settings = [{"train.optim": o, "lora.r": r} for o in ("sgd", "adamw_torch") for r in (1, 2)]
    upper = draw(figures, sweep(settings), tmp_path).axes[0]
    names = [text.get_text() for text in upper.get_legend().get_texts()]
    assert {"optim sgd", "optim adamw_torch"} <= set(names)
    shades = {bar.lines[0].get_color() for bar in upper.containers}
    marks = {bar.lines[0].get_marker() for bar in upper.containers}
    assert len(shades) == len(marks) == 2  # told apart in greyscale


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
    lower = draw(figures, sweep(settings), tmp_path).axes[1]
    assert [label.get_text() for label in lower.get_xticklabels()] == ticks
    assert lower.get_xlabel() == next(iter(settings[0])).split(".")[1]


def test_seeds_alone_are_one_point_with_its_seeds_beside(figures: list[Any], tmp_path: Path) -> None:
    result = sweep([{"seed": 1}, {"seed": 2}], seeds=2)
    result["settings"] = [{**result["settings"][0], "settings": {}}]
    upper = draw(figures, result, tmp_path).axes[0]
    assert "means of 2 seeds" in upper.get_title()
    (seeds,) = [line for line in upper.lines if line.get_label() == "one seed"]
    assert len(seeds.get_xdata()) == 2
