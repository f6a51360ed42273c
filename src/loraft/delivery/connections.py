"""Bounds on connections, which uvicorn lacks: how many there are, and how long the head of a request may take.

Uvicorn belongs to the extra `loraft[serve]`, so it is imported inside functions.
"""

import json
import sys
from http import HTTPStatus
from typing import Any

HEAD_SECONDS = 10  # within which the head of a request has to arrive, on a new connection and after its first byte
AT_A_TIME = 16  # connections that asyncio accepts in one turn of its loop; one too many is closed some turns later
SPARE = 8 * AT_A_TIME  # files for these, for the models and for the system's libraries
MOST = 65_536  # connections, where the system has no limit


def most_connections() -> int:
    """Returns how many connections may be open: as many as the process may have files, less some for other files."""
    if sys.platform == "win32":
        return 512 - SPARE
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else max(1, min(MOST, soft - SPARE))


def bounded_protocol(most: int) -> Any:
    """Returns uvicorn's HTTP protocol that closes the connections beyond `most`, and those whose heads are too slow."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Bounded(H11Protocol):
        _late: Any = None  # the timer that runs while a head is on its way

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                self._refuse(503, f"connections: {most:,} are open already; try again later")
            else:
                self._late = self.loop.call_later(HEAD_SECONDS, transport.abort)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._forget()
            elif self._late is None:
                self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "request: is no HTTP/1.1; send POST /classify with a JSON object")

        def _forget(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _refuse(self, code: int, message: str) -> None:
            if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
                body = json.dumps(error(code, message)).encode()
                head = f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\nContent-Type: application/json\r\n"
                self.transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
            self.transport.close()

    return Bounded


def error(code: int, message: str) -> dict[str, Any]:
    """Returns what the body of a refusal says, as OpenAI's and vLLM's servers write it."""
    told = {"message": message, "type": "BadRequestError" if code < 500 else "InternalServerError"}
    return {"error": {**told, "param": None, "code": code}}
