"""Load runs, listen, and answer until a signal comes; a stop loses no request that was accepted.

Uvicorn belongs to the extra `loraft[serve]`, so it is imported inside functions.
"""

import asyncio
import gc
import socket
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from loraft.config.names import show
from loraft.config.schema import Config
from loraft.delivery.batching import Limits
from loraft.delivery.server import Service
from loraft.errors import ConfigError, LoraftError, listed
from loraft.evaluation.classifier import Classifier
from loraft.evaluation.predict import computes_meanwhile, opened

LATE_SECONDS = 1.0  # after a signal, in which requests that are on their way are told that the server stops
STOP_SECONDS = 60  # after which a stop no longer waits for connections


def check_installed() -> None:
    """Refuses to go on without the extra's packages.

    Raises:
        LoraftError: one is missing.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise LoraftError(f"serve: needs starlette and uvicorn (got {error}); pip install 'loraft[serve]'") from error


def load(runs: Sequence[tuple[Path, Config]]) -> dict[str, Classifier]:
    """Returns finished runs, loaded, by the names of their folders; those of one backbone share its weights.

    Raises:
        ConfigError: two have the same name.
        BackboneError, RunError: as in `evaluation.classifier.load`.
    """
    bases: dict[Any, PreTrainedModel] = {}
    names = [path.resolve().name for path, _ in runs]
    if len(set(names)) < len(names):
        raise ConfigError(f"--run: names of the models must differ (got {listed(names)}); rename a folder")
    return {
        name: Classifier(opened(path, None, config, bases)) for name, (path, config) in zip(names, runs, strict=True)
    }


def good_batch(models: Iterable[Classifier]) -> int:
    """Returns how many rows are best computed together: on a CPU more of them take longer and are not faster."""
    return max(256 if computes_meanwhile(model.loaded.model) else Limits.batch for model in models)


def listening_socket(host: str, port: int) -> socket.socket:
    """Returns a socket bound to the address; before models are loaded, since a port in use is told at once.

    Raises:
        ConfigError: the address is unknown, in use or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio switches Nagle's algorithm off only where the protocol is named; with it an answer takes 40 ms more.
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no host name"
        raise ConfigError(
            f"--host and --port: cannot be used (got {show(host)}, {port}: {reason}); choose others"
        ) from error
    return bound


def serve(service: Service, bound: socket.socket, *, ready: Callable[[], None]) -> None:
    """Answers requests until SIGINT or SIGTERM, after which accepted requests are still answered.

    Args:
        service: the application.
        bound: from `listening_socket`.
        ready: called when requests are accepted.
    """
    import uvicorn

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
    with warnings.catch_warnings(), asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        warnings.simplefilter("ignore")  # of ties and of texts that were shortened; there is one for each batch
        runner.run(run())
