"""Runs behind the server give `predict`'s labels; they share a backbone; a signal loses no request."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from helpers.serving import listening, open_lengths, tiny_runs
from helpers.tiny import SENTENCES
from starlette.testclient import TestClient

from loraft.delivery import serving
from loraft.delivery.batching import Limits
from loraft.delivery.server import Service
from loraft.errors import ConfigError, LoraftError
from loraft.evaluation.predict import predict
from loraft.runs.bundle import config_of
from loraft.runs.run import Run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return tiny_runs(tmp_path_factory.mktemp("runs"), "một", "hai")


def test_concurrent_requests_get_predicts_labels_and_probabilities(runs: list[Run]) -> None:
    service = Service(serving.load([(run.name, run.path, config_of(run)) for run in runs]), Limits(batch=8))
    expected = {run.name: list(predict(SENTENCES, run=run.path)) for run in runs}
    assert len({one.probs["neutral"] for found in expected.values() for one in found[:1]}) == 2  # the runs differ

    with TestClient(service) as client, ThreadPoolExecutor(8) as pool:

        def ask(number: int) -> tuple[str, int, list[Any]]:
            name, first = runs[number % 2].name, number % 5
            answer = client.post("/classify", json={"model": name, "input": SENTENCES[first : first + 2]})
            return name, first, answer.json()["data"]

        for name, first, data in pool.map(ask, range(40)):
            for one, other in zip(data, expected[name][first : first + 2], strict=True):
                assert one["label"] == other.label
                assert np.allclose(one["probs"], list(other.probs.values()), rtol=0, atol=1e-5)


def test_runs_of_one_backbone_share_its_weights_and_no_adapter(runs: list[Run]) -> None:
    one, other = serving.load([(run.name, run.path, config_of(run)) for run in runs]).values()
    weights = [{p.data_ptr() for p in found.loaded.model.parameters()} for found in (one, other)]
    assert weights[0] == weights[1]
    assert abs(one.log_probs(SENTENCES) - other.log_probs(SENTENCES)).max() > 1e-3


def test_two_models_of_one_name_are_refused(runs: list[Run]) -> None:
    found = ("một", runs[0].path, config_of(runs[0]))
    with pytest.raises(ConfigError, match=r"names of the models must differ \(got một, một\); rename a folder"):
        serving.load([found, found])


def test_a_model_has_the_name_that_was_given(tmp_path: Path) -> None:
    for path in ("A/config.yaml", "s/sweep.yaml", "s/r8/config.yaml", "f/folds.yaml", "f/fold1/config.yaml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "A/adapter").mkdir()
    (tmp_path / "liên kết").symlink_to("A")
    names = {"A": "A", "A/adapter": "A", "liên kết": "liên kết", "s/r8": "s/r8", "s": "s", "f/fold1": "f/fold1"}
    assert {path: serving.model_name(path, tmp_path / path) for path in names} == names
    assert serving.model_name("hf:owner/name@v1", tmp_path / "snapshots" / "0a1b") == "owner/name@v1"


def test_of_two_servers_that_start_together_one_is_told_at_once() -> None:
    with serving.listening_socket("127.0.0.1", 0) as bound, pytest.raises(ConfigError, match="Address already in use"):
        serving.listening_socket("127.0.0.1", bound.getsockname()[1])


def test_answers_do_not_wait_for_nagles_algorithm() -> None:
    with serving.listening_socket("localhost", 0) as bound:
        assert bound.proto == socket.IPPROTO_TCP  # asyncio sets TCP_NODELAY for these only


def test_an_address_that_cannot_be_used_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot be used \(got '127.0.0.1', {port}: Address already in use\)"):
            serving.listening_socket("127.0.0.1", port)
    with pytest.raises(ConfigError, match="cannot be used"):
        serving.listening_socket("không có." * 20, 80)


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_package_is_one_message(package: str) -> None:
    with patch.dict(sys.modules, {package: None}), pytest.raises(LoraftError, match=r"pip install 'loraft\[serve\]'"):
        serving.check_installed()


@contextmanager
def process_of(run: Run, *before: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A process that serves a run, and its port; `before` comes before its command line."""
    command = [*before, sys.executable, "-m", "loraft", "serve", "--run", str(run.path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield child, int(child.stdout.readline().rpartition(":")[2])
        finally:
            child.kill()


def seen(url: str, profile: Path, *more: str) -> str:
    """The page that a browser shows after its scripts have run."""
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run --disable-sync --dump-dom"
        f" --virtual-time-budget=5000 --user-data-dir={profile}"
    )
    command = [str(BROWSER), *flags.split(), *more, url]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120).stdout


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_in_a_browser_the_button_asks_the_chosen_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"một": open_lengths(), "hai": replace(open_lengths(), labels=("a|b", "b"))}
    page = Service._page
    acts = """document.getElementById("model").value = "hai"; text.value += "%";
        document.querySelector("button").click();
        new MutationObserver(() => { document.title = [...document.querySelectorAll("th")].map(
          (one) => [document.documentElement.scrollWidth, one.textContent, one.parentNode.className]).join(";");
        }).observe(answer, { childList: true, subtree: true });"""

    async def acted(self: Service, request: Any) -> Any:
        found = await page(self, request)
        found.body = found.body.replace(b"</script>", f"{acts}</script>".encode())
        found.headers["content-length"] = str(len(found.body))
        return found

    monkeypatch.setattr(Service, "_page", acted)
    with listening(Service(models)) as (port, _):
        shown = seen(f"http://127.0.0.1:{port}/#%E0%A4%A", tmp_path / "profile", "--window-size=500,800")
    assert "<title>500,a|b,best;500,b,</title>" in shown
    assert models["hai"].batches == [["%E0%A4%A%"]]  # what is no encoded text is taken as it is


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("lang", ["vi", "en"])
def test_in_a_browser_a_typed_sentence_becomes_bars(runs: list[Run], tmp_path: Path, lang: str) -> None:
    with process_of(runs[0]) as (_, port):
        url = f"http://127.0.0.1:{port}/#thầy%20dạy%20hay%20<img src=x>"
        page = seen(url, tmp_path / "profile", f"--lang={lang}", f"--accept-lang={lang}")
    assert f'<html lang="{lang}">' in page
    assert ("Xác suất của từng nhãn" if lang == "vi" else "Probability of each label") in page
    assert re.findall(r'<meter value="[\d.e-]+" aria-label="(\w+)">', page) == ["negative", "neutral", "positive"]
    shares = [float(share.replace(",", ".")) for share in re.findall(r"<td>([\d.,]+)\s?%</td>", page)]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    best = re.findall(r'<tr class="(\w*)">', page).index("best")
    assert shares[best] == max(shares)
    assert "<img" not in page


@pytest.mark.integration
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_more_connections_than_files_neither_stop_the_server_nor_fill_its_log(runs: list[Run]) -> None:
    with process_of(runs[0], "sh", "-c", 'ulimit -n 256; exec "$@"', "sh") as (child, port):
        held = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(400)]
        assert held[-1].recv(12) == b"HTTP/1.1 503"
        for one in held:
            one.close()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        child.send_signal(signal.SIGTERM)
        assert child.stderr is not None
        assert (child.wait(60), "Too many open files" in child.stderr.read()) == (0, False)


@pytest.mark.integration
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGTERM to another process")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_after_every_accepted_request_is_answered(
    runs: list[Run], number: signal.Signals
) -> None:
    signalled, body = threading.Event(), json.dumps({"input": SENTENCES})
    answered: list[tuple[bool, int]] = []  # whether the request was sent before the signal, and the status

    def ask_on_and_on(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while True:
            early = not signalled.is_set()
            try:
                connection.request("POST", "/classify", body, {"Content-Type": "application/json"})
            except ConnectionError:
                return
            try:
                answer = connection.getresponse()
                answer.read()
            except ConnectionError:
                answered.append((early, 0))
                return
            answered.append((early, answer.status))

    with process_of(runs[0]) as (child, port):
        idle = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        idle.connect()
        clients = [threading.Thread(target=ask_on_and_on, args=(port,)) for _ in range(8)]
        for client in clients:
            client.start()
        while len(answered) < 50:
            time.sleep(0.01)
        signalled.set()
        child.send_signal(number)
        time.sleep(0.3)
        idle.request("GET", "/healthz")  # on a connection of before: not cut off
        assert idle.getresponse().status == 503
        code = child.wait(60)
        for client in clients:
            client.join(30)
        assert child.stderr is not None
        assert (code, "Traceback" in child.stderr.read()) == (0, False)
    early = [status for sent_early, status in answered if sent_early]
    # A request that was sent in the very moment of the signal may be told that the server stops.
    assert set(early) <= {200, 503}
    assert early.count(200) >= 50
    assert early.count(503) <= len(clients)
