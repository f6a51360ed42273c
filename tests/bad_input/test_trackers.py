"""Trackers that are not installed are refused at the start, with the package to install."""

import importlib.machinery
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from helpers.bad_input import refusal

from loraft.config import trackers
from loraft.config.resolve import resolve
from loraft.errors import ConfigError
from loraft.studies.sweep.folds import train_folds
from loraft.studies.sweep.runner import sweep
from loraft.training.pipeline import train

PACKAGES = {
    "azure_ml": "azureml-core mlflow",
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet-ml",
    "dagshub": "dagshub mlflow",
    "dvclive": "dvclive",
    "flyte": "flytekit",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> importlib.machinery.ModuleSpec | None:
        return None if name.split("X")[0] in {*PACKAGES, "azureml", "flytekit"} else importlib.util.find_spec(name)

    monkeypatch.setattr(trackers, "find_spec", found)


@pytest.mark.parametrize("tracker", PACKAGES)
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_loaded(tracker: str) -> None:
    says = rf"report_to: is not installed \(got '{tracker}'\); pip install {PACKAGES[tracker]}, or leave it out"
    refusal(["train", "--set", f"train.report_to=[{tracker}]"], says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--folds", "5", "--set", "train.report_to=[wandb]"], r"got 'wandb'\); pip install wandb"),
        (["sweep", "--set", "train.report_to=[mlflow]"], r"got 'mlflow'\); pip install mlflow"),
        (["sweep", "--dry-run", "--ranks", "1", "--set", "train.report_to=[wandb]"], r"'wandb'\); pip install wandb"),
        (["sweep", "--grid", "train.report_to=[wandb]"], r"--grid: cannot be swept \(got 'train.report_to'\)"),
        (["train", "--set", "train.report_to=[wandb, wandb]"], r"got 'wandb'\); pip install wandb"),
        (["train", "--set", "train.report_to=[wandb, neptune]"], r"pip install wandb.*\n.*pip install neptune"),
        (["train", "--set", "train.report_to=[wandB]"], r"report_to\[0\]: not allowed .*did you mean wandb\?"),
        (["train", "--set", "train.report_to=[all]"], r"report_to\[0\]: not allowed .*one of azure_ml, .* and 4 more"),
        (
            ["train", "--set", "train.report_to=wandb"],
            r"report_to: not allowed .*; should be a list, for example \[wandb\]",
        ),
    ],
)
def test_every_command_that_trains_refuses_it(arguments: list[str], says: str) -> None:
    refusal(arguments, says)


@pytest.mark.parametrize("function", [train, sweep, train_folds])
def test_the_functions_refuse_it_before_they_read_rows(
    function: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("training.pipeline", "studies.sweep.shared_backbone"):
        monkeypatch.setattr(f"loraft.{place}.training_splits", lambda config: pytest.fail("rows were read"))
    config = resolve(overrides=["train.report_to=[wandb]", "sweep.ranks=[1]", f"output={tmp_path}"])
    with pytest.raises(ConfigError, match="pip install wandb"):
        function(config, *((2,) if function is train_folds else ()))
    assert list(tmp_path.iterdir()) == []
