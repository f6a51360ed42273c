"""Attention by ranges of keys: against softmax over a mask that is written out, and autograd."""

import pytest
import torch

from loraft.engine.key_ranges import KeyRanges, RangedLayout, attention, attention_backward, query_bounds, visible
from loraft.engine.layout import HeadCounts

# The row in the picture of `key_ranges`: p p p | s s | x y | z, and behind it a suffix t without branches.
OWN = [0, 1, 2, 3, 4, 5, 6, 7, 8]
BEGIN = [0, 0, 0, 3, 3, 5, 5, 7, 8]
FIRST = [0, 0, 0, 0, 0, 3, 3, 3, 0]
STOP = [0, 0, 0, 0, 0, 5, 5, 5, 0]
SEEN = [
    "1........",
    "11.......",
    "111......",
    "1111.....",
    "11111....",
    "111111...",
    "1111111..",
    "11111..1.",
    "111.....1",
]


def ranges_of(chosen: list[int]) -> KeyRanges:
    """The ranges of some of the row's queries."""
    queries_4M = torch.tensor([OWN, BEGIN, FIRST, STOP], dtype=torch.int32)[:, chosen]
    return KeyRanges(queries_4M, query_bounds(queries_4M, 9, 3), torch.tensor([3], dtype=torch.int32))


def test_the_mask_is_that_of_the_picture() -> None:
    expected = torch.tensor([[cell == "1" for cell in line] for line in SEEN])
    assert visible(ranges_of(list(range(9)))).tolist() == expected.tolist()


@pytest.mark.parametrize("chosen", [list(range(9)), [4, 6, 7, 8]])
def test_all_queries_that_see_a_key_lie_within_its_bounds(chosen: list[int]) -> None:
    ranges = ranges_of(chosen)
    low, high = ranges.keys_2L.tolist()
    for query, key in visible(ranges).nonzero().tolist():
        assert low[key] <= query < high[key]
    assert high[5] - low[5] <= 3  # no query of the next stretch: bounds are tight enough to skip blocks


@pytest.mark.parametrize("chosen", [list(range(9)), [4, 6, 7, 8]])
def test_attention_and_its_gradient_equal_softmax_and_autograd(chosen: list[int]) -> None:
    torch.manual_seed(0)
    copies, heads, size, count = 2, HeadCounts(2, 3), 4, len(chosen)
    ranges = ranges_of(chosen)
    layout = RangedLayout(heads, copies, ranges_of(list(range(9))), torch.zeros(0), ranges)
    queries = torch.randn(copies * count, 6 * size, dtype=torch.float64, requires_grad=True)
    keys, values = (torch.randn(copies * 9, 2 * size, dtype=torch.float64, requires_grad=True) for _ in range(2))
    seen = torch.tensor([[cell == "1" for cell in SEEN[number]] for number in chosen])
    outputs = []
    for copy in range(copies):  # head by head, written out
        q, k, v = (t[copy * n : (copy + 1) * n] for t, n in ((queries, count), (keys, 9), (values, 9)))
        for head in range(6):
            own, kv = slice(head * size, (head + 1) * size), slice(head // 3 * size, (head // 3 + 1) * size)
            logits = (0.3 * q[:, own] @ k[:, kv].T).masked_fill(~seen, float("-inf"))
            outputs.append(logits.softmax(-1) @ v[:, kv])
    expected = torch.cat([torch.cat(outputs[copy * 6 : copy * 6 + 6], 1) for copy in range(copies)])
    grad = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, (queries, keys, values), grad)
    with torch.no_grad():
        out, saved = attention(queries, keys, values, layout, scale=0.3, last=True)
        grads = attention_backward(grad, layout, saved, scale=0.3, last=True)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)  # the softmax is in fp32
    for found, right in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(found, right, atol=1e-6, rtol=0)
