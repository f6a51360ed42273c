"""What `loraft push` uploads is loaded from the hub and answers as the run; nothing private goes along."""

import json
import shutil
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.bad_input import refusal
from helpers.fake_hub import FakeHub, fake_hub, send
from helpers.pushed import FIRST, change_bundle, code_blocks, finished_run, made_folder
from huggingface_hub import constants

import loraft
from loraft.bundled import bundled_backbones
from loraft.cli.app import main
from loraft.config.resolve import load_config
from loraft.delivery.push import HubError, contents, push
from loraft.errors import Note, RunError
from loraft.runs.bundle import config_of
from loraft.runs.hashes import hashes_of
from loraft.runs.peft_folder import refuse_changed
from loraft.runs.run import Run, find_run

TEXTS = ["thầy giảng bài rất dễ hiểu", "phòng học nóng quá", "bình thường"]
FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors", "loraft.json"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub(monkeypatch, str(tmp_path / "kho")) as made:
        yield made


def test_what_is_pushed_answers_as_the_run_by_the_three_lines_of_its_card(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(tmp_path / "chạy")
    done = push(run, "ai/gop-y", private=True)
    (commit,) = hub.commits["ai/gop-y"]
    assert sorted(commit) == list(done.files) == FILES
    assert (done.revision, hub.private) == (hub.sha("ai/gop-y"), {"ai/gop-y": True})
    assert {name: len(content) for name, content in commit.items()} == done.files
    (use, *_) = code_blocks(commit["README.md"].decode())
    assert use.count("\n") == 4  # import, a blank line, load and predict
    names: dict[str, object] = {}
    with pytest.warns(Note, match=f"hf:ai/gop-y is commit {done.revision} on the hub"):
        exec(use, names)
    assert "  positive  " in capsys.readouterr().out
    found = names["clf"]
    assert isinstance(found, loraft.Classifier)
    assert (found.probabilities(TEXTS) == loraft.load(run.path).probabilities(TEXTS)).all()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    with pytest.warns(Note, match=f"hf:ai/gop-y is commit {done.revision} in the cache"):
        assert find_run("hf:ai/gop-y", tmp_path).read_labels() == found.labels
    assert len(hub.requests) == asked


def test_validation_scores_go_along_with_the_adapter_and_with_merged_weights(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "chạy")
    folder = made_folder(run, tmp_path / "gộp", "merged")
    for place in (run.adapter, folder):
        (place / "validation_scores.json").write_text("{}", encoding="utf-8")
        files = json.loads((place / "loraft.json").read_text(encoding="utf-8"))["files"]
        change_bundle(place, files={**files, **hashes_of(place, ["validation_scores.json"])})
    for place in (None, folder):
        given, _, _ = contents(run, "ai/gop-y", place)
        assert "validation_scores.json" in given
        assert "validation_scores.json" in json.loads(given["loraft.json"])["files"]  # type: ignore[arg-type]


def test_a_dry_run_writes_what_is_sent_and_asks_nobody(hub: FakeHub, tmp_path: Path) -> None:
    run, folder = finished_run(tmp_path / "chạy"), tmp_path / "thử" / "lần 1"
    done = push(run, "ai/gop-y", dry_run=folder)
    assert (hub.requests, done.revision, done.url) == ([], None, str(folder))
    push(run, "ai/gop-y")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == hub.commits["ai/gop-y"][0]
    with pytest.raises(RunError, match="--dry-run: exists already"):
        push(run, "ai/gop-y", dry_run=folder)
    assert [path.name for path in (tmp_path / "thử").iterdir()] == ["lần 1"]


def test_no_path_of_this_machine_and_no_other_file_goes_along(tmp_path: Path) -> None:
    backbone, data = bundled_backbones()["loraft-vi-tiny"], tmp_path / "riêng" / "góp ý"
    task = tmp_path / "riêng" / "việc.yaml"
    task.parent.mkdir()
    task.write_text("labels: [negative, neutral, positive]\nlabel_column: sentiment\n", encoding="utf-8")
    places = [f"data.source={data}", f"data.cache_dir={tmp_path}", f"model.cache_dir={tmp_path}",
              f"output={tmp_path / 'riêng'}", f"data.test_split={data}/test.csv"]  # fmt: skip
    run = finished_run(tmp_path / "riêng" / "chạy", *places, f"model.name={backbone}")
    settings = json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = str(backbone)
    (run.adapter / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    own = json.loads((run.adapter / "loraft.json").read_text(encoding="utf-8"))
    identity = {**own["backbone"], "name": str(backbone), "relative_path": "../../riêng"}
    prompt = {**own["prompt"], "task": str(task), "system": "/no_think"}
    files = {**own["files"], "adapter_config.json": None}
    change_bundle(run.adapter, backbone=identity, prompt=prompt, files=files)
    results = json.loads(run.results_path.read_text(encoding="utf-8"))
    results["warnings"] = [f"rows of {data} repeat; see {run.path}"]
    results["data"]["test"]["source"] = f"{data}/test.csv"
    run.results_path.write_text(json.dumps(results), encoding="utf-8")
    change_bundle(run.adapter, files=hashes_of(run.adapter, own["files"]))
    for name in ("training_args.bin", "optimizer.pt", "predictions.jsonl", "ghi chú.txt"):
        (run.adapter / name).touch()
    (run.adapter / "checkpoint-4").mkdir()
    done = push(run, "ai/gop-y", dry_run=tmp_path / "thử")
    assert set(done.left_out) == {
        "training_args.bin",
        "optimizer.pt",
        "predictions.jsonl",
        "ghi chú.txt",
        "checkpoint-4",
    }
    assert sorted(path.name for path in (tmp_path / "thử").iterdir()) == FILES
    for path in (tmp_path / "thử").iterdir():
        content = path.read_bytes()
        for private in (str(tmp_path), str(backbone.parent), "riêng"):
            assert private.encode() not in content, path
            assert json.dumps(private)[1:-1].encode() not in content, path
    refuse_changed(tmp_path / "thử")
    shared = json.loads((tmp_path / "thử" / "loraft.json").read_text(encoding="utf-8"))
    assert shared["prompt"] == {**prompt, "task": "việc.yaml"}  # a text may begin with a slash
    assert config_of(Run.open(tmp_path / "thử")).model.name == "loraft-vi-tiny"
    assert "rows of góp ý repeat" in (tmp_path / "thử" / "README.md").read_text(encoding="utf-8")


def test_an_adapter_over_a_folder_of_this_machine_is_refused_with_the_way(tmp_path: Path) -> None:
    shutil.copytree(bundled_backbones()["loraft-vi-tiny"], tmp_path / "mô hình")
    run = finished_run(tmp_path / "chạy", f"model.name={tmp_path / 'mô hình'}")
    said = r"its backbone is a folder or file of this machine, .*mô hình\); merge it: loraft merge .*--folder"
    with pytest.raises(RunError, match=said):
        push(run, "ai/gop-y", dry_run=tmp_path / "thử")
    assert not (tmp_path / "thử").exists()


def test_a_changed_adapter_and_a_bundle_are_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "chạy")
    with pytest.raises(RunError, match=r"holds no results for the model card \(got a bundle\); name the run"):
        push(Run.open(run.adapter), "ai/gop-y", dry_run=tmp_path / "thử")
    (run.adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match=r"is not the adapter that its loraft.json names"):
        push(run, "ai/gop-y", dry_run=tmp_path / "thử")


@pytest.mark.filterwarnings("ignore::loraft.errors.Note")
def test_a_run_of_an_earlier_version_gets_the_config_and_the_hashes_that_it_lacks(tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(FIRST, tmp_path / "chạy")))
    assert not {"config", "files"} & json.loads((run.adapter / "loraft.json").read_text(encoding="utf-8")).keys()
    push(run, "ai/gop-y", dry_run=tmp_path / "thử")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refuse_changed(tmp_path / "thử")
    assert config_of(Run.open(tmp_path / "thử")).lora == load_config(run.config_path).lora


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "chạy")
    settings = run.adapter / "adapter_config.json"
    settings.rename(tmp_path / "khác.json")
    settings.symlink_to(tmp_path / "khác.json")
    with pytest.raises(RunError, match=r"adapter_config.json: is no plain file; put a copy of the file in its place"):
        contents(run, "ai/gop-y")


@pytest.mark.parametrize(
    "change",
    [
        {"versions": [1]}, {"data": [1]}, {"data": {"source": "x", "fingerprints": None}}, {"labels": None},
        {"data": {"source": "x", "fingerprints": {}, "train_labels": [1]}}, {"backbone": None}, {"config": "/etc"},
        {"merged": "x"},
    ],
)  # fmt: skip
def test_a_damaged_bundle_is_one_message(tmp_path: Path, change: dict[str, object]) -> None:
    run = finished_run(tmp_path / "chạy")
    change_bundle(run.adapter, **change)
    (key,) = change
    with pytest.raises(
        RunError, match=rf"loraft\.json: the value of '{key}[^']*' is damaged .*; train again with --force"
    ):
        contents(run, "ai/gop-y")


# --- what the hub refuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refused", "status", "said"),
    [
        ("/api/repos/create", 401, r"the hub refuses the token \(HTTP 401\); log in again with `hf auth login`"),
        ("/api/repos/create", 403, r"may not write there \(HTTP 403\); name a repository of your own"),
        ("/api/repos/create", 404, r"no such repository or owner.*\(HTTP 404\); check the name"),
        ("/api/models/ai/gop-y/commit", 403, r"may not write there \(HTTP 403\)"),
        ("/api/repos/create", 503, r"does not take it \(HTTP 503\); try again later"),
    ],
)
def test_each_refusal_is_one_message_without_the_token(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, status: int, said: str
) -> None:
    finished_run(tmp_path / "runs" / "chạy")
    monkeypatch.chdir(tmp_path)
    hub.refuse = {refused: (status, ""), "/api/models/ai/gop-y?": (status, "")}
    if refused == "/api/repos/create":
        hub.refuse["/api/models/ai/gop-y"] = (status, "")
    told = refusal(["push", "chạy", "--to", "ai/gop-y"], rf"^error: ai/gop-y: .*{said}")
    assert hub.requests
    assert all(token.startswith("Bearer ") for _, _, token in hub.requests)
    assert not any(token.removeprefix("Bearer ") in told for _, _, token in hub.requests)


def test_what_can_be_told_before_anything_is_sent_is(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(tmp_path / "runs" / "chạy")
    monkeypatch.chdir(tmp_path)
    for name in ("gop-y", "ai/góp ý", "ai/a/b", "-/x", "ai/\x1b[31m"):
        refusal(["push", "--to", name], r"^error: --to: is no name of a repository \(got .*; allowed: owner/name")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    refusal(["push", "--to", "ai/gop-y"], r"push: there is no token for the hub; log in with `hf auth login`")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refusal(["push", "--to", "ai/gop-y"], r"push: HF_HUB_OFFLINE is set; unset it, or .* --dry-run FOLDER")
    run.results_path.unlink()
    refusal(["push", "chạy", "--to", "ai/gop-y"], "the run is not finished")
    assert hub.requests == []


def test_without_a_network_it_says_so(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(HubError, match=r"ai/gop-y: the hub cannot be reached \(http://127.*\); check the network"):
        push(finished_run(tmp_path / "chạy"), "ai/gop-y")


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b"[]"])
def test_a_place_that_is_no_hub_is_told(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(hub, "answer", lambda request, body: send(request, 200, answer))
    told = rf"ai/gop-y: {hub.place} answers otherwise than a hub does \(.*\); check HF_ENDPOINT"
    with pytest.raises(HubError, match=told):
        push(finished_run(tmp_path / "chạy"), "ai/gop-y")


def test_private_is_never_public(hub: FakeHub, tmp_path: Path) -> None:
    hub.commits["ai/gop-y"], hub.private["ai/gop-y"] = [], False
    with pytest.raises(HubError, match=r"is there already and public \(got --private\)"):
        push(finished_run(tmp_path / "chạy"), "ai/gop-y", private=True)
    assert hub.commits["ai/gop-y"] == []


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_the_commits_address_and_what_follows(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run(tmp_path / "runs" / "chạy")
    monkeypatch.chdir(tmp_path)
    hub.lfs = {"adapter_model.safetensors"}
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with pytest.raises(SystemExit) as stop:
        main(["push", "--to", "ai/gop-y", "--revision", "thử-2", "--json"])
    out, err = capsys.readouterr()
    assert stop.value.code == 0, err
    found = json.loads(out)
    assert (found["repository"], found["revision"]) == ("ai/gop-y", hub.sha("ai/gop-y"))
    assert found["url"].endswith(found["revision"])
    assert list(hub.large.values()) == [hub.commits["ai/gop-y"][0]["adapter_model.safetensors"]]
    assert "thử-2" in hub.branches
    assert ["commit", "thử-2"] in [path.split("/")[-2:] for _, path, _ in hub.requests]
    assert "next: loraft predict --run hf:ai/gop-y@thử-2" in err.replace("'", "")
    monkeypatch.setattr("loraft.delivery.push.refuse_changed", lambda folder: None)
    folders = {"merged": 1, "onnx": 0}  # loraft.load takes no ONNX file
    for kind, expected in folders.items():
        folder = made_folder(Run(tmp_path / "runs" / "chạy"), tmp_path / kind, kind)
        with pytest.raises(SystemExit):
            main(["push", "--to", "ai/gop-y", "--folder", str(folder)])
        assert capsys.readouterr().err.count("next: loraft predict --run hf:ai/gop-y") == expected
