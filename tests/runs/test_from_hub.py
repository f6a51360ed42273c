"""A run on the hub: what is downloaded, what is checked, and what a reference may be."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from helpers.fake_hub import FakeHub, fake_hub, send
from helpers.pushed import change_bundle, finished_run
from huggingface_hub import constants
from huggingface_hub.utils import enable_progress_bars

from loraft.cli.finished_run import config_to_go_on, run_or_adapter
from loraft.cli.options import ConfigFlags
from loraft.errors import RunError
from loraft.models.load import load_run
from loraft.runs.bundle import config_of
from loraft.runs.from_hub import short_name
from loraft.runs.peft_folder import refuse_changed
from loraft.runs.run import Bundle, Run, find_run
from loraft.training.starting_point import starting_point


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub(monkeypatch, str(tmp_path / "kho")) as made:
        yield made


def on_hub(hub: FakeHub, folder: Path, **more: bytes) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.commits["ai/gop-y"], hub.private["ai/gop-y"] = [{**files, **more}], False


@pytest.mark.filterwarnings("ignore::loraft.errors.Note")
def test_no_code_no_pickle_and_no_place_on_this_machine_comes_from_a_strangers_repository(
    hub: FakeHub, tmp_path: Path
) -> None:
    run = finished_run(tmp_path / "chạy", f"output={tmp_path / 'chỗ của người khác'}")
    config = config_of(run).model_dump()
    config["model"] |= {"name": "ai/co-ma", "revision": "a1" * 20, "trust_remote_code": True, "cache_dir": "/chỗ/khác"}
    config["data"] |= {"cache_dir": "/chỗ/khác", "extra_train": ["/của/người/khác.csv"]}
    config["train"]["report_to"] = ["wandb"]
    change_bundle(run.adapter, config=config)
    names = ("modeling.py", "adapter_model.bin", "pytorch_model.bin", "training_args.bin", "sub/x.pkl", "README.md")
    on_hub(hub, run.adapter, **dict.fromkeys(names, b"import os"))
    found = find_run("hf:ai/gop-y@main", tmp_path)
    assert isinstance(found, Bundle)
    kept = {path.name for path in (tmp_path / "kho").rglob("*")}
    assert not kept & {*names, "sub", "x.pkl"}
    assert {path.name for path in found.path.iterdir()} == {path.name for path in run.adapter.iterdir()}
    taken = config_of(found)
    assert not taken.model.trust_remote_code
    assert (taken.output.folder, taken.model.cache_dir, taken.data.cache_dir) == ("runs", None, None)
    assert (taken.data.extra_train, taken.train.report_to) == ([], [])


@pytest.mark.filterwarnings("ignore::loraft.errors.Note")
def test_a_training_that_goes_on_from_it_names_repository_and_commit(hub: FakeHub, tmp_path: Path) -> None:
    on_hub(hub, finished_run(tmp_path / "chạy").adapter)
    for given in ("hf:ai/gop-y", "hf:ai/gop-y@main"):
        config = config_to_go_on(given, None)
        assert (config.name, config.train.from_run) == ("gop-y-round2", f"hf:ai/gop-y@{hub.sha('ai/gop-y')}")
    start = starting_point(config)
    assert start is not None
    assert start.record.run == config.train.from_run
    assert short_name(start.record.run) == "gop-y"


def test_predict_and_eval_take_it_and_name_the_commit_once(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished_run(tmp_path / "chạy", "data.max_test_rows=7")
    on_hub(hub, run.adapter)
    flags: dict[str, str | None] = {"data.source": "/chỗ/khác"}
    place, config = run_or_adapter("hf:ai/gop-y", None, ConfigFlags(), flags)
    assert place is not None
    assert place.name == hub.sha("ai/gop-y")
    assert (config.data.max_test_rows, config.data.source) == (7, "/chỗ/khác")
    assert capsys.readouterr().err == f"note: hf:ai/gop-y is commit {place.name} on the hub\n"


@pytest.mark.filterwarnings("ignore::loraft.errors.Note")
def test_without_a_terminal_there_is_no_progress_bar(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enable_progress_bars()
    on_hub(hub, finished_run(tmp_path / "chạy").adapter)
    find_run("hf:ai/gop-y", tmp_path)
    assert capsys.readouterr().err == ""


def test_what_is_no_hub_is_told(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hub.answer

    def answer(request: BaseHTTPRequestHandler, body: bytes) -> None:
        if "/api/" in request.path:
            send(request, 200, b"{}")
        else:
            real(request, body)

    monkeypatch.setattr(hub, "answer", answer)
    on_hub(hub, finished_run(tmp_path / "chạy").adapter)
    with pytest.raises(RunError, match=r"hf:ai/gop-y: cannot be loaded: http://.* answers otherwise than a hub does"):
        find_run("hf:ai/gop-y", tmp_path)


@pytest.mark.filterwarnings("ignore::loraft.errors.Note")
def test_a_file_that_its_bundle_does_not_name_is_refused_before_it_is_loaded(hub: FakeHub, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "chạy")
    weights = (run.adapter / "adapter_model.safetensors").read_bytes()
    on_hub(hub, run.adapter, **{"adapter_model.safetensors": weights[:-1] + b"x"})
    found = Run.open("hf:ai/gop-y")
    with pytest.raises(RunError, match=r"is not the adapter that its loraft.json names .*adapter_model.safetensors"):
        load_run(found, config_of(found))
    refuse_changed(run.adapter)


@pytest.mark.parametrize("name", ["hf:", "hf:gop-y", "hf:ai/gop y", "hf:ai/góp-ý", "hf:ai/b/c", "hf:../x@", "hf:a/b@"])
def test_what_is_no_reference_is_refused_without_a_request(hub: FakeHub, tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match=r"is no run on the hub; allowed: hf:owner/name or hf:owner/name@revision"):
        find_run(name, tmp_path)
    assert hub.requests == []


def test_what_the_hub_has_not_is_one_message(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"^hf:ai/khac: .*no such run, or it is private \(HTTP 404\); check the name"):
        find_run("hf:ai/khac", tmp_path)
    on_hub(hub, finished_run(tmp_path / "chạy").adapter)
    with pytest.raises(RunError, match=r"^hf:ai/gop-y@v9: .*no revision v9; set what follows @ to one that it has"):
        find_run("hf:ai/gop-y@v9", tmp_path)
    hub.commits["ai/gop-y"] = [{"config.json": b"{}"}]
    with pytest.raises(RunError, match=r"^hf:ai/gop-y: holds no loraft.json, so it was not pushed by loraft"):
        find_run("hf:ai/gop-y", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RunError, match=r"^hf:ai/nua: .*not in the cache, and HF_HUB_OFFLINE is set; unset it"):
        find_run("hf:ai/nua", tmp_path)
