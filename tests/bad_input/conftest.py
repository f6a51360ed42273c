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
