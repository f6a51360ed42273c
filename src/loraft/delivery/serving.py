"""Load runs, listen, and answer until a signal comes; a stop loses no request that was accepted.

Uvicorn belongs to the extra `loraft[serve]`, so it is imported inside functions.
"""

import asyncio
import gc
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from loraft.config.names import show
from loraft.config.schema import Config
from loraft.delivery.batching import Limits
from loraft.delivery.connections import AT_A_TIME, bounded_protocol, most_connections
from loraft.delivery.server import Service
from loraft.errors import ConfigError, LoraftError, listed
from loraft.evaluation.classifier import Classifier
from loraft.evaluation.predict import opened
from loraft.evaluation.scored_rows import computes_meanwhile
from loraft.runs.from_hub import HUB
from loraft.runs.run import Run
from loraft.runs.study_folders import FoldsFolder, SweepFolder

BACKLOG = 2048  # connections that the kernel keeps for the server until they are accepted
LATE_SECONDS = 1.0  # after a signal, in which requests that are on their way are told that the server stops


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


def model_name(given: str | None, path: Path) -> str:
    """Returns the name that requests give a run: as on the command line, without the folders before it.

    Args:
        given: `--run`; None for the newest run. `hf:owner/name` is `owner/name`.
        path: the run's folder. A trial is `sweep/trial`, and the adapter's folder in a run has the run's name.
    """
    if given is not None and given.startswith(HUB):
        return given.removeprefix(HUB)
    path = Path(os.path.abspath(path))  # a link keeps its own name
    path = path.parent if path == Run(path.parent).adapter and Run(path.parent).begun else path
    study = SweepFolder(path.parent).begun or FoldsFolder(path.parent).begun
    return f"{path.parent.name}/{path.name}" if study else path.name


def load(runs: Sequence[tuple[str, Path, Config]]) -> dict[str, Classifier]:
    """Returns finished runs, loaded, by their names; those of one backbone share its weights.

    Raises:
        ConfigError: two have the same name.
        BackboneError, RunError: as in `evaluation.classifier.load`.
    """
    bases: dict[Any, PreTrainedModel] = {}
    names = [name for name, _, _ in runs]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"--run: names of the models must differ (got {listed(names)}); rename a folder or link to it"
        )
    return {name: Classifier(opened(path, None, config, bases)) for name, path, config in runs}


def good_batch(models: Iterable[Classifier]) -> int:
    """Returns how many rows are best computed together: on a CPU more of them take longer and are not faster."""
    return max(256 if computes_meanwhile(model.loaded.model) else Limits.batch for model in models)


def listening_socket(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on the address; before models are loaded, since a port in use is told at once.

    Raises:
        ConfigError: the address is unknown, in use or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio switches Nagle's algorithm off only where the protocol is named; with it an answer takes 40 ms more.
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)  # two sockets may be bound to a port until one of them listens
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no host name"
        raise ConfigError(
            f"--host and --port: cannot be used (got {show(host)}, {port}: {reason}); choose others"
        ) from error
    return bound


def serve(service: Service, bound: socket.socket, *, ready: Callable[[], None]) -> None:
    """Answers requests until SIGINT or SIGTERM; accepted requests are answered after it, however long that takes.

    A second signal ends the process with 128 and its number.

    Args:
        service: the application.
        bound: from `listening_socket`.
        ready: called when requests are accepted.
    """
    import uvicorn

    config = uvicorn.Config(
        service, http=bounded_protocol(most_connections()), log_config=None, log_level="error", access_log=False,
        server_header=False, timeout_keep_alive=75, timeout_graceful_shutdown=None, backlog=AT_A_TIME, ws="none",
    )  # fmt: skip
    server = uvicorn.Server(config)

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def stop(number: int, frame: Any) -> None:
            # uvicorn would close idle connections at once, and with them a request that is on its way.
            if service.stopping:
                print("interrupted", file=sys.stderr, flush=True)
                os._exit(128 + number)  # Python's own end would wait for the computing thread
            service.stopping = True
            loop.call_soon_threadsafe(loop.call_later, LATE_SECONDS, partial(setattr, server, "should_exit", True))

        server.handle_exit = stop

        async def tell() -> None:
            while not server.started:
                await asyncio.sleep(0.01)
            bound.listen(BACKLOG)  # uvicorn's number is the kernel's too, unless the socket is told again
            ready()

        told = asyncio.create_task(tell())
        await server.serve(sockets=[bound])
        told.cancel()

    gc.collect()
    gc.freeze()  # the loaded models are never garbage, and a collection would go through all their objects
    with warnings.catch_warnings(), asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        warnings.simplefilter("ignore")  # of ties and of texts that were shortened; there is one for each batch
        runner.run(run())
