"""The attention kernels equal their reference, in Triton's interpreter, and compiled where there is a GPU."""

import pytest
import torch
from helpers.kernels import DEVICE, import_triton

from loraft.engine import key_ranges
from loraft.engine.key_ranges import KeyRanges, RangedLayout, query_bounds
from loraft.engine.layout import HeadCounts

import_triton()

from loraft.engine import triton_attention  # noqa: E402

BRANCHED = [30, (9, 3, 4, 5), 25]  # a suffix of 9 tokens with branches of 3, 4 and 5
LONG = [(9, 3, 4, 5), *[15] * 16]


def drawn_ranges(prefix: int, stretches: list, kept: slice) -> tuple[KeyRanges, int]:
    """The ranges of a row's kept queries, and how many keys it has."""
    queries, count = [(own, 0, 0, 0) for own in range(prefix)], prefix
    for stretch in stretches:
        suffix, *branches = stretch if isinstance(stretch, tuple) else (stretch,)
        first, stop = count, count + suffix
        queries += [(own, first, 0, 0) for own in range(first, stop)]
        count = stop
        for branch in branches:
            queries += [(own, count, first, stop) for own in range(count, count + branch)]
            count += branch
    queries_4M = torch.tensor(queries, dtype=torch.int32).T[:, kept].contiguous()
    return KeyRanges(queries_4M, query_bounds(queries_4M, count, prefix), torch.tensor([prefix]).int()), count


def assert_as_the_reference(
    ranges: KeyRanges, keys: int, *, copies: int, heads: HeadCounts, size: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    queries = ranges.queries_4M.shape[1]
    q, grad = (torch.randn(copies * queries, heads[0] * heads[1] * size, device=DEVICE).to(dtype) for _ in range(2))
    k, v = (torch.randn(copies * keys, heads[0] * size, device=DEVICE).to(dtype) for _ in range(2))
    ranges = KeyRanges(*(tensor.to(DEVICE) for tensor in ranges))
    layout = RangedLayout(heads, copies, ranges, torch.zeros(0), ranges)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(key_ranges, "has_kernels", lambda device: False)
        expected, saved = key_ranges.attention(q.float(), k.float(), v.float(), layout, scale=0.2, last=True)
        expected_grads = key_ranges.attention_backward(grad.float(), layout, saved, scale=0.2, last=True)
        patch.setattr(key_ranges, "has_kernels", lambda device: True)
        out, saved = key_ranges.attention(q, k, v, layout, scale=0.2, last=True)
        grads = key_ranges.attention_backward(grad, layout, saved, scale=0.2, last=True)
    for found, right in zip((out, *grads), (expected, *expected_grads), strict=True):
        assert found.dtype == dtype
        assert (found.float() - right).abs().max() <= tolerance * max(1, right.abs().max().item())


@pytest.mark.parametrize(
    ("prefix", "stretches", "kept", "copies", "heads", "size"),
    [
        (10, [13, 27], slice(None), 1, HeadCounts(1, 2), 24),
        (0, [13, 7, 20], slice(None), 2, HeadCounts(2, 1), 16),
        (45, BRANCHED, slice(None), 1, HeadCounts(1, 1), 8),
        (45, BRANCHED, slice(50, 100, 9), 2, HeadCounts(1, 2), 16),
    ],
)
def test_output_and_gradients_are_those_of_the_reference(
    prefix: int, stretches: list, kept: slice, copies: int, heads: HeadCounts, size: int
) -> None:
    ranges, keys = drawn_ranges(prefix, stretches, kept)
    assert_as_the_reference(
        ranges, keys, copies=copies, heads=heads, size=size, dtype=torch.float32, tolerance=5e-6
    )  # fmt: skip


def test_many_queries_are_dealt_out_in_parts_of_all_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_attention, "FEW_QUERIES", 0)  # one program serves both query heads
    ranges, keys = drawn_ranges(20, LONG, slice(None))  # 281 queries in parts of 256
    assert_as_the_reference(
        ranges, keys, copies=1, heads=HeadCounts(1, 2), size=8, dtype=torch.float32, tolerance=5e-6
    )  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3), (torch.float32, 2e-5)])
@pytest.mark.parametrize(("copies", "heads", "size"), [(1, HeadCounts(8, 4), 64), (2, HeadCounts(8, 4), 128)])
@pytest.mark.parametrize("kept", [slice(None), slice(120, None, 11)])
def test_real_sizes(
    dtype: torch.dtype, tolerance: float, copies: int, heads: HeadCounts, size: int, kept: slice
) -> None:
    ranges, keys = drawn_ranges(90, [10 + number * 7 % 36 for number in range(64)], kept)
    assert_as_the_reference(ranges, keys, copies=copies, heads=heads, size=size, dtype=dtype, tolerance=tolerance)


@pytest.mark.gpu
def test_two_runs_give_the_same_bits() -> None:
    ranges, keys = drawn_ranges(90, [10 + number * 7 % 36 for number in range(64)], slice(None))
    ranges = KeyRanges(*(tensor.to(DEVICE) for tensor in ranges))
    q, k, v = (torch.randn(keys, heads * 64, device=DEVICE).bfloat16() for heads in (32, 8, 8))
    results = []
    for _ in range(2):
        out, log_sums = triton_attention.attention(q, k, v, ranges, 1, HeadCounts(8, 4), 0.125)
        saved = [q, k, v, out, log_sums]
        results.append([out, *triton_attention.attention_backward(q, saved, ranges, 1, HeadCounts(8, 4), 0.125)])
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
