"""Every case runs in an empty working folder, offline, without the user's settings."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The empty working folder."""
    monkeypatch.chdir(tmp_path)
    shown = warnings.formatwarning
    yield tmp_path
    warnings.formatwarning = shown


@pytest.fixture
def bundled_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands take the bundled backbone's tokenizer from memory: reading it would take most of a case's time."""
    from helpers.tiny import tokenizer

    monkeypatch.setattr("loraft.models.load.load_tokenizer", lambda section: tokenizer())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    from helpers.finished_runs import finished_run

    return finished_run(tmp_path_factory.mktemp("run")).path


@pytest.fixture
def run(made: Path, work: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The same in the working folder; nothing loads a backbone: the test file's `LOADER` names what would."""
    (work / "runs").mkdir()
    (work / "runs" / "one").symlink_to(made)

    def unused(*_: object, **__: object) -> None:
        raise AssertionError("a backbone was loaded")

    monkeypatch.setattr(request.module.LOADER, unused)
    return work / "runs" / "one"
