"""The application of `loraft serve`: routes, limits, and errors as JSON.

The event loop reads and writes HTTP; `batching` computes in one thread. Starlette belongs to the extra `loraft[serve]`,
so it is imported inside functions. Sentences are never logged.

Sources of the shapes: `/classify` is vLLM's (docs.vllm.ai, "Classification API"), here with `labels`, the names of
`probs`; `/v1/score` is SGLang's (docs.sglang.io, "Native APIs"), whose labels are those of the run instead of
`label_token_ids`.
"""

import asyncio
import json
import os
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from loraft.config.names import show
from loraft.data.columns import given_sentence
from loraft.data.records import BadRow
from loraft.delivery import connections
from loraft.delivery.batching import Batcher, Labeller, Limits, QueueFullError
from loraft.delivery.metrics import TYPE, Metrics
from loraft.errors import LoraftError, listed
from loraft.evaluation.predict import Prediction
from loraft.runs.records import as_json

PATHS = ("/", "/classify", "/v1/score", "/v1/models", "/healthz", "/metrics")
READ_SECONDS = 30  # within which the body of a request has to arrive
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
# What other servers let a request choose, and the values that mean what is done here. Others are refused.
FIXED: dict[str, tuple[Any, ...]] = {
    "query": ("", None), "label_token_ids": (None,), "apply_softmax": (True,), "item_first": (False,),
    "use_activation": (True, None), "activation": (True, None), "truncate_prompt_tokens": (-1, None),
}  # fmt: skip
SECURE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class Service:
    """The ASGI application over some models.

    Attributes:
        models: what is served, by name; the first one answers requests that name none.
        stopping: new requests are refused, and every answer closes its connection.
    """

    def __init__(self, models: Mapping[str, Labeller], limits: Limits | None = None) -> None:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route

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
        self._app.router.redirect_slashes = False

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

    def _answering(self, respond: Callable[[dict[str, Any]], Coroutine[Any, Any, Any]]) -> Any:
        """The endpoint that gives `respond` the JSON object of a request and sends what it returns."""
        from starlette.exceptions import HTTPException
        from starlette.responses import JSONResponse

        async def endpoint(request: Any) -> Any:
            began = time.perf_counter()
            if self.stopping:
                raise HTTPException(503, "the server stops; send the request to another one", {"Retry-After": "1"})
            try:
                found = await _unless_gone(respond(await self._object(request)), request)
                answer = JSONResponse(found, headers=SECURE)
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
        body, long = bytearray(), f"body: longer than {self.limits.body:,} bytes; send fewer rows"
        told = request.headers.get("content-length", "")
        if told.isdecimal() and (len(told) > 18 or int(told) > self.limits.body):
            raise HTTPException(413, long)
        try:
            async with asyncio.timeout(READ_SECONDS):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self.limits.body:
                        raise HTTPException(413, long)
        except ClientDisconnect:
            raise _gone() from None
        except TimeoutError:
            raise HTTPException(408, f"body: did not arrive within {READ_SECONDS} seconds") from None
        try:
            found = json.loads(body.decode("utf-8-sig"))
        except (ValueError, RecursionError):  # also bytes that are no UTF-8, and numbers of thousands of digits
            raise HTTPException(
                400, "body: cannot be read as JSON in UTF-8; send an object with the key input"
            ) from None
        if not isinstance(found, dict):
            raise HTTPException(422, f"body: not an object (got {show(found)}); send one with the key input")
        return found

    async def _predicted(self, given: dict[str, Any], key: str) -> tuple[dict[str, Any], list[Prediction]]:
        """What every answer says (model, labels, usage), and the predictions for the texts of a request."""
        from starlette.exceptions import HTTPException

        for fixed, allowed in FIXED.items():
            if fixed in given and given[fixed] not in allowed:
                text = "prompt, length and labels are the run's, and scores are probabilities over its labels"
                raise HTTPException(422, f"{fixed}: cannot be chosen (got {show(given[fixed])}); leave it out: {text}")
        name = given.get("model")
        name = next(iter(self.models)) if name is None else name
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
        predictions, tokens = await self._batcher.predict(name, rows)
        self.metrics.rows[name] += len(rows)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
        return {"model": name, "labels": list(self.models[name].labels), "usage": usage}, predictions

    async def _classify(self, given: dict[str, Any]) -> dict[str, Any]:
        about, predictions = await self._predicted(given, "input")
        data = [
            {
                "index": i,
                "label": "|".join(one.label) if isinstance(one.label, tuple) else one.label,
                "probs": list(one.probs.values()),
                "num_classes": len(one.probs),
            }
            for i, one in enumerate(predictions)
        ]
        created = {"id": f"classify-{secrets.token_hex(16)}", "object": "list", "created": int(time.time())}
        return {**created, **about, "data": data}

    async def _score(self, given: dict[str, Any]) -> dict[str, Any]:
        about, predictions = await self._predicted(given, "items")
        return {"object": "scoring", **about, "scores": [list(one.probs.values()) for one in predictions]}

    async def _models(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        data = [
            {"id": name, "object": "model", "labels": list(one.labels), "calibration": as_json(one.calibration)}
            for name, one in self.models.items()
        ]
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


def _gone() -> Any:
    """The end of a request whose client has closed the connection; counted under nginx's code, and read by nobody."""
    from starlette.exceptions import HTTPException

    return HTTPException(499, "the client has closed the connection")


async def _unless_gone(answer: Coroutine[Any, Any, Any], request: Any) -> Any:
    """What `answer` returns; it is cancelled when the request's client closes the connection."""
    answering, leaving = asyncio.create_task(answer), asyncio.create_task(request.receive())
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise _gone()
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


async def _refused(request: Any, error: Any) -> Any:
    """The answer to a request that is refused."""
    from starlette.responses import JSONResponse

    message = error.detail
    if message in ("Not Found", "Method Not Allowed"):  # Starlette's own words
        message = f"{request.method} {show(request.url.path)}: {message}; there are POST /classify, POST /v1/score and"
        message += " GET " + ", ".join(path for path in PATHS if path not in ("/classify", "/v1/score"))
    body = connections.error(error.status_code, message)
    return JSONResponse(body, error.status_code, {**SECURE, **(error.headers or {})})
