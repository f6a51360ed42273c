"""Which run a command works with, and what may be changed about it."""

import json
import os
from pathlib import Path

import pytest
from helpers.command_line import Double, Says, finished

from loraft.cli.finished_run import finished_run, made_elsewhere, refuse_fixed
from loraft.config.resolve import resolve
from loraft.errors import BackboneError, ConfigError, RunError


def test_the_newest_finished_run_is_meant_where_none_is_named(here: Path) -> None:
    for number, name in enumerate(["b", "c", "a"]):
        path = finished(here / "runs" / name, flags={"lora.r": number + 1})
        os.utime(path / "metrics.json", (1000 + number, 1000 + number))
    (here / "runs" / "dở dang").mkdir()
    assert finished_run(None, None, (), {}) == (Path("runs/a"), resolve(flags={"lora.r": 3}))
    assert finished_run("c", None, (), {}) == (Path("runs/c"), resolve(flags={"lora.r": 2}))


def test_the_folder_of_the_runs_can_be_another(here: Path) -> None:
    finished(here / "runs" / "một")
    finished(here / "kết quả" / "hai")
    assert finished_run(None, "kết quả", (), {})[0] == Path("kết quả/hai")
    assert finished_run("hai", "kết quả", (), {"output": "kết quả"})[1].output.folder == "kết quả"
    with pytest.raises(RunError, match="no such run"):
        finished_run("hai", None, (), {})


@pytest.mark.parametrize(
    "item",
    ["data.max_test_rows=9", " eval.decode=generate", "model.device=cpu", "model.cache_dir=x", "seed=3", "output=y"],
)
def test_data_scoring_and_machine_may_be_changed(item: str, run_dir: Path) -> None:
    assert finished_run(None, None, [item], {})[1] == resolve(overrides=[item.strip()])


def test_flags_are_laid_over_the_runs_config(run_dir: Path) -> None:
    assert finished_run(None, None, (), {"data.source": "khác.csv"})[1] == resolve(flags={"data.source": "khác.csv"})


def test_what_the_training_fixed_is_refused_all_at_once(run_dir: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^--set lora.r=2, --set model.name=x: fixed by the run.*leave it out .loraft eval also"
    ):
        finished_run(None, None, ["lora.r=2", "eval.decode=generate", "model.name=x"], {})
    with pytest.raises(ConfigError, match=r"^--model: fixed by the run"):
        refuse_fixed(["--model"])
    refuse_fixed([])


def made(folder: Path, **settings: str) -> Path:
    """The folder of an adapter that no run made; its weights are an empty file."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **settings}), encoding="utf-8")
    (folder / "adapter_model.safetensors").touch()
    return folder


def test_an_adapter_made_elsewhere_brings_its_backbone_unless_a_flag_names_one(here: Path) -> None:
    adapter = made(here / "bộ", base_model_name_or_path="ai/mô-hình: một", revision="v2")
    own = {"model.name": "ai/mô-hình: một", "model.revision": "v2"}
    assert made_elsewhere(adapter, (), {"prompt.task": "topic"}) == resolve(flags={**own, "prompt.task": "topic"})
    assert made_elsewhere(adapter, (), {}, preset="tutorial").model.name == own["model.name"]
    for sets, flags in (((), {"model.name": "khác"}), (("model.name=khác",), {})):
        assert made_elsewhere(adapter, sets, flags) == resolve(flags={"model.name": "khác"})
    of_run = made(here / "của lượt", base_model_name_or_path="ai/mô-hình: một")  # peft leaves the revision out
    (of_run / "loraft.json").write_text(json.dumps({"backbone": {"revision": "v2"}}), encoding="utf-8")
    assert made_elsewhere(of_run, (), {}) == resolve(flags=own)
    nameless = made(here / "không tên")
    assert made_elsewhere(nameless, (), {"model.name": "khác"}).model.name == "khác"
    with pytest.raises(BackboneError, match=r"names no backbone .*use --model"):
        made_elsewhere(nameless, (), {})


def test_both_commands_hand_the_adapter_on(api: Double, here: Path, loraft_says: Says) -> None:
    adapter = made(here / "bộ", base_model_name_or_path="mô-hình")
    for command in (["eval"], ["predict", "câu"]):
        code, _, err = loraft_says(*command, "--adapter", "bộ", "--task", "topic", "--quant", "nf4")
        assert code == 0
        assert err.startswith("backbone mô-hình (nf4), adapter bộ, data ")
        assert (api.given["adapter"], api.given["run"]) == (Path(adapter.name), None)
        assert api.config is not None
        assert (api.config.prompt.task, api.config.model.name) == ("topic", "mô-hình")
    code, _, err = loraft_says("eval", "--adapter", "không có")
    assert (code, err.partition(";")[0]) == (1, "error: không có: no such folder")


def test_without_a_run_the_next_command_is_told(api: Double, here: Path, loraft_says: Says) -> None:
    for command in (["eval"], ["predict", "câu"]):
        code, _, err = loraft_says(*command)
        assert code == 1
        assert "loraft train" in err
