"""The connection to a Ray cluster: one that runs already, or one on this machine for the time of a command."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout

from loraft.errors import LoraftError, first_line

AUTH_MODE = "RAY_AUTH_MODE"  # "token" where ray asks for one, which ~/.ray/auth_token holds
SECONDS = 20.0  # until an address counts as dead
POLL = 0.2  # seconds between two looks at the cluster
PATIENCE = 30.0  # seconds without any worker until the user is told that the cluster is busy


@contextmanager
def connected(address: str | None, what: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Inside the block, this process is the driver of a Ray cluster.

    A connection that the process has already is used, and left open, where no address is given.

    Args:
        address: of a running cluster, as `ray.init` takes it; None: that of the environment variable RAY_ADDRESS, else
            a cluster is started on this machine and ended with the block.
        what: the command that needs it, for messages.
        tell: called with each line for the user.

    Raises:
        LoraftError: ray is not installed, no cluster answers at the address, or it runs other versions.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster started here reports nothing to anybody
    # A thread that ray leaves behind would connect by itself to any cluster that it finds.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # or ray would print a warning about it
    try:
        import ray
    except ImportError as error:
        raise LoraftError(f"{what}: needs ray (got {error}); pip install 'loraft[ray]'") from error
    ours = address is not None or not ray.is_initialized()
    with _tokens_as_asked() if ours else nullcontext():
        if ours:
            _connect(address or os.environ.get("RAY_ADDRESS") or "local", what)
        try:
            resources = ray.cluster_resources()
            nodes = sum(node["Alive"] for node in ray.nodes())
            tell(f"ray: {nodes} {'node' if nodes == 1 else 'nodes'}, {resources.get('CPU', 0):g} CPUs,"
                 f" {resources.get('GPU', 0):g} GPUs")  # fmt: skip
            yield
        finally:
            if ours:
                ray.shutdown()


@contextmanager
def _tokens_as_asked() -> Iterator[None]:
    """Inside the block, Ray asks for a token as the environment says; after it, as before.

    Ray reads the environment once in a process, and changes it where it starts a cluster: this process would then
    refuse the answers of the machines of a later cluster, one without a token.
    """
    asked = os.environ.get(AUTH_MODE)
    _read_mode()
    try:
        yield
    finally:
        if asked is None:
            os.environ.pop(AUTH_MODE, None)
        _read_mode()


def _read_mode() -> None:
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")  # ray has no public way
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def quiet(*, verbose: bool) -> Iterator[None]:
    """Keeps from stdout what Ray's threads print there: that a worker has died, which is told in other words."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(sys.stdout if verbose else nowhere):
        yield


def _connect(address: str, what: str) -> None:
    """Makes this process the driver of the cluster; "local" starts one here."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address == "local":
            _init(address)
        else:
            _in_time(address)
    except Exception as error:  # ray raises ConnectionError, ValueError, RuntimeError and its own
        if "Version mismatch" in str(error):
            told = " ".join(str(error).split())
            raise LoraftError(f"{what}: the cluster runs other versions (got {told}); install the same here") from error
        if address == "local":
            raise LoraftError(
                f"{what}: no Ray cluster starts on this machine (got {first_line(error)}); run the command again when"
                " the machine is less busy, or name a running cluster with --address"
            ) from error
        raise LoraftError(
            f"{what}: no Ray cluster answers at {address} (got {first_line(error)}); give the address that `ray start"
            " --head` printed, with RAY_AUTH_MODE=token where ~/.ray/auth_token is there, or leave it out and start one"
            " here"
        ) from error
    finally:
        if in_main_thread:  # ray's own handler would end the process before anything is put in order
            signal.signal(signal.SIGTERM, handler)


def _init(address: str) -> None:
    import ray

    dashboard = False if address == "local" else None
    ray.init(address=address, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)


def _in_time(address: str) -> None:
    """Connects to a running cluster within `SECONDS`; ray would try for minutes where another server listens.

    Raises:
        OSError: nothing listens there, or no cluster has answered in time.
    """
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS).close()
    raised: list[Exception] = []

    def init() -> None:
        try:
            _init(address)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=init, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {SECONDS:.0f} s")
    if raised:
        raise raised[0]


def machines() -> list[dict[str, float]]:
    """The resources of each machine of the connected cluster that is there."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def workers_of(nodes: Sequence[Mapping[str, float]], needed: Mapping[str, float]) -> int:
    """How many workers of these needs fit into the machines of a cluster at the same time; 0 where none does.

    Args:
        nodes: the resources of each machine, such as CPU and GPU.
        needed: of each worker. Parts of a GPU are of one: they are never put together from several.
    """
    fitting = 0
    for node in nodes:
        each = [node.get("CPU", 0.0) / needed["CPU"]]
        if part := needed.get("GPU", 0.0):
            gpus = node.get("GPU", 0.0)
            each.append(gpus // 1 * int(1 / part + 1e-9) if part <= 1 else gpus // part)
        fitting += int(round(min(each), 6))
    return fitting


def in_words(needed: Mapping[str, float]) -> str:
    """What a worker needs, as `1 CPU and 0.5 GPU`."""
    return " and ".join(f"{count:g} {kind}{'s' * (count > 1)}" for kind, count in needed.items() if count)


def busy(needed: Mapping[str, float]) -> str:
    """The line for a user who has waited for `PATIENCE` seconds: Ray waits without a word."""
    return f"waiting for a worker: nothing in the cluster has {in_words(needed)} to spare"
