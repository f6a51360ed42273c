"""A command replaces its own earlier outputs alone; a folder is whole under its name, whatever stops the command."""

import os
from pathlib import Path
from typing import Any

import pytest

from loraft.delivery import output_folder
from loraft.delivery.output_folder import check_folder
from loraft.errors import ConfigError
from loraft.runs.atomic_files import to_json
from loraft.runs.run import MANIFEST_FILE

NAMES = ("config.json", "more/chat.jinja")


def earlier(folder: Path, **merged: str) -> Path:
    """An output of two files, and its manifest."""
    content = {"files": dict.fromkeys(NAMES, ""), "merged": merged}
    for name, text in {**dict.fromkeys(NAMES, ""), MANIFEST_FILE: to_json(content)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(("exported", "merged"), [(False, {"base": "original"}), (True, {"to": "gguf"})])
@pytest.mark.parametrize("notes", ["ghi chú.txt", "more/ghi chú.txt", "mới/ghi chú.txt"])
def test_force_replaces_nothing_but_an_earlier_output_of_the_same_command(
    tmp_path: Path, exported: bool, merged: dict[str, Any], notes: str
) -> None:
    folder = earlier(tmp_path / "m", **merged)
    check_folder(folder, exported=exported, force=True)
    with pytest.raises(ConfigError, match="is there already"):
        check_folder(folder, exported=exported, force=False)
    with pytest.raises(ConfigError, match="holds other files"):
        check_folder(folder, exported=not exported, force=True)
    (folder / notes).parent.mkdir(exist_ok=True)
    (folder / notes).write_text("của em")
    with pytest.raises(ConfigError, match=r"holds other files \(got .*/(ghi chú.txt|mới)\); name"):
        check_folder(folder, exported=exported, force=True)


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
