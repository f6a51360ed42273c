"""A prompt is no longer than the backbone has positions for, whatever `prompt.max_length` says."""

import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.tiny import tokenizer
from transformers import AutoConfig, GPT2Config, GPT2LMHeadModel, MambaConfig, OPTConfig, PreTrainedConfig

from loraft.config.resolve import resolve
from loraft.engine.scorer import score
from loraft.errors import BackboneError, ConfigError, Note
from loraft.models import backbone
from loraft.models.load import build, build_encoder
from loraft.models.positions import NO_LIMIT, longest_prompt, positions

GPT2 = GPT2Config(vocab_size=8192, n_embd=32, n_layer=1, n_head=2, n_positions=128)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [(GPT2, 128), (OPTConfig(max_position_embeddings=96), 96), (MambaConfig(), NO_LIMIT)],
)
def test_positions_are_those_of_the_config(architecture: PreTrainedConfig, expected: int, tmp_path: Path) -> None:
    architecture.save_pretrained(tmp_path)
    assert positions(resolve(overrides=[f"model.name={tmp_path}"]).model) == expected


def test_they_are_read_of_the_revision_and_from_the_cache_that_the_config_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    own = AutoConfig.from_pretrained
    keep = SimpleNamespace(from_pretrained=lambda name, **given: asked.append(given) or own(name))
    monkeypatch.setattr(backbone, "AutoConfig", keep)
    positions(resolve().model)
    positions(resolve(overrides=["model.revision=main", f"model.cache_dir={tmp_path}"]).model)
    own_code = {"trust_remote_code": False}
    assert asked == [own_code, {"revision": "main", "cache_dir": str(tmp_path), **own_code}]


def test_sentences_are_shortened_to_the_positions_and_scored(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    config = resolve(overrides=[f"model.name={tmp_path}"])
    with pytest.warns(Note, match=r"may take 128 tokens, .*\(got 1,024\).*--set prompt.max_length=128"):
        encoder, model = build(config)
    prompts = encoder.encode(["thầy dạy rất nhiệt tình , dễ hiểu . " * 20])
    assert prompts[0].cut
    assert len(prompts[0].ids) + max(map(len, encoder.completions_K)) == 128
    assert score(model, [prompts[0].ids], encoder.completions_K).shape == (1, 3)
    assert build_encoder(config, whole=True).encode(["thầy dạy hay . " * 400])[0].cut == 0


def test_the_config_counts_where_it_is_lower_and_generated_answers_need_room(tmp_path: Path) -> None:
    GPT2.save_pretrained(tmp_path)
    name = f"model.name={tmp_path}"
    assert longest_prompt(resolve(overrides=[name, "prompt.max_length=128"]), 6) == 128
    generating = [name, "eval.decode=generate", "eval.max_new_tokens=20"]
    # Of 128 positions, an answer takes the last 20, whether it is generated or one of 6 tokens: 128 - (20 - 6).
    assert longest_prompt(resolve(overrides=[*generating, "prompt.max_length=114"]), 6) == 114
    with pytest.warns(Note, match=r"may take 114 tokens, this .* less the 14 by which eval\.max_new_tokens is longer"):
        assert longest_prompt(resolve(overrides=[*generating, "prompt.max_length=115"]), 6) == 114
    with pytest.warns(Note, match=r"may take 128 tokens, this backbone's positions \(got 256\)"):
        assert longest_prompt(resolve(overrides=[*generating, "prompt.max_length=256"]), 30) == 128


@pytest.mark.parametrize(("task", "shots"), [("sentiment", False), ("topic", True)])
def test_answers_that_leave_no_room_for_the_prompt_are_refused_with_a_number_that_works(
    task: str, shots: bool, tmp_path: Path
) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=8192, n_embd=32, n_layer=1, n_head=2, n_positions=256)).save_pretrained(
        tmp_path
    )
    tokenizer().save_pretrained(tmp_path)
    given = [f"model.name={tmp_path}", f"prompt.task={task}", "eval.decode=generate"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no note with a length below 0
        with pytest.raises(ConfigError, match=r"^eval\.max_new_tokens: .*256 positions .*got 300") as caught:
            build_encoder(resolve(overrides=[*given, "eval.max_new_tokens=300"]), whole=shots)
    works = int(re.search(r"--set eval\.max_new_tokens=(\d+)", str(caught.value))[1])  # type: ignore[index]
    with pytest.warns(Note, match="positions less"):
        encoder = build_encoder(resolve(overrides=[*given, f"eval.max_new_tokens={works}"]))
    assert len(encoder.encode([""])[0].ids) + works == 256
    with pytest.raises(ConfigError, match=rf"eval\.max_new_tokens: .*got {works + 1}"):
        build_encoder(resolve(overrides=[*given, f"eval.max_new_tokens={works + 1}"]))


@pytest.mark.parametrize("decode", ["score", "generate"])
def test_a_prompt_that_needs_more_positions_than_there_are_needs_another_backbone(decode: str, tmp_path: Path) -> None:
    GPT2Config(vocab_size=8192, n_positions=32).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"^model\.name: has 32 positions, .* tokens .*choose another --model"):
        build_encoder(resolve(overrides=[f"model.name={tmp_path}", f"eval.decode={decode}"]))


def test_a_backbone_without_a_readable_config_is_one_error() -> None:
    config = resolve(overrides=["model.name=ai/khong-co"])
    with pytest.raises(BackboneError, match="cannot load"):
        build_encoder(config)
