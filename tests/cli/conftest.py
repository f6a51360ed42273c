"""Fixtures that call the command line in the process of the test."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from helpers.command_line import Double, Says, finished

from loraft.cli.app import main
from loraft.evaluation import evaluate as evaluation
from loraft.evaluation import predict as prediction
from loraft.training import pipeline


@pytest.fixture(autouse=True)
def _process_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores what a command sets for its whole process: environment and format of warnings."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with patch.dict(os.environ):
        yield


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Double:
    """Commands that train, evaluate and predict call this instead."""
    double = Double()
    for module, name in ((pipeline, "train"), (evaluation, "evaluate"), (prediction, "predict")):
        monkeypatch.setattr(module, name, lambda *given, name=name, **named: getattr(double, name)(*given, **named))
    return double


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run_dir(here: Path) -> Path:
    """The finished run "one" in the folder `runs`."""
    return finished(here / "runs" / "one")


@pytest.fixture
def loraft_says(capsys: pytest.CaptureFixture[str]) -> Says:
    """Calls the command line; returns exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call
