"""How many workers a cluster holds, and clusters one after the other in one process."""

import os
from collections.abc import Mapping

import pytest
from helpers.ray_machines import two_machines

from loraft import ray_cluster
from loraft.errors import LoraftError
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


def test_whether_ray_asks_for_a_token_is_read_for_each_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a cluster that did not start: ray has then changed the environment already."""
    raylet = pytest.importorskip("ray._raylet")
    seen: list[bool] = []

    def refuses(address: str, what: str) -> None:
        seen.append(raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN)
        os.environ["RAY_AUTH_MODE"] = "token"
        raise LoraftError("bận")

    monkeypatch.setattr(ray_cluster, "_connect", refuses)
    for mode in (None, "token", None, "disabled", "token"):
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        if mode is not None:
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
        with pytest.raises(LoraftError, match="bận"), connected("máy:1", "loraft sweep", str):
            pass
        assert os.environ.get("RAY_AUTH_MODE") == (mode and "token")
    assert seen == [False, True, False, False, True]


@pytest.mark.integration
def test_after_a_cluster_that_ray_started_one_without_a_token_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    told: list[str] = []
    with connected(None, "loraft predict", told.append):
        pass
    assert "RAY_AUTH_MODE" not in os.environ
    with two_machines() as address, connected(address, "loraft predict", told.append):
        answer = ray.remote(type("Người", (), {"answer": lambda self: "dạ"})).remote().answer.remote()
        assert ray.get(answer, timeout=60) == "dạ"
    assert [line.split(",")[0] for line in told] == ["ray: 1 node", "ray: 2 nodes"]
