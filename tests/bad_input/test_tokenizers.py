"""Backbones whose tokenizer is missing, damaged, of another model, or without the tokens that a chat needs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.bad_input import refusal
from helpers.bad_models import edited, evaluated, tiny_model

CANNOT = r"^error: model\.name: cannot load /.*/mô hình: "


def text(content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "tokenizer.json").write_text(content, encoding="utf-8") and None


def content(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda folder: edited(folder / "tokenizer.json", change)


def settings(**change: Any) -> Callable[[Path], None]:
    return lambda folder: edited(folder / "tokenizer_config.json", change)


def missing(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def cut(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:5000])


def directory(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()


def fewer(found: Any) -> Any:
    model = found["model"]
    return {**found, "model": {**model, "vocab": {}, "merges": []}}


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (missing, CANNOT),
    "empty": (text(""), CANNOT),
    "half an object": (text('{"version": "1.0"'), CANNOT),
    "a list": (text("[]"), CANNOT),
    "null": (text("null"), CANNOT),
    "an empty object": (text("{}"), CANNOT),
    "a word": (text("hay"), CANNOT),
    "binary": (text("\x00\x01"), CANNOT),
    "deep": (text("[" * 100_000), CANNOT),
    "a number of 5,000 digits": (text('{"version": ' + "9" * 5000 + "}"), CANNOT),
    "a pointer of Git LFS": (text("version https://git-lfs.github.com/spec/v1\n"), CANNOT),
    "cut off": (cut, CANNOT),
    "a folder": (directory, CANNOT),
    "no model": (content(lambda found: {k: v for k, v in found.items() if k != "model"}), CANNOT),
    "a model that is null": (content(lambda found: {**found, "model": None}), CANNOT),
    "an unknown model": (content(lambda found: {**found, "model": {**found["model"], "type": "Lạ"}}), CANNOT),
    "no vocabulary": (content(fewer), r"^error: "),
    "ids that are text": (content(lambda found: {**found, "model": {**found["model"], "vocab": {"a": "b"}}}), CANNOT),
    "negative ids": (content(lambda found: {**found, "model": {**found["model"], "vocab": {"a": -1}}}), CANNOT),
    "merges of nothing": (
        content(lambda found: {**found, "model": {**found["model"], "merges": [["ạ1", "ạ2"]]}}),
        CANNOT,
    ),
    "an unknown pre-tokenizer": (content(lambda found: {**found, "pre_tokenizer": {"type": "Lạ"}}), CANNOT),
    "an unknown normaliser": (content(lambda found: {**found, "normalizer": {"type": "Lạ"}}), CANNOT),
    "a regular expression that is none": (
        content(
            lambda found: {
                **found,
                "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Removed", "invert": False},
            }
        ),
        CANNOT,
    ),
    "settings that are a list": (lambda folder: edited(folder / "tokenizer_config.json", lambda _: []), CANNOT),
    "settings that are null": (lambda folder: edited(folder / "tokenizer_config.json", lambda _: None), CANNOT),
    "an end of sequence that is a list": (settings(eos_token=["a"]), CANNOT),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_tokenizer_is_refused(damage: Callable[[Path], None], says: str) -> None:
    damage(tiny_model())
    refusal(evaluated(), says)


def test_a_tokenizer_without_an_end_of_turn_is_refused() -> None:
    folder = tiny_model()
    (folder / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}", encoding="utf-8")
    edited(
        folder / "tokenizer_config.json",
        lambda found: {k: v for k, v in found.items() if k not in ("eos_token", "pad_token")},
    )
    refusal(evaluated(), r"mô hình: has no end-of-turn or end-of-sequence token; choose another backbone")


def test_a_damaged_map_of_special_tokens_is_refused() -> None:
    (tiny_model() / "special_tokens_map.json").write_text(json.dumps({"eos_token": 5}), encoding="utf-8")
    (Path("mô hình") / "tokenizer_config.json").write_text("{", encoding="utf-8")
    refusal(evaluated(), CANNOT)
