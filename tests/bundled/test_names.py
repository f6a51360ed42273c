"""What ships: hashes, sizes, shares, no leak between splits, nothing of UIT-VSFC; the tokenizer and the adapter."""

import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from helpers.tiny import encoder, tokenizer
from hypothesis import given
from hypothesis import strategies as st

import loraft
from loraft.bundled import bundled_adapters, bundled_backbones, bundled_data
from loraft.data.near_duplicates import near_duplicates
from loraft.errors import RunError
from loraft.models import manifest
from loraft.runs.hashes import hashes_of
from loraft.runs.run import Bundle, Run, find_run, newest_finished

BACKBONE = bundled_backbones()["loraft-vi-tiny"]
DEMO = bundled_adapters()["demo"]
FEEDBACK = bundled_data()["feedback"]
HASHES = json.loads(Path(__file__).with_name("bundled_hashes.json").read_text(encoding="utf-8"))


def rows(folder: Path, split: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def texts(folder: Path, *splits: str) -> list[str]:
    return [str(row["sentence"]) for split in splits for row in rows(folder, split)]


@pytest.mark.parametrize("name", sorted(HASHES))
def test_files_are_the_ones_that_the_figures_were_measured_on(name: str) -> None:
    path = BACKBONE.parent / name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == HASHES[name]


@pytest.mark.parametrize("name", bundled_backbones())
def test_a_backbone_and_its_tokenizer_stay_within_16_mb_and_its_weights_have_a_hash(name: str) -> None:
    assert sum(path.stat().st_size for path in bundled_backbones()[name].iterdir()) <= 16_000_000
    assert f"{name}/model.safetensors" in HASHES


@pytest.mark.parametrize(("split", "least"), [("train", 2400), ("validation", 300), ("test", 600)])
def test_splits_are_large_enough_nfc_and_shaped_like_the_real_corpus(split: str, least: int) -> None:
    found = rows(FEEDBACK, split)
    assert len(found) >= least
    assert all(set(row) == {"sentence", "sentiment", "topic"} for row in found)
    assert all(unicodedata.is_normalized("NFC", str(row["sentence"])) for row in found)
    sentiment = Counter(row["sentiment"] for row in found)
    topic = Counter(row["topic"] for row in found)
    for label, share in {2: 0.50, 0: 0.43, 1: 0.07}.items():
        assert sentiment[label] / len(found) == pytest.approx(share, abs=0.03)
    assert topic.most_common()[0][0] == 0
    assert topic[2] / len(found) == pytest.approx(0.05, abs=0.02)


def test_no_sentence_stands_nearly_alike_in_two_splits_or_twice_in_one() -> None:
    train, validation, test = (texts(FEEDBACK, split) for split in ("train", "validation", "test"))
    for left, right in ((train, validation), (train, test), (validation, test)):
        assert near_duplicates(left, right, threshold=0.8) == []
    for split in (train, validation, test):
        assert [pair for pair in near_duplicates(split, split, threshold=0.8) if pair.left < pair.right] == []


def test_no_sentence_is_of_uit_vsfc() -> None:
    folder = os.environ.get("LORAFT_VSFC")
    if not folder:
        pytest.skip("LORAFT_VSFC is not set to the folder of UIT-VSFC's jsonl files")
    real = texts(Path(folder), "train", "validation", "test")
    assert len(real) == 16_175
    assert near_duplicates(texts(FEEDBACK, "train", "validation", "test"), real, threshold=0.8) == []


@given(st.text(max_size=40))
def test_every_text_survives_the_tokenizer_in_nfc(text: str) -> None:
    ids = tokenizer()(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer().decode(ids) == unicodedata.normalize("NFC", text)
    assert None not in ids


def test_label_words_are_one_token_and_the_prompt_is_cheap() -> None:
    for word in (" positive", " negative", " neutral", " lecturer", " facility", " others"):
        assert len(tokenizer()(word, add_special_tokens=False)["input_ids"]) == 1
    assert len(encoder().encode([""])[0].ids) < 110


def test_the_chat_template_writes_several_turns_and_the_asked_date() -> None:
    chat = [
        {"role": "user", "content": " câu hỏi một "},
        {"role": "assistant", "content": "trả lời"},
        {"role": "user", "content": "câu hỏi hai"},
    ]
    text = tokenizer().apply_chat_template(chat, tokenize=False, add_generation_prompt=True, date_string="01 Jan 2030")
    assert text == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 01 Jan 2030\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\ncâu hỏi một<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\ntrả lời<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\ncâu hỏi hai<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_the_adapters_files_have_the_hashes_that_its_manifest_names() -> None:
    files = manifest.read(DEMO).files
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors", "validation_scores.json"}
    assert hashes_of(DEMO, files) == files


def test_the_adapters_files_name_no_folder_of_a_machine_and_no_user() -> None:
    texts = [path.read_text(encoding="utf-8") for path in DEMO.iterdir() if path.suffix in (".json", ".md")]
    assert len(texts) == 4
    assert [found for text in texts for found in re.findall(r"""["'\s](/[\w.]+/\S*|~/\S*|[A-Z]:\\\S*)""", text)] == []


def test_the_adapters_card_has_the_command_that_made_it_and_the_licences() -> None:
    card = (DEMO / "README.md").read_text(encoding="utf-8")
    assert "loraft train --quant nf4 --rank 16 --set name=demo\n" in card
    assert "| backbone | loraft-vi-tiny | cc-by-sa-4.0 |\n| data | feedback | cc-by-4.0 |" in card


def test_the_adapters_name_means_it_unless_a_run_has_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_run("demo", tmp_path)
    assert (type(found), found.path) == (Bundle, DEMO)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # no run
    assert Run.open("demo").path == DEMO
    assert find_run("demo", tmp_path).path == find_run("demo", tmp_path / "runs").path == DEMO
    (tmp_path / "demo").rmdir()
    shutil.copytree(DEMO, tmp_path / "demo")
    assert find_run("demo", tmp_path).path == tmp_path / "demo"


def test_without_a_run_the_message_names_the_adapter(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--run demo is one that is bundled"):
        newest_finished(tmp_path)
    with pytest.raises(RunError, match=r"no such run \(got 'Demo'\); did you mean demo\?"):
        find_run("Demo", tmp_path)


def test_python_loads_the_adapter_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert loraft.load("demo").predict("cô nhiệt tình")[0].label == "positive"
