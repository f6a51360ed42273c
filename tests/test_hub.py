"""A backbone or data set on the hub: one request tells whether it can be had, and every refusal is one message."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import datasets
import pytest
from huggingface_hub import HfApi, constants

from loraft import hub as asking
from loraft.config.data_section import DataConfig
from loraft.config.schema import ModelConfig, QuantConfig
from loraft.data.records import Row
from loraft.data.sources import open_source
from loraft.errors import BackboneError, DataError
from loraft.hub import BACKBONE, Answer, ask
from loraft.models.backbone import load_backbone, load_tokenizer
from loraft.models.source import pretrained


class Hub:
    """A hub on this machine that answers every request for a file alike, and counts them."""

    def __init__(self) -> None:
        self.status, self.code, self.asked = 200, "", 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.asked += 1
                self.send_response(hub.status)
                self.send_header("X-Error-Code", hub.code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


def at(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(constants, "ENDPOINT", place)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "kho"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "bộ dữ liệu"))
    monkeypatch.setattr(asking, "REMEMBERED", 10**9)
    asking._remembered.cache_clear()
    yield
    asking._remembered.cache_clear()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub()
    at(made.server.server_port, monkeypatch)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that nobody listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    at(port, monkeypatch)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "RepoNotFound", r"no such backbone, or it is private \(HTTP 401\); check the name, or log in with"),
        (404, "RepoNotFound", r"no such backbone, or it is private \(HTTP 404\)"),
        (403, "GatedRepo", r"is gated; ask for access on http://127.*/ai/cua-em, then log in"),
        (404, "RevisionNotFound", r"has no revision v9; set model\.revision"),
        (401, "", r"refuses the token \(HTTP 401\); log in again"),
        (503, "", r"answers HTTP 503; try again later"),
    ],
)
def test_each_refusal_is_told_after_one_request(hub: Hub, status: int, code: str, said: str) -> None:
    hub.status, hub.code = status, code
    with pytest.raises(BackboneError, match=rf"model\.name: cannot load ai/cua-em, which is no folder here: .*{said}"):
        load_tokenizer(ModelConfig(name="ai/cua-em", revision="v9"))
    assert hub.asked <= 2  # the client asks once more who may call it


def test_an_answer_is_remembered_and_a_repository_without_the_file_is_left_to_transformers(hub: Hub) -> None:
    assert ask(BACKBONE, "ai/cua-em", None) == Answer()
    hub.status, hub.code = 404, "EntryNotFound"
    assert ask(BACKBONE, "ai/khac", None) == Answer()
    asked = hub.asked
    ask(BACKBONE, "ai/khac", None)
    assert hub.asked == asked


@pytest.mark.usefixtures("nobody")
def test_without_a_network_the_cache_has_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for load in (load_tokenizer, lambda section: load_backbone(section, QuantConfig())):
        with pytest.raises(BackboneError, match=r"hub cannot be reached \(http://127.*refused\); check the network"):
            load(ModelConfig(name="ai/cua-em"))
    kept = tmp_path / "kho" / "models--ai--cua-em"
    (kept / "snapshots" / "a1").mkdir(parents=True)
    (kept / "snapshots" / "a1" / "config.json").touch()
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("a1", encoding="utf-8")
    from_cache = {"local_files_only": True, "trust_remote_code": False}
    assert pretrained(ModelConfig(name="ai/cua-em")) == ("ai/cua-em", from_cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pretrained(ModelConfig(name="ai/cua-em", revision="main"))[1] == {"revision": "main", **from_cache}
    with pytest.raises(BackboneError, match="is not in the cache, and HF_HUB_OFFLINE is set; unset it"):
        pretrained(ModelConfig(name="ai/khac"))


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: waiting.wait())
    monkeypatch.setattr("loraft.hub.SECONDS", -0.9)
    with pytest.raises(BackboneError, match=r"cannot be reached .*no answer in"):
        pretrained(ModelConfig(name="ai/cua-em"))
    waiting.set()


def test_what_cannot_be_a_hub_id_is_told_without_a_request() -> None:
    with pytest.raises(BackboneError, match=r"ai/của em, .* is no hub id either; a hub id is owner/name"):
        pretrained(ModelConfig(name="ai/của em"))


# --- data sets --------------------------------------------------------------------------------------------------------


def load_data(**section: str) -> None:
    open_source(DataConfig(source="ai/gop-y", **section), "test", (), "test", ())


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "RepoNotFound", r"no such data set, or it is private \(HTTP 401\); check the name, or log in"),
        (403, "GatedRepo", r"it is gated; ask for access on http://127.*/datasets/ai/gop-y, then log in"),
        (404, "RevisionNotFound", r"has no revision v9; set data\.revision"),
        (503, "", r"answers HTTP 503; try again later"),
    ],
)
def test_each_refusal_of_a_data_set_is_told_after_one_request(hub: Hub, status: int, code: str, said: str) -> None:
    hub.status, hub.code = status, code
    with pytest.raises(DataError, match=rf"^hub ai/gop-y at v9, split test: cannot be loaded, .*{said}"):
        load_data(revision="v9")
    assert hub.asked <= 2  # the client asks once more who may call it


def test_without_a_network_a_data_set_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refused(url: str, **_: object) -> None:
        asked.append(url)
        raise OSError("Network is unreachable")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refused)
    for retrying in ("hf_hub_download", "dataset_info"):
        monkeypatch.setattr(HfApi, retrying, lambda *_, **__: pytest.fail("datasets asked the hub"))
    with pytest.raises(DataError, match=r"not in the cache, and the hub cannot be reached \(.*is unreachable\); check"):
        load_data()
    assert len(asked) == 1
    assert not datasets.config.HF_HUB_OFFLINE  # the switch is as it was
    kept = tmp_path / "bộ dữ liệu" / "ai___gop-y" / "default" / "0.0.0" / ("a1" * 20)
    datasets.Dataset.from_dict({"sentence": ["thầy dạy hay"]}).save_to_disk(kept)
    (kept / "data-00000-of-00001.arrow").rename(kept / "gop-y-test.arrow")
    (kept / "dataset_info.json").write_text(
        json.dumps(
            {
                "builder_name": "csv", "dataset_name": "gop-y", "config_name": "default",
                "features": {"sentence": {"dtype": "string", "_type": "Value"}},
                "splits": {"test": {"name": "test", "num_bytes": 20, "num_examples": 1, "dataset_name": "gop-y"}},
                "version": {"version_str": "0.0.0", "major": 0, "minor": 0, "patch": 0},
            }
        ),
        encoding="utf-8",
    )  # fmt: skip
    rows, _ = open_source(DataConfig(source="ai/gop-y"), "test", (), "test", ())
    assert [row.columns for row in rows if isinstance(row, Row)] == [{"sentence": "thầy dạy hay"}]
    assert len(asked) == 1
