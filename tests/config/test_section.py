"""Tests of `loraft.config.section` and of short forms of sections."""

from pathlib import Path

import pytest

from loraft.config.resolve import load_config, resolve
from loraft.config.schema import Config, OutputSection


@pytest.mark.parametrize("text", ["output: kết quả\n", "output:\n  folder: kết quả\n"])
def test_output_as_text_is_short_for_its_folder(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    loaded = load_config(tmp_path / "c.yaml")
    assert loaded.output == OutputSection(folder="kết quả", texts=True) == Config(output="kết quả").output  # type: ignore[arg-type]
    changed = resolve(config_file=tmp_path / "c.yaml", overrides=["output.texts=false"], flags={"output": "2024"})
    assert (changed.output.folder, changed.output.texts) == ("2024", False)
    assert resolve(overrides=["output=007", "output.texts=false"]).output == OutputSection(folder="007", texts=False)
