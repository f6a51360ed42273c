"""What the driver does without a cluster: it waits, and says so."""

import sys
from types import SimpleNamespace

import pytest

from loraft.delivery import ray_predict


def test_a_busy_cluster_is_waited_for_and_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [{"CPU": 0.5}, {}, {"CPU": 2.0, "GPU": 0.2}, {"CPU": 1.0, "GPU": 0.5}]
    ray = SimpleNamespace(available_resources=lambda: free.pop(0) if len(free) > 1 else free[0])
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray_predict, "PATIENCE", 0.0)
    monkeypatch.setattr(ray_predict, "POLL", 0.0)
    said: list[str] = []
    ray_predict._wait_for({"CPU": 1.0, "GPU": 0.5}, said.append)
    assert said == ["waiting for a worker: nothing in the cluster has 1 CPU and 0.5 GPU to spare"]
    assert len(free) == 1
