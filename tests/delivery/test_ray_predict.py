"""What the driver does without a cluster: it waits, and says so; it sums up what the parts say."""

import sys
from types import SimpleNamespace
from typing import Any, cast

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


def test_what_many_parts_say_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [[(True, f"{n} of 1,000 rows are cut (số {n})"), (False, f"một {n}.5 từ")] for n in (1, 20, 300)]
    answers = ({"told": one, "failed": "hỏng", "path": "câu.csv"} for one in told)
    monkeypatch.setattr(ray_predict, "_answers", lambda *_: answers)
    failed: dict[str, str] = {}
    said: list[str] = []
    nothing = cast(Any, None)
    with pytest.warns(UserWarning, match="một 1.5 từ") as seen:
        ray_predict._predict(nothing, [], nothing, failed, (1, 0.0), nothing, said.append)
    assert [str(one.message) for one in seen] == [
        "một 1.5 từ",
        "1 of 1,000 rows are cut (số 1) (in one part; 2 more say so)",
    ]
    assert (said, failed) == (["hỏng"], {"câu.csv": "hỏng"})
