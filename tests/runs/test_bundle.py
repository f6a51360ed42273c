"""A folder with a `loraft.json` is used like a finished run; its config is in that file."""

import json
from pathlib import Path
from typing import Any

import pytest

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.errors import ConfigError, RunError
from loraft.runs.atomic_files import write_json
from loraft.runs.bundle import config_of
from loraft.runs.run import Bundle, Run, find_run

FIRST = Path(__file__).parents[1] / "fixtures" / "first_layout" / "run"


@pytest.fixture(scope="module")
def config() -> Config:
    return resolve(overrides=["lora.r=3", "quant.method=nf4", "data.source=vi-app-reviews", "prompt.task=app-reviews"])


def bundle(folder: Path, **content: Any) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "loraft.json", {"schema_version": 1, **content})
    return Run.open(folder)


def test_it_is_finished_and_its_config_is_the_trainings(config: Config, tmp_path: Path) -> None:
    found = bundle(tmp_path / "gói", config=config.model_dump(), labels=["tốt", "xấu"])
    assert isinstance(found, Bundle)
    assert found.finished
    assert found.adapter == found.path
    assert found.read_labels() == ("tốt", "xấu")
    assert config_of(found) == config
    assert isinstance(find_run("gói", tmp_path), Bundle)
    assert isinstance(find_run(tmp_path / "gói", tmp_path / "không có"), Bundle)


def test_merged_weights_are_their_own_backbone(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    merged = {"base": "dequantised"}
    found = bundle(Path("gộp"), config=config.model_dump(), merged=merged, backbone={"dtype": "bf16"})
    own = config_of(found)
    assert (own.model.name, own.model.dtype, own.quant.method) == (str(tmp_path / "gộp"), "bf16", "none")
    assert own.prompt == config.prompt


def test_a_bundle_gives_no_leave_to_run_code(config: Config, tmp_path: Path) -> None:
    trusting = config.model_dump()
    trusting["model"] |= {"name": "ai/của-em", "trust_remote_code": True, "revision": "a1" * 20}
    assert not config_of(bundle(tmp_path, config=trusting)).model.trust_remote_code


def test_a_file_of_an_earlier_version_has_what_prediction_needs(tmp_path: Path) -> None:
    old = json.loads((FIRST / "adapter" / "loraft.json").read_text(encoding="utf-8"))
    assert "config" not in old
    found, trained = config_of(bundle(tmp_path, **old)), config_of(Run.open(FIRST))
    assert found.prompt == trained.prompt
    assert found.quant.method == trained.quant.method
    assert found.model.label == trained.model.label


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"config": 3}, r"loraft.json"),
        ({"config": {"model": {"name": "m"}}}, r"is not a whole config"),
        ({}, r"prompt"),
    ],
)
def test_a_damaged_one_is_one_message(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, RunError), match=message):
        config_of(bundle(tmp_path, **content))


def test_a_run_folder_is_no_bundle(tmp_path: Path) -> None:
    assert not isinstance(Run.open(FIRST), Bundle)
    with pytest.raises(RunError, match=r"is not a run directory \(no config.yaml or loraft.json in it\)"):
        Run.open(tmp_path)
