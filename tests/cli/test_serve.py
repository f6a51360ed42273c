"""`loraft serve` on the command line: what is parsed, printed where, and refused."""

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import Says, finished
from helpers.serving import open_lengths, tiny_runs

from loraft.delivery import serving
from loraft.delivery.server import Service
from loraft.models import manifest
from loraft.models.calibration import Calibration


def test_serve_prints_its_address_and_serves_the_runs_by_name(
    here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    for name in ("một", "hai"):
        finished(here / "runs" / name)

    def load(runs: list[tuple[str, Path, Any]]) -> dict[str, Any]:
        return {name: open_lengths() for name, _, _ in runs}

    def serve(service: Service, bound: socket.socket, *, ready: Callable[[], None]) -> None:
        given.update(models=list(service.models), limits=service.limits)
        ready()
        bound.close()

    monkeypatch.setattr(serving, "load", load)
    monkeypatch.setattr(serving, "good_batch", lambda models: 7 * len(models))
    monkeypatch.setattr(serving, "serve", serve)
    code, out, err = loraft_says("serve", "--run", "một", "--run", "hai", "--port", "0", "--max-batch", "16")
    assert code == 0
    assert out.startswith("http://127.0.0.1:")
    assert (out.count("\n"), given["models"], given["limits"].batch) == (1, ["một", "hai"], 16)
    assert err.splitlines()[1:] == ["backbone loraft-vi-tiny, adapter runs/hai"]
    loraft_says("serve", "--run", "một", "--port", "0")
    assert given["limits"].batch == 7


def test_what_another_server_needs_is_printed_and_nothing_listens(
    here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = tiny_runs(here, "một")
    monkeypatch.delattr(serving, "serve")
    code, out, err = loraft_says("serve", "--run", str(run.path), "--command", "vllm")
    assert (code, out[:11], out.count("\n")) == (0, "vllm serve ", 1)
    assert err.startswith("a request: curl ")
    code, out, err = loraft_says("serve", "--run", str(run.path), "--command", "ollama")
    assert (code, out.splitlines()[0]) == (0, "FROM ./một-gguf/model.gguf")
    assert "--to gguf --output" in err


def test_another_server_is_said_to_know_no_calibration(here: Path, loraft_says: Says) -> None:
    (run,) = tiny_runs(here, "một")
    manifest.write(run.adapter, replace(manifest.read(run.adapter), calibration=Calibration(1.5, (0.5, -0.5, 0.0), 60)))
    for command in ("vllm", "ollama"):
        _, _, err = loraft_says("serve", "--run", str(run.path), "--command", command)
        first = err.splitlines()[0]
        assert first.startswith(f"note: {command} generates the answer as scored, without the run's calibration, and")
        assert first.endswith(" may give another label, since biases change labels")


def test_another_server_is_told_of_one_run(run_dir: Path, loraft_says: Says) -> None:
    said = loraft_says("serve", "--command", "vllm", "--run", "one", "--run", "one")
    assert (said[0], "--command: is for one run (got 2); give one --run" in said[2]) == (2, True)


def test_an_address_in_use_is_told_before_anything_is_loaded(run_dir: Path, loraft_says: Says) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = loraft_says("serve", "--port", str(taken.getsockname()[1]))
    assert (said[0], said[2].count("\n"), "Address already in use" in said[2]) == (2, 1, True)
