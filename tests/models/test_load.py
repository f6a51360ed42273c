"""A run's backbone and adapter are loaded together, if they belong together."""

from pathlib import Path

import pytest
import torch
from helpers.tiny import CONFIGS, awaken, prompts, tokenizer
from peft import PeftModel
from transformers import AutoModelForCausalLM

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.engine.scorer import score
from loraft.errors import RunError
from loraft.models import manifest
from loraft.models.adapter import add_adapter
from loraft.models.load import build, build_encoder, load_run
from loraft.runs.records import write_record
from loraft.runs.run import MANIFEST_FILE, Run


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of a tiny backbone in a folder."""
    torch.manual_seed(0)
    folder = tmp_path / "backbone"
    AutoModelForCausalLM.from_config(CONFIGS["llama"]).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return resolve(overrides=[f"model.name={folder}", "lora.r=2", "prompt.max_length=300", "prompt.task=topic"])


@pytest.fixture
def run(config: Config, tmp_path: Path) -> Run:
    """A finished run over it that never trained."""
    made = Run.create(tmp_path, "r2")
    encoder, base = build(config)
    identity = manifest.identify(config, base, made.path)
    model = add_adapter(base, config.lora, seed=1)
    awaken(model)
    model.save_pretrained(str(made.adapter))
    write_record(made.adapter / MANIFEST_FILE, manifest.describe(config, encoder, identity, {}, {}))
    made.finish({})
    return made


def test_the_encoder_is_that_of_the_configs_task(config: Config) -> None:
    encoder = build_encoder(config)
    assert encoder.task.labels == tuple(config.prompt.labels or ())
    assert (encoder.max_length, encoder.date_string) == (300, config.prompt.date_string)


def test_a_run_is_loaded_with_its_adapter_that_can_be_switched_off_or_not(config: Config, run: Run) -> None:
    encoder, switchable = load_run(run, config)
    _, fixed = load_run(run, config, for_good=True)
    assert isinstance(switchable, PeftModel)
    assert not isinstance(fixed, PeftModel)
    ids = prompts(task="topic")
    expected = score(switchable, ids, encoder.completions_K)
    assert (score(fixed, ids, encoder.completions_K) == expected).all()
    with switchable.disable_adapter():
        assert abs(score(switchable, ids, encoder.completions_K) - expected).max() > 1e-3


def test_an_unfinished_run_is_refused_with_the_command_that_finishes_it(config: Config, run: Run) -> None:
    run.results_path.unlink()
    with pytest.raises(RunError, match=r"not finished \(no metrics\.json\); loraft train --resume .* finishes it"):
        load_run(run, config)


def test_a_run_of_another_prompt_is_refused(config: Config, run: Run) -> None:
    prompt = config.prompt.model_copy(update={"date_string": "01 Jan 2030"})
    with pytest.raises(RunError, match="date in the prompt: 26 Jul 2024 then, 01 Jan 2030 now"):
        load_run(run, config.model_copy(update={"prompt": prompt}))
