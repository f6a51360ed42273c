"""Connections of the real server: how many, how long their heads may take, bad HTTP, clients that go, signals."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers.serving import Lengths, listening, open_lengths

from loraft.delivery import connections, serving
from loraft.delivery.batching import Limits
from loraft.delivery.server import Service

HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def request_of(*texts: str) -> bytes:
    body = json.dumps({"input": texts}).encode()
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def connected(port: int, sent: bytes = b"") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=10)
    made.sendall(sent)
    return made


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    found = b""
    try:
        while more := connection.recv(65536):
            found += more
    except ConnectionResetError:
        pass
    connection.close()
    return found


def answer(connection: socket.socket) -> tuple[int, Any]:
    """Status and JSON of the next answer."""
    found = b""
    while not found.endswith(b"}"):
        found += connection.recv(65536)
    return int(found.split()[1]), json.loads(found.partition(b"\r\n\r\n")[2])


def soon(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_connections_have_a_bound_heads_a_time_and_what_is_no_http_an_error_in_json(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(serving, "most_connections", lambda: 3)
    with listening(Service({"a": open_lengths()})) as (port, server):
        slow = [connected(port), connected(port, HEAD[:20]), connected(port, HEALTH)]
        assert answer(slow[2])[0] == 200
        slow[2].sendall(HEAD[:20])  # a second head that never ends
        soon(lambda: len(server.server_state.connections) == 3)
        code, body = answer(connected(port))
        assert (code, body["error"]["message"]) == (503, "connections: 3 are open already; try again later")
        assert [everything(one) for one in slow] == [b"", b"", b""]
        one = connected(port, HEALTH)
        assert answer(one)[0] == 200
        time.sleep(0.3)  # a connection between two requests is kept
        one.sendall(HEALTH)
        assert answer(one)[0] == 200
        one.close()
        code, body = answer(connected(port, b"\x16\x03\x01 tls\r\n\r\n"))
        assert (code, body["error"]["code"]) == (400, 400)
        upgrade = HEALTH[:-2] + b"Connection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"
        assert answer(connected(port, upgrade))[0] == 200
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_the_bound_lies_below_the_number_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    for soft, most in ((256, 128), (10, 1), (resource.RLIM_INFINITY, connections.MOST)):
        monkeypatch.setattr(resource, "getrlimit", lambda which, soft=soft: (soft, soft))
        assert connections.most_connections() == most


def test_a_client_that_goes_has_no_rows_computed_and_is_counted_by_itself() -> None:
    model = Lengths()
    service = Service({"a": model}, Limits(batch=1))
    with listening(service) as (port, _):
        first = connected(port, request_of("x"))
        model.entered.wait(10)
        gone = [connected(port, request_of("y", "z")), connected(port, request_of("x" * 9)[:-5])]
        soon(lambda: service._batcher is not None and service._batcher.waiting == 2)
        for one in gone:
            one.close()
        soon(lambda: service.metrics.requests["/classify", 499] == 2)
        model.go.set()
        assert answer(first)[0] == 200
        first.close()
    assert model.batches == [["x"]]


def test_a_stop_waits_for_an_answer_without_a_limit_and_a_second_signal_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    codes: list[Any] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    model = Lengths()
    with listening(Service({"a": model})) as (port, server):
        assert server.config.timeout_graceful_shutdown is None  # of uvicorn: it cancels what is computed after it
        accepted = connected(port, request_of("x"))
        model.entered.wait(10)
        server.handle_exit(signal.SIGTERM, None)
        soon(lambda: server.should_exit)
        assert codes == []
        server.handle_exit(signal.SIGTERM, None)
        assert codes == [143]
        model.go.set()
        assert everything(accepted).startswith(b"HTTP/1.1 200")
    assert capfd.readouterr().err == "interrupted\n"
