"""Folders of weights are whole under their name, whatever stops the command."""

import os
from pathlib import Path

import pytest

from loraft.delivery import output_folder


def test_an_interruption_between_the_two_renames_leaves_the_earlier_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mô-hình" / "cũ").mkdir(parents=True)
    rename = os.replace

    def stopped(path: Path, to: Path) -> None:
        rename(path, to)
        if to.name.endswith("-before"):
            raise KeyboardInterrupt

    monkeypatch.setattr(output_folder.os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt), output_folder.written_aside(tmp_path / "mô-hình") as aside:
        (aside / "mới").mkdir()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["mô-hình", "mô-hình/cũ"]
    monkeypatch.undo()
    with output_folder.written_aside(tmp_path / "mô-hình") as aside:
        (aside / "mới").mkdir()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["mô-hình", "mô-hình/mới"]
