"""Trials are named after validated values, and their configs are those of ordinary runs."""

from pathlib import Path
from typing import Any

import pytest

from loraft.config.resolve import load_config, resolve
from loraft.config.yaml_io import dump_config
from loraft.errors import ConfigError
from loraft.studies.sweep.grid import expand, expand_ranks, parse_grid, sweep_name
from loraft.studies.sweep.trials import Trial


def trials(*grid: str, overrides: tuple[str, ...] = (), **sweep: Any) -> list[Trial]:
    flags = {f"sweep.{key}": value for key, value in sweep.items()}
    flags |= {"sweep.grid": parse_grid(grid)} if grid else {}
    return expand(resolve(overrides=overrides, flags=flags))


def names(found: list[Trial]) -> list[str]:
    return [trial.name for trial in found]


def test_the_ranks_of_the_tutorial_come_from_literal_dots() -> None:
    ranks = expand_ranks("1,2,4,...,128")
    assert ranks == [1, 2, 4, 8, 16, 32, 64, 128]
    found = trials(ranks=ranks)
    assert [trial.config.lora.r for trial in found] == ranks
    assert names(found) == [f"r{r}" for r in ranks]


def test_a_rank_is_at_least_one() -> None:
    with pytest.raises(ConfigError, match=r"at least 1 \(got 0\)"):
        expand_ranks("2,1,0")


def test_a_trial_is_an_ordinary_run_that_does_not_know_of_the_sweep(tmp_path: Path) -> None:
    few, many = trials(ranks=[2, 4]), trials(ranks=[1, 2, 4, 8])
    assert few[0].config == many[1].config
    assert few[0].config.name == "sweep-loraft-vi-tiny-feedback-sentiment-lora/r2"
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(few[0].config), encoding="utf-8")
    assert load_config(path) == few[0].config


def test_a_grid_is_every_combination_of_its_values_with_ranks_and_seeds() -> None:
    found = trials("train.learning_rate=1e-4,5e-4", "quant.method=none,nf4", ranks=[1, 2], seeds=[1, 2, 3])
    assert len(found) == len(set(names(found))) == 2 * 2 * 2 * 3
    assert found[0].name == "r1-learning_rate=0.0001-method=none-s1"
    assert names(trials("train.learning_rate=null,1e-4")) == ["learning_rate=null", "learning_rate=0.0001"]
    assert found[-1].settings == {"lora.r": 2, "train.learning_rate": 5e-4, "quant.method": "nf4", "seed": 3}
    last = found[-1].config
    assert (last.lora.r, last.train.learning_rate, last.quant.method, last.seed) == (2, 5e-4, "nf4", 3)


def test_a_grid_alone_replaces_the_default_ranks() -> None:
    assert names(trials("train.class_weights=none,balanced")) == ["class_weights=none", "class_weights=balanced"]
    assert names(trials("lora.r=1,2,4,...,8")) == ["r1", "r2", "r4", "r8"]
    assert len(trials(seeds=[1, 2])) == 16


@pytest.mark.parametrize(
    ("grid", "overrides", "name"),
    [
        ((), (), "sweep-loraft-vi-tiny-feedback-sentiment-lora"),
        ((), ("quant.method=nf4",), "sweep-loraft-vi-tiny-feedback-sentiment-qlora"),
        ((), ("model.name=/models/Llama-3.2-1B", "prompt.task=topic"), "sweep-Llama-3.2-1B-feedback-topic-lora"),
        (("quant.method=none,nf4",), (), "sweep-loraft-vi-tiny-feedback-sentiment"),
        (("prompt.task=sentiment,topic",), (), "sweep-loraft-vi-tiny-feedback-lora"),
        ((), ("name=của tôi",), "của tôi"),
    ],
)
def test_the_folder_is_named_after_what_is_not_swept(
    grid: tuple[str, ...], overrides: tuple[str, ...], name: str
) -> None:
    config = resolve(overrides=overrides, flags={"sweep.grid": parse_grid(grid)})
    assert sweep_name(config) == name
    assert expand(config)[0].config.name == f"{name}/{expand(config)[0].name}"


def test_names_come_from_validated_values_and_fit_a_folder() -> None:
    assert names(trials("train.learning_rate=1e-4,0.00012345678,5")) == [
        "learning_rate=0.0001", "learning_rate=0.00012345678", "learning_rate=5",
    ]  # fmt: skip
    assert names(trials("lora.target_modules=[q_proj,v_proj],all-linear")) == [
        "target_modules=q_proj+v_proj", "target_modules=all-linear",
    ]  # fmt: skip
    found = trials("prompt.system='Bạn là trợ lý: A/B?','Bạn là trợ lý: A/B!'")
    assert len(set(names(found))) == 2
    assert not any("/" in name or "?" in name or " " in name for name in names(found))
    assert found[0].config.prompt.system == "Bạn là trợ lý: A/B?"


def test_a_list_a_null_and_a_boolean_reach_the_config_as_such() -> None:
    found = trials("lora.target_modules=[q_proj,08]", "train.early_stopping_patience=null,3", "lora.use_dora=yes")
    assert found[0].config.lora.target_modules == ["q_proj", "08"]
    assert [trial.config.train.early_stopping_patience for trial in found] == [None, 3]
    assert found[0].config.lora.use_dora is True
    assert [trial.config.train.shared_prefix for trial in trials("train.shared_prefix=auto,off")] == ["auto", "off"]


def test_another_task_brings_its_own_labels_and_prompt() -> None:
    sentiment, topic = trials("prompt.task=sentiment,topic")
    assert sentiment.config.prompt == resolve().prompt
    assert topic.config.prompt == resolve(flags={"prompt.task": "topic"}).prompt


def test_another_source_forgets_the_revision_of_the_first() -> None:
    overrides = ("data.source=ai/do", "data.revision=v1")
    assert [t.config.data.revision for t in trials("data.source=ai/do,ai/khac", overrides=overrides)] == ["v1", None]


def test_an_odd_rank_with_orthogonal_matrices_is_told_before_anything_is_trained() -> None:
    with pytest.raises(ConfigError, match=r"needs an even rank, and r is 1;"):
        expand(resolve(flags={"sweep.ranks": [2, 1], "lora.init_lora_weights": "orthogonal"}))


def test_all_mistakes_of_a_grid_are_told_together() -> None:
    with pytest.raises(ConfigError) as error:
        trials(
            "train.learning_rat=1", "lora.r=0,8", "output.folder=x", "train.max_grad_norm=true", "train.max_steps=5,5.0"
        )
    lines = str(error.value).splitlines()
    assert len(lines) == 5
    assert "did you mean train.learning_rate?" in lines[0]
    assert lines[1].startswith("lora.r: not allowed (got 0, from --grid lora.r)")
    assert "cannot be swept (got 'output.folder')" in lines[2]
    assert lines[3].startswith("train.max_grad_norm: is a boolean (got True, from --grid train.max_grad_norm); YAML")
    assert lines[4] == "--grid train.max_steps: the same value twice (got 5 and 5.0); give each once"


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ("lora.r", "not of the form key=value,value (got 'lora.r')"),
        ("lora.r=", "not of the form key=value,value"),
        ("prompt.system='a", "not a list of YAML values"),
    ],
)
def test_a_grid_that_cannot_be_read_is_refused(grid: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_grid([grid])
    assert told in str(error.value)


def test_a_key_twice_and_a_key_with_a_flag_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"lora\.r is given twice"):
        parse_grid(["lora.r=1", "lora.r=2"])
    with pytest.raises(ConfigError, match=r"this key has a flag of its own \(got lora\.r\)"):
        trials("lora.r=1", ranks=[2])
    with pytest.raises(ConfigError, match=r"this key has a flag of its own \(got seed\)"):
        trials("seed=1,2")
    with pytest.raises(ConfigError, match="nothing to sweep"):
        trials(ranks=[])
