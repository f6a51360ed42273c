"""The connection to a Ray cluster: one that runs already, or one on this machine for the time of a command."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loraft.errors import LoraftError, first_line


@contextmanager
def connected(address: str | None, what: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Inside the block, this process is the driver of a Ray cluster.

    Args:
        address: of a running cluster, as `ray.init` takes it; None: that of the environment variable RAY_ADDRESS, else
            a cluster is started on this machine and ended with the block.
        what: the command that needs it, for messages.
        tell: called with each line for the user.

    Raises:
        LoraftError: ray is not installed, or no cluster answers at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise LoraftError(f"{what}: needs ray (got {error}); pip install 'loraft[ray]'") from error
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        ray.init(address=wanted, include_dashboard=False if wanted == "local" else None, log_to_driver=False)
    except Exception as error:  # ray raises ConnectionError, ValueError, RuntimeError and its own
        raise LoraftError(
            f"{what}: no Ray cluster answers at {wanted} (got {first_line(error)}); give the address that `ray start"
            " --head` printed, or leave it out to start one on this machine"
        ) from error
    try:
        resources = ray.cluster_resources()
        nodes = sum(node["Alive"] for node in ray.nodes())
        tell(f"ray: {nodes} {'node' if nodes == 1 else 'nodes'}, {resources.get('CPU', 0):g} CPUs,"
             f" {resources.get('GPU', 0):g} GPUs")  # fmt: skip
        yield
    finally:
        ray.shutdown()
