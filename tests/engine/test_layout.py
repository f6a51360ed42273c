"""Sizes, index tables and masks of packed rows, compared with loops over tokens and heads."""

import pytest
import torch
from helpers.packed_attention import HEADS, INDEX_BS, PREFIX, ROWS, SIZE, TOKENS, example_layout
from helpers.training import with_adapter
from hypothesis import given
from hypothesis import strategies as st

from loraft.engine.layout import (
    bucket_size,
    common_prefix,
    head_counts,
    padded_sizes,
    prefix_layout,
    unwrap,
)


@pytest.mark.parametrize(
    ("count", "size"),  # multiples of 8, above 128 of 16, above 256 of 32
    [(0, 0), (1, 8), (8, 8), (9, 16), (121, 128), (128, 128), (129, 144), (256, 256), (257, 288), (600, 608)],
)
def test_sizes_are_rounded_up_to_few_ones(count: int, size: int) -> None:
    assert bucket_size(count) == size


@given(st.lists(st.integers(1, 300), min_size=1, max_size=70), st.integers(0, 200))
def test_extra_tokens_fill_the_row_up_and_fit_into_the_padding(lengths: list[int], prefix: int) -> None:
    longest, extra = padded_sizes(lengths, prefix)
    assert longest == bucket_size(max(lengths))
    total, most = prefix + sum(lengths) + extra, prefix + longest * len(lengths)
    assert total == min(bucket_size(prefix + sum(lengths)), most)


@pytest.mark.parametrize("table", ["queries", "keys", "last_queries"])
def test_every_head_vector_comes_to_the_slot_of_its_token_and_back(table: str) -> None:
    found = getattr(example_layout(), table)
    groups = 1 if table == "keys" else HEADS.groups
    # The last layer's queries are those of the three kept tokens alone, numbered in their order.
    tokens, prefix, grid = (3, 0, [[0, 1], [2, -1]]) if table == "last_queries" else (TOKENS, PREFIX, INDEX_BS.tolist())
    x_ATCGD = torch.randn(ROWS, tokens, HEADS.kv_heads, groups, SIZE)
    x_NF = x_ATCGD.view(ROWS * tokens, -1)
    head, suffixes = found.to_slots(x_NF, SIZE)
    head_ACGPD = head.view(ROWS, HEADS.kv_heads, groups, prefix, SIZE)
    suffixes_ACBGSD = suffixes.view(ROWS, HEADS.kv_heads, len(grid), groups, -1, SIZE)
    zeroed_ACBGSD = found.to_zeroed_slots(x_NF, SIZE)[1].view_as(suffixes_ACBGSD)
    assert torch.equal(found.to_zeroed_slots(x_NF, SIZE)[0], head)
    assert torch.equal(head_ACGPD, x_ATCGD[:, :prefix].permute(0, 2, 3, 1, 4))
    for b, cells in enumerate(grid):
        for s, token in enumerate(cells):
            expected = x_ATCGD[:, token] if token >= 0 else torch.zeros_like(x_ATCGD[:, 0])
            assert torch.equal(zeroed_ACBGSD[:, :, b, :, s], expected)
            assert token < 0 or torch.equal(suffixes_ACBGSD[:, :, b, :, s], expected)
    assert torch.equal(found.to_tokens([head, suffixes] if prefix else [suffixes], x_NF.shape[1]), x_NF)


def test_biases_are_minus_infinity_where_a_token_is_not_seen() -> None:
    made = example_layout(torch.bfloat16)
    assert made.sizes == (ROWS, HEADS.kv_heads, HEADS.groups, 2)
    causal = torch.full((5, 5), float("-inf"), dtype=torch.bfloat16).triu(1)
    each = ROWS * HEADS.kv_heads * 2
    assert torch.equal(made.prefix_bias, causal[:PREFIX, :PREFIX].repeat(HEADS.groups, 1)[None])
    assert torch.equal(made.suffix_bias, causal.repeat(HEADS.groups, 1).expand(each, -1, -1))
    last = made.last_bias.view(-1, 2, HEADS.groups, 2, 5)
    assert torch.equal(last[:, 0], causal[[1, 3]].expand(each // 2, HEADS.groups, -1, -1))
    assert torch.equal(last[:, 1, :, 0], causal[0].expand(each // 2, HEADS.groups, -1))


def test_the_kept_tokens_are_those_that_the_head_reads_in_every_row() -> None:
    assert example_layout().kept.tolist() == [4, 6, 7, TOKENS + 4, TOKENS + 6, TOKENS + 7]


def test_a_prefix_without_suffixes_keeps_its_last_token() -> None:
    made = prefix_layout(PREFIX, HEADS, torch.device("cpu"))
    assert (made.sizes, made.kept.tolist(), made.record) == ((1, 2, 3, 0), [PREFIX - 1], [])
    assert (made.queries.prefix_slots, made.keys.prefix_slots) == (PREFIX * 6, PREFIX * 2)
    assert len(made.queries.source_index) == PREFIX * 6


def test_wrappers_are_taken_off_a_model() -> None:
    model = with_adapter()
    assert unwrap(torch.nn.DataParallel(model)) is unwrap(model) is model.get_base_model()
    assert head_counts(model) == (2, 2)  # 4 query heads over 2 key-value heads


@given(st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=4))
def test_the_common_prefix_is_that_of_brute_force(rows: list[list[int]]) -> None:
    expected = 0
    while rows and all(len(row) > expected for row in rows) and len({row[expected] for row in rows}) == 1:
        expected += 1
    assert common_prefix(rows) == expected
