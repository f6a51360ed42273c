"""The HTTP server of `loraft serve`: routes, limits and errors as JSON, and a stop that loses no request.

The event loop reads and writes HTTP; `batching` computes in one thread. Starlette and uvicorn are the extra
`loraft[serve]`, so they are imported inside functions. Sentences are never logged.

Sources of the shapes: `/classify` is vLLM's (docs.vllm.ai, "Classification API"), here with `labels`, the names of
`probs`; `/v1/score` is SGLang's (docs.sglang.io, "Native APIs"), whose labels are those of the run instead of
`label_token_ids`.
"""

import asyncio
import gc
import json
import os
import secrets
import socket
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from loraft.config.names import show
from loraft.data.columns import given_sentence
from loraft.data.records import BadRow
from loraft.delivery.batching import Batcher, Labeller, Limits, QueueFullError
from loraft.delivery.metrics import TYPE, Metrics
from loraft.errors import ConfigError, LoraftError, listed
from loraft.evaluation.predict import Prediction

MISSING = "serve: starlette and uvicorn are not installed (got {}); pip install 'loraft[serve]'"
PATHS = ("/", "/classify", "/v1/score", "/v1/models", "/healthz", "/metrics")
READ_SECONDS = 30  # within which the body of a request has to arrive
LATE_SECONDS = 0.3  # after a signal, in which requests that are on their way are told that the server stops
STOP_SECONDS = 60  # after which a stop no longer waits for connections
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
SECURE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class Service:
    """The ASGI application over some models.

    Attributes:
        models: what is served, by name; the first one answers requests that name none.
        stopping: new requests are refused, and every answer closes its connection.
    """

    def __init__(self, models: Mapping[str, Labeller], limits: Limits | None = None) -> None:
        try:
            from starlette.applications import Starlette
            from starlette.exceptions import HTTPException
            from starlette.routing import Route
        except ImportError as error:
            raise LoraftError(MISSING.format(error)) from error

        self.models, self.limits = dict(models), limits or Limits()
        self.stopping = False
        self.metrics = Metrics()
        self._batcher: Batcher | None = None
        routes = [
            Route("/", self._page),
            Route("/classify", self._answering(self._classify), methods=["POST"]),
            Route("/v1/score", self._answering(self._score), methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/healthz", self._health),
            Route("/metrics", self._metrics),
        ]
        self._app = Starlette(routes=routes, exception_handlers={HTTPException: _refused}, lifespan=self._lifespan)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request, and counts it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)  # type: ignore[no-any-return]
        path = scope["path"] if scope["path"] in PATHS else "other"

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests[path, message["status"]] += 1
                if self.stopping:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, counted)
        return None

    @asynccontextmanager
    async def _lifespan(self, app: Any) -> AsyncIterator[None]:
        self._batcher = Batcher(self.models, self.limits, self.metrics)
        worker = asyncio.create_task(self._batcher.work())
        yield
        worker.cancel()

    def _answering(self, respond: Callable[[dict[str, Any]], Awaitable[Any]]) -> Any:
        """The endpoint that gives `respond` the JSON object of a request and sends what it returns."""
        from starlette.exceptions import HTTPException
        from starlette.responses import JSONResponse

        async def endpoint(request: Any) -> Any:
            began = time.perf_counter()
            if self.stopping:
                raise HTTPException(503, "the server stops; send the request to another one", {"Retry-After": "1"})
            try:
                answer = JSONResponse(await respond(await self._object(request)), headers=SECURE)
            except HTTPException:
                raise
            except QueueFullError:
                text = f"queue: {self.limits.queue} rows wait already; try again later"
                raise HTTPException(429, text, {"Retry-After": "1"}) from None
            except Exception as error:  # a message that is not ours could hold a sentence
                if os.environ.get("LORAFT_DEBUG") == "1":
                    traceback.print_exc()
                said = str(error) if isinstance(error, LoraftError) else f"{type(error).__name__} in the server"
                raise HTTPException(500, said) from None
            self.metrics.seconds.add(time.perf_counter() - began)
            return answer

        return endpoint

    async def _object(self, request: Any) -> dict[str, Any]:
        """The JSON object in the body of a request."""
        from starlette.exceptions import HTTPException
        from starlette.requests import ClientDisconnect

        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != "application/json":
            # Also the guard against other sites' pages: a browser asks before it sends this type to another origin.
            raise HTTPException(415, f"content-type: not JSON (got {show(kind)}); send application/json")
        body = bytearray()
        try:
            async with asyncio.timeout(READ_SECONDS):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self.limits.body:
                        raise HTTPException(413, f"body: longer than {self.limits.body:,} bytes; send fewer rows")
        except (TimeoutError, ClientDisconnect):
            raise HTTPException(408, f"body: did not arrive within {READ_SECONDS} seconds") from None
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):  # also bytes that are no UTF-8
            raise HTTPException(400, "body: is no JSON in UTF-8; send an object with the key input") from None
        if not isinstance(found, dict):
            raise HTTPException(422, f"body: not an object (got {show(found)}); send one with the key input")
        return found

    async def _predicted(self, given: dict[str, Any], key: str) -> tuple[str, list[Prediction]]:
        """The name of the model that a request asks, and the predictions for its texts."""
        from starlette.exceptions import HTTPException

        name = given.get("model") or next(iter(self.models))
        if not isinstance(name, str) or name not in self.models:
            raise HTTPException(404, f"model: is not served (got {show(name)}); there are {listed(self.models)}")
        texts = given.get(key)
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not texts:
            raise HTTPException(422, f"{key}: not a text or a list of texts (got {show(texts)}); send at least one")
        if len(texts) > self.limits.rows:
            raise HTTPException(413, f"{key}: too many texts (got {len(texts):,}); allowed: {self.limits.rows:,}")
        rows = []
        for i, text in enumerate(texts):
            if isinstance(text, str) and len(text) > self.limits.characters:
                most = f"allowed: {self.limits.characters:,} characters"
                raise HTTPException(413, f"{key}[{i}]: too long (got {len(text):,} characters); {most}")
            row = given_sentence(text, i + 1)
            if isinstance(row, BadRow):
                raise HTTPException(422, f"{key}[{i}]: {row.reason}; send text")
            rows.append(row.text)
        assert self._batcher is not None
        predictions = await self._batcher.predict(name, rows)
        self.metrics.rows[name] += len(rows)
        return name, predictions

    async def _classify(self, given: dict[str, Any]) -> dict[str, Any]:
        name, predictions = await self._predicted(given, "input")
        labels = self.models[name].labels
        data = [
            {
                "index": i,
                "label": "|".join(one.label) if isinstance(one.label, tuple) else one.label,
                "probs": list(one.probs.values()),
                "num_classes": len(labels),
            }
            for i, one in enumerate(predictions)
        ]
        created = {"id": f"classify-{secrets.token_hex(16)}", "object": "list", "created": int(time.time())}
        return {**created, "model": name, "labels": list(labels), "data": data}

    async def _score(self, given: dict[str, Any]) -> dict[str, Any]:
        from starlette.exceptions import HTTPException

        fixed = {"query": ("", None), "label_token_ids": (None,), "apply_softmax": (True,), "item_first": (False,)}
        for key, allowed in fixed.items():
            if key in given and given[key] not in allowed:
                text = "prompt and labels are the run's, and scores are probabilities over its labels"
                raise HTTPException(422, f"{key}: cannot be chosen here (got {show(given[key])}); leave it out: {text}")
        name, predictions = await self._predicted(given, "items")
        scores = [list(one.probs.values()) for one in predictions]
        return {"object": "scoring", "model": name, "labels": list(self.models[name].labels), "scores": scores}

    async def _models(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        data = [{"id": name, "object": "model", "labels": list(model.labels)} for name, model in self.models.items()]
        return JSONResponse({"object": "list", "data": data}, headers=SECURE)

    async def _health(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        return JSONResponse({"status": "stopping" if self.stopping else "ok"}, 503 if self.stopping else 200, SECURE)

    async def _metrics(self, request: Any) -> Any:
        from starlette.responses import Response

        waiting = self._batcher.waiting if self._batcher else 0
        return Response(self.metrics.text(waiting), headers={**SECURE, "Content-Type": TYPE})

    async def _page(self, request: Any) -> Any:
        from starlette.responses import HTMLResponse

        nonce = secrets.token_urlsafe(16)
        page = TEMPLATES.get_template("serve.html.jinja").render(
            nonce=nonce, names=list(self.models), most=self.limits.characters
        )
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self';"
            " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(page, headers={**SECURE, "Content-Security-Policy": policy})


async def _refused(request: Any, error: Any) -> Any:
    """The answer to a request that is refused, as OpenAI's and vLLM's servers write it."""
    from starlette.responses import JSONResponse

    told = {"message": error.detail, "type": "BadRequestError" if error.status_code < 500 else "InternalServerError"}
    body = {"error": {**told, "param": None, "code": error.status_code}}
    return JSONResponse(body, error.status_code, {**SECURE, **(error.headers or {})})


def listening_socket(host: str, port: int) -> socket.socket:
    """Returns a socket bound to the address; before models are loaded, since a port in use is told at once.

    Raises:
        ConfigError: the address is unknown, in use or not allowed.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no host name"
        raise ConfigError(f"--host and --port: cannot be used (got {show(host)}, {port}: {reason}); choose others") from error
    return bound


def serve(service: Service, bound: socket.socket, *, ready: Callable[[], None]) -> None:
    """Answers requests until SIGINT or SIGTERM, after which accepted requests are still answered.

    Args:
        service: the application.
        bound: from `listening_socket`.
        ready: called when requests are accepted.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise LoraftError(MISSING.format(error)) from error

    config = uvicorn.Config(
        service, log_config=None, access_log=False, server_header=False, timeout_keep_alive=75,
        timeout_graceful_shutdown=STOP_SECONDS, backlog=2048, ws="none",
    )  # fmt: skip
    server = uvicorn.Server(config)

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def stop(number: int, frame: Any) -> None:
            # uvicorn would close idle connections at once, and with them a request that is on its way.
            if service.stopping:
                server.should_exit = server.force_exit = True
            service.stopping = True
            loop.call_soon_threadsafe(loop.call_later, LATE_SECONDS, partial(setattr, server, "should_exit", True))

        server.handle_exit = stop

        async def tell() -> None:
            while not server.started:
                await asyncio.sleep(0.01)
            ready()

        told = asyncio.create_task(tell())
        await server.serve(sockets=[bound])
        told.cancel()

    gc.collect()
    gc.freeze()  # the loaded models are never garbage, and a collection would go through all their objects
    loop_factory = config.get_loop_factory()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run())
