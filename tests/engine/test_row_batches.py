"""Batches hold every row within their bound; a common prefix is cached where it is long enough."""

from typing import Any

import pytest
from helpers.tiny import backbone
from hypothesis import given
from hypothesis import strategies as st

from loraft.engine import row_batches
from loraft.engine.row_batches import cut_batches
from loraft.engine.scorer import score


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(60, 700))
def test_batches_hold_every_row_in_order_within_the_bound(lengths: list[int], most: int) -> None:
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches = cut_batches(order, lengths, most)
    assert [i for batch in batches for i in batch] == order
    assert all(len(batch) * max(lengths[i] for i in batch) <= most for batch in batches)
    assert all(len(batch) < 8 or len(batch) % 8 == 0 for batch in batches[:-1])


def test_a_batch_may_reach_the_bound() -> None:
    assert cut_batches([0, 1, 2], [10, 10, 10], 20) == [[0, 1], [2]]
    assert cut_batches([0, 1], [10, 30], 20) == [[0], [1]]  # a row of its own may be longer


def test_batches_and_the_cached_prefix_are_chosen_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    cached: list[int] = []
    batches: list[list[int]] = []
    own_cache, own_logits = row_batches.prefix_cache, row_batches.logits_after

    def recorded_cache(model: Any, ids: list[int]) -> Any:
        cached.append(len(ids))
        return own_cache(model, ids)

    def recorded_logits(model: Any, cache: Any, prefix: int, suffixes: list[list[int]], *args: Any) -> Any:
        batches.append([len(suffix) for suffix in suffixes])
        return own_logits(model, cache, prefix, suffixes, *args)

    monkeypatch.setattr(row_batches, "prefix_cache", recorded_cache)
    monkeypatch.setattr(row_batches, "logits_after", recorded_logits)
    model = backbone()

    def rows(prefix: int, *lengths: int) -> list[list[int]]:
        """Rows of one first part and of different tokens after it."""
        return [[*range(prefix), *[100 + n] * length] for n, length in enumerate(lengths)]

    def called(ids: list[list[int]], batch_tokens: int | None = None) -> tuple[list[int], list[list[int]]]:
        cached.clear()
        batches.clear()
        score(model, ids, [[5, 4], [6, 4]], batch_tokens=batch_tokens)
        return list(cached), list(batches)

    assert called(rows(row_batches.MIN_PREFIX, 1, 1)) == ([row_batches.MIN_PREFIX], [[1, 1]])
    assert called(rows(row_batches.MIN_PREFIX - 1, 1, 1)) == ([], [[row_batches.MIN_PREFIX, row_batches.MIN_PREFIX]])
    assert called(rows(20, 3)) == ([], [[23]])  # of one row
    assert called(rows(20, 60, 5, 4, 3, 2, 1), 72)[1] == [[1, 2, 3, 4, 5], [60]]  # 8 cells a row, and 64
    on_cpu = [len(batch) for batch in called(rows(20, *[60] * 30))[1]]
    assert on_cpu == [row_batches.CPU_TOKENS // 64, 30 - row_batches.CPU_TOKENS // 64]  # 24 rows of 64 cells
