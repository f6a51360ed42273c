"""A backbone on the hub: one request tells whether it can be had, and every refusal is one message."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from loraft.config.schema import ModelConfig, QuantConfig
from loraft.errors import BackboneError
from loraft.models.backbone import load_backbone, load_tokenizer
from loraft.models.hub import reached


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
    reached.cache_clear()
    yield
    reached.cache_clear()


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
        (401, "RepoNotFound", r"no such backbone, or it is private \(HTTP 401\); check the name, or `hf auth login`"),
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
    assert reached("ai/cua-em", None, None) == {}
    hub.status, hub.code = 404, "EntryNotFound"
    assert reached("ai/khac", None, None) == {}
    asked = hub.asked
    reached("ai/khac", None, None)
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
    assert reached("ai/cua-em", None, None) == {"local_files_only": True}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert reached("ai/cua-em", "main", None) == {"local_files_only": True}
    with pytest.raises(BackboneError, match="is not in the cache, and HF_HUB_OFFLINE is set; unset it"):
        reached("ai/khac", None, None)


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: waiting.wait())
    monkeypatch.setattr("loraft.models.hub.SECONDS", -0.9)
    with pytest.raises(BackboneError, match=r"cannot be reached .*no answer in"):
        reached("ai/cua-em", None, None)
    waiting.set()


def test_what_cannot_be_a_hub_id_is_told_without_a_request() -> None:
    with pytest.raises(BackboneError, match=r"no hub id \(got 'ai/của em'\); owner/name"):
        reached("ai/của em", None, None)
