"""What `loraft push --folder` sends of a merge or an export, and what becomes of the files of an earlier push."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.fake_hub import FakeHub, fake_hub
from helpers.pushed import ADAPTER, change_bundle, code_blocks, finished_run, made_folder

import loraft
from loraft.delivery.export import Target, export
from loraft.delivery.merge import merge
from loraft.delivery.push import contents, push
from loraft.errors import RunError

TEXTS = ["thầy giảng bài rất dễ hiểu", "phòng học nóng quá", "bình thường"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub(monkeypatch, str(tmp_path / "kho")) as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "library", "what", "use"),
    [
        ("merged", "transformers", "Weights with a LoRA adapter merged into them", 'loraft.load("hf:ai/gop-y")'),
        ("classifier", "transformers", "A sequence classifier", 'pipeline("text-classification", "ai/gop-y")'),
        ("onnx", "onnx", "An ONNX file", "Its tokenizer writes the prompt around the text; the labels are in"),
        ("gguf", "gguf", "A GGUF file", 'loraft.load("hf:ai/gop-y")'),
    ],
)
def test_a_folder_made_of_the_run_is_pushed_with_a_card_that_says_what_it_is(
    tmp_path: Path, kind: str, library: str, what: str, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loraft.delivery.push.refuse_changed", lambda folder: None)
    run = finished_run(tmp_path / "chạy")
    folder = made_folder(run, tmp_path / "gộp", kind)
    (folder / "tokenizer_của_tôi.json").write_text("{}", encoding="utf-8")  # which its loraft.json does not name
    (folder / "tokenizer_extra.json").symlink_to(tmp_path)
    files, left_out, found = contents(run, "ai/gop-y", folder)
    assert (found, left_out) == (kind, ("pytorch_model.bin", "tokenizer_của_tôi.json", "tokenizer_extra.json"))
    assert {
        "config.json",
        "model-00001-of-00002.safetensors",
        "spiece.model",
        "model.gguf",
        "model.onnx",
    } < files.keys()
    told = {name: one.decode() for name, one in files.items() if isinstance(one, bytes)}
    task = "text-classification" if kind in ("classifier", "onnx") else "text-generation"
    same = "These are the scores of the run's adapter; this model gives the same label for 99.00% of 317 rows."
    for expected in (f"library_name: {library}\n", f"pipeline_tag: {task}\n", f"\n\n{what}", "| rows | 317 |", use,
                     "| split | val.csv |", same):  # fmt: skip
        assert expected in told["README.md"]
    assert "PeftModel" not in told["README.md"]
    assert not any("/khác/" in one for one in told.values())
    bundle = json.loads(told["loraft.json"])
    assert bundle["files"].keys() == files.keys() - {"README.md", "loraft.json"}
    assert bundle["files"]["config.json"] == hashlib.sha256(told["config.json"].encode()).hexdigest()


def test_a_folder_of_another_run_or_of_none_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "chạy")
    with pytest.raises(RunError, match=r"--folder: is of no merge or export .*; without it, the run's adapter"):
        contents(run, "ai/gop-y", run.adapter)
    folder = made_folder(run, tmp_path / "gộp", "merged")
    change_bundle(folder, labels=["a", "b"])
    with pytest.raises(RunError, match=r"--folder: was not made of .*chạy .*with other labels"):
        contents(run, "ai/gop-y", folder)
    shutil.copy(run.adapter / "loraft.json", folder)
    change_bundle(folder, merged={"adapter_sha256": "0" * 64})
    with pytest.raises(RunError, match=r"--folder: was not made of .*with other weights of the adapter"):
        contents(run, "ai/gop-y", folder)
    (folder / "loraft.json").unlink()
    with pytest.raises(RunError, match=r"--folder: has no loraft.json .*; loraft merge and loraft export write it"):
        contents(run, "ai/gop-y", folder)


def test_what_an_earlier_push_left_is_deleted_and_what_others_put_there_stays(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loraft.delivery.push.refuse_changed", lambda folder: None)
    run = finished_run(tmp_path / "chạy")
    hub.commits["ai/gop-y"], hub.private["ai/gop-y"] = [dict.fromkeys(["LICENSE", "sub/model.gguf"], b"x")], False
    push(run, "ai/gop-y")
    folder = made_folder(run, tmp_path / "gộp", "merged")
    done = push(run, "ai/gop-y", folder=folder)
    assert done.deleted == ("adapter_config.json", "adapter_model.safetensors")
    assert hub.commits["ai/gop-y"][-1].keys() == {*done.files, "LICENSE", "sub/model.gguf"}
    assert push(run, "ai/gop-y").deleted == tuple(sorted(done.files.keys() - {*ADAPTER, "README.md", "loraft.json"}))


def test_weights_over_the_original_backbone_have_no_scores_in_the_model_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loraft.delivery.push.refuse_changed", lambda folder: None)
    run = finished_run(tmp_path / "chạy")
    folder = made_folder(run, tmp_path / "gộp", "merged")
    merged = json.loads((folder / "loraft.json").read_text(encoding="utf-8"))["merged"]
    for base, expected in (("dequantised", True), ("original", False)):
        change_bundle(folder, merged={**merged, "base": base})
        card = contents(run, "ai/gop-y", folder)[0]["README.md"]
        assert isinstance(card, bytes)
        assert (b"model-index:" in card) == expected


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["merged", "classifier", "gguf"])
def test_what_is_made_of_a_run_is_used_from_the_hub_as_its_card_says(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    run, folder = finished_run(tmp_path / "chạy", "data.max_eval_rows=16"), tmp_path / "ra"
    if kind == "merged":
        merge(run.path, folder)
    else:
        export(run.path, folder, Target(kind))
    done = push(run, "ai/gop-y", folder=folder)
    assert done.left_out == ()
    card = hub.commits["ai/gop-y"][0]["README.md"].decode()
    names: dict[str, object] = {}
    exec(code_blocks(card)[0], names)
    out = capsys.readouterr().out
    assert ("  positive  " if kind != "classifier" else "'label': 'positive'") in out
    if kind in ("merged", "gguf"):
        found = names["clf"]
        assert isinstance(found, loraft.Classifier)
        assert found.probabilities(TEXTS) == pytest.approx(loraft.load(run.path).probabilities(TEXTS), abs=1e-4)
