"""Backbones whose weights are missing, damaged or another model's; names that are no backbone; GGUF files."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.bad_input import refusal
from helpers.bad_models import evaluated, tiny_model
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"
NAMES = {
    "an empty folder": ("./trống", r"model\.name: /.*/trống has no config\.json and no GGUF file; name a folder saved"),
    "a file": ("./a.csv", r"model\.name: /.*/a\.csv is a file, but no GGUF file; name its folder"),
    "a file of weights": ("./mô hình/model.safetensors", r"is a file, but no GGUF file; name its folder"),
    "a path that is not there": ("./không có", r"no such backbone \(got '\./không có'\); bundled: loraft-vi-tiny"),
    "an absolute path": ("/không/có", r"no such backbone \(got '/không/có'\)"),
    "a home": ("~/không có", r"no such backbone \(got '~/không có'\)"),
    "a plain word": ("llama", r"no such backbone \(got 'llama'\)"),
    "three parts": ("a/b/c", r"no such backbone \(got 'a/b/c'\)"),
    "a GGUF file that is not there": ("a/b.gguf", r"no such backbone \(got 'a/b\.gguf'\)"),
    "a hub name": ("unsloth/Llama-3.2-1B", r"not in the cache, and HF_HUB_OFFLINE is set; unset it"),
    "a hub name with a blank": ("a b/c", r"^error: model\.name: .*it is no hub id either"),
    "a hub name with letters of Vietnam": ("việt/nam", r"^error: model\.name: "),
    "an empty part": ("a/", r"^error: model\.name: "),
    "a slash": ("/", r"model\.name: / has no config\.json"),
    "a dot": (".", r"model\.name: /.* has no config\.json"),
    "a blank": (" ", r"^error: model\.name: "),
    "an address": ("https://huggingface.co/a", r"no such backbone"),
    "a pipe": ("./ống", r"no such backbone|is no"),
    "a symlink to itself": ("./vòng", r"no such backbone"),
}


@pytest.mark.parametrize(("name", "says"), NAMES.values(), ids=NAMES)
def test_a_name_that_is_no_backbone_is_refused(name: str, says: str) -> None:
    tiny_model()
    Path("trống").mkdir()
    os.mkfifo("ống")
    Path("vòng").symlink_to("vòng")
    refusal(["eval", "--zero-shot", "--split", "a.csv", "--model", name], says)


def cut(share: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    return lambda path: save_file(change(load_file(path)), path, {"format": "pt"})


def header(change: Callable[[dict[str, dict[str, object]]], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        found = json.loads(content[8 : 8 + length])
        change(found)
        text = json.dumps(found).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])

    return damage


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pickled(path: Path) -> None:
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()
    content = bytearray(path.with_name("pytorch_model.bin").read_bytes())
    path.with_name("pytorch_model.bin").write_bytes(content[: len(content) // 2])


class Anything:
    """What a pickle may hold beside weights."""


def pickled_with_more(path: Path) -> None:
    torch.save({**load_file(path), "thêm": Anything()}, path.with_name("pytorch_model.bin"))
    path.unlink()


FIRST = "model.embed_tokens.weight"
CANNOT = r"^error: model\.name: cannot load /.*/mô hình: "
FIT = r"^error: model\.name: the weights of /.*/mô hình do not fit its architecture: "
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (Path.unlink, CANNOT),
    "empty": (lambda path: path.write_bytes(b""), CANNOT),
    "four bytes": (cut(0.000002), CANNOT),
    "half": (cut(0.5), CANNOT),
    "all but the end": (cut(0.999), CANNOT),
    "text": (lambda path: path.write_text("hay"), CANNOT),
    "zeros": (lambda path: path.write_bytes(bytes(1000)), CANNOT),
    "a pointer of Git LFS": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), CANNOT),
    "a head without end": (lambda path: path.write_bytes(b"\xff" * 8 + b"{}"), CANNOT),
    "a head that is no JSON": (lambda path: path.write_bytes((3).to_bytes(8, "little") + b"{x}"), CANNOT),
    "a folder": (folder, CANNOT),
    "half a pickle": (pickled, CANNOT),
    "a pickle with more than weights": (
        pickled_with_more,
        CANNOT + r"a file of its weights is a pickle that holds more than weights, and is not read; get the backbone's",
    ),
    "offsets outside": (header(lambda found: found[FIRST].update(data_offsets=[0, 10**12])), CANNOT),
    "a shape of another size": (header(lambda found: found[FIRST].update(shape=[1, 1])), CANNOT),
    "no tensors": (tensors(lambda found: {}), FIT + r"\d+ missing"),
    "a tensor missing": (tensors(lambda found: {k: v for k, v in found.items() if k != FIRST}), FIT + r"\d+ missing"),
    "a tensor more": (tensors(lambda found: {**found, "thừa": torch.zeros(2)}), FIT + r"1 unexpected \(thừa\)"),
    "another shape": (
        tensors(lambda found: {**found, FIRST: torch.zeros(5, 32)}), FIT + r"1 of another shape \(model\.embed"
    ),
    "other names": (tensors(lambda found: {f"x.{k}": v for k, v in found.items()}), FIT + r"\d+ missing .*unexpected"),
    "a quarter of the names": (
        tensors(lambda found: {k: v for k, v in found.items() if "layers.0" in k}), FIT + r"\d+ missing \(.*\.\.\.\)"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_weights_are_refused(damage: Callable[[Path], None], says: str) -> None:
    damage(tiny_model() / WEIGHTS)
    refusal(evaluated(), says)


INDEXES = {
    "empty": "",
    "a list": "[]",
    "no map": "{}",
    "a file that is missing": json.dumps({"metadata": {}, "weight_map": {FIRST: "model-00001-of-00002.safetensors"}}),
    "a file outside": json.dumps({"metadata": {}, "weight_map": {FIRST: "../a.csv"}}),
    "a number": json.dumps({"metadata": {}, "weight_map": {FIRST: 5}}),
}


@pytest.mark.parametrize("text", INDEXES.values(), ids=INDEXES)
def test_a_damaged_index_of_weights_is_refused(text: str) -> None:
    (tiny_model() / WEIGHTS).unlink()
    Path("mô hình", WEIGHTS + ".index.json").write_text(text, encoding="utf-8")
    refusal(evaluated(), CANNOT)


def test_an_adapter_in_the_place_of_a_backbone_is_refused() -> None:
    (tiny_model() / "adapter_config.json").write_text("{}", encoding="utf-8")
    refusal(
        evaluated(), r"model\.name: /.*/mô hình is an adapter, not a backbone; name the backbone it was trained with"
    )


@pytest.mark.parametrize("name", ["a.safetensors", "tokenizer.json", "log.txt"])
def test_a_folder_without_a_config_is_refused(name: str) -> None:
    folder = tiny_model()
    shutil.move(folder / "tokenizer.json", "tokenizer.json")
    for path in folder.iterdir():
        path.unlink()
    (folder / name).touch()
    refusal(evaluated(), r"model\.name: /.*/mô hình has no config\.json and no GGUF file")
