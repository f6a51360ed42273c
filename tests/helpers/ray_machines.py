"""A Ray cluster of two machines with a CPU each, both of them processes here."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TRIES = 3  # a machine that does not answer within 30 s counts as dead, and processors may be busy with other tests


@contextmanager
def two_machines() -> Iterator[str]:
    """Gives the address of the cluster."""
    from ray.cluster_utils import Cluster

    one: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 10**8}
    handler = signal.getsignal(signal.SIGTERM)  # ray's own, set for each machine, would stay for all later tests
    for left in reversed(range(TRIES)):
        cluster = Cluster()
        try:
            cluster.add_node(**one, include_dashboard=False)
            cluster.add_node(**one)
        except Exception:
            cluster.shutdown()
            if not left:
                raise
        else:
            break
        finally:
            signal.signal(signal.SIGTERM, handler)
    try:
        yield str(cluster.address)
    finally:
        cluster.shutdown()
