"""How many workers a cluster holds."""

from collections.abc import Mapping

import pytest

from loraft.ray_cluster import workers_of


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
