"""How many workers a cluster holds, and with what a driver connects to it."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from loraft.ray_cluster import connected, workers_of


@pytest.mark.parametrize(
    ("nodes", "needed", "workers"),
    [
        ([{"CPU": 4.0}, {"CPU": 3.0}], {"CPU": 2.0, "GPU": 0.0}, 3),
        ([{"CPU": 4.0}], {"CPU": 0.5, "GPU": 0.0}, 8),
        ([{"CPU": 64.0, "GPU": 2.0}], {"CPU": 1.0, "GPU": 1.0}, 2),
        ([{"CPU": 64.0, "GPU": 2.0}], {"CPU": 1.0, "GPU": 0.25}, 8),
        ([{"CPU": 64.0, "GPU": 2.0}], {"CPU": 1.0, "GPU": 0.1}, 20),
        ([{"CPU": 64.0, "GPU": 2.0}], {"CPU": 1.0, "GPU": 0.6}, 2),  # not 3: what is left of two cards is no card
        ([{"CPU": 3.0, "GPU": 8.0}, {"CPU": 16.0}], {"CPU": 1.0, "GPU": 1.0}, 3),
        ([{"CPU": 64.0, "GPU": 8.0}, {"CPU": 64.0, "GPU": 3.0}], {"CPU": 1.0, "GPU": 2.0}, 5),
        ([{"CPU": 8.0}], {"CPU": 1.0, "GPU": 1.0}, 0),
        ([{"CPU": 1.0}, {"CPU": 1.0}], {"CPU": 2.0, "GPU": 0.0}, 0),
    ],
)
def test_workers_fit_into_machines_and_not_between_them(
    nodes: list[Mapping[str, float]], needed: Mapping[str, float], workers: int
) -> None:
    assert workers_of(nodes, needed) == workers


@pytest.mark.parametrize(
    ("token", "given", "mode"), [(True, None, "token"), (True, "disabled", "disabled"), (False, None, None)]
)
def test_a_driver_has_the_token_that_ray_start_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: bool, given: str | None, mode: str | None
) -> None:
    ray = SimpleNamespace(is_initialized=lambda: True, cluster_resources=lambda: {"CPU": 2.0}, nodes=list)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_AUTO_CONNECT", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("RAY_AUTH_MODE", given or "")
    if given is None:
        monkeypatch.delenv("RAY_AUTH_MODE")
    if token:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("khoá", encoding="utf-8")
    with connected(None, "loraft sweep --engine ray", lambda line: None):
        assert os.environ.get("RAY_AUTH_MODE") == mode
