"""The parts of a fused layer equal plain formulas, and their gradients those of autograd."""

from dataclasses import replace

import pytest
import torch
from helpers.packed_attention import HEADS, KEPT, PREFIX, ROWS, SIZE, TOKENS, dense_attention, drawn_qkv, example_layout
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from loraft.engine.fused_operations import attention, attention_backward, rms_norm, rms_norm_backward, rotate
from loraft.engine.layout import PackedSuffixes, packed_layout, prefix_layout

SCALE = 0.7


def test_the_norm_and_its_gradient_are_those_of_transformers() -> None:
    torch.manual_seed(0)
    norm = LlamaRMSNorm(8, eps=0.3)  # large, so that it counts
    torch.nn.init.normal_(norm.weight)
    x_NH, grad_NH = torch.randn(5, 8, requires_grad=True), torch.randn(5, 8)
    expected = norm(x_NH)
    expected.backward(grad_NH)
    part_NH = torch.randn(5, 8)
    for residual_NH in (None, part_NH):
        x = x_NH.detach() - (0 if residual_NH is None else residual_NH)
        out_NH, total_NH, saved = rms_norm(x.clone(), norm, residual_NH)
        torch.testing.assert_close(total_NH, x_NH.detach())
        torch.testing.assert_close(out_NH, expected.detach())
        found_NH = rms_norm_backward(grad_NH, saved, norm, residual_NH)
        torch.testing.assert_close(found_NH, x_NH.grad + (0 if residual_NH is None else residual_NH))


def test_the_rotation_and_its_gradient_are_those_of_transformers() -> None:
    torch.manual_seed(0)
    x_TF, grad_TF = torch.randn(5, 2 * 6, requires_grad=True), torch.randn(5, 2 * 6)
    angles_TD = torch.randn(5, 3).repeat(1, 2)
    cos_1TD, sin_1TD = angles_TD.cos()[None], angles_TD.sin()[None]
    x_1hTD = x_TF.view(1, 5, 2, 6).transpose(1, 2)
    expected = apply_rotary_pos_emb(x_1hTD, x_1hTD, cos_1TD, sin_1TD)[0].transpose(1, 2).reshape(5, 12)
    expected.backward(grad_TF)
    tables = cos_1TD[0][:, None], sin_1TD[0][:, None]
    some, of_some = [4, 2], [table[[4, 2]] for table in tables]
    for sign, given, right in ((1, x_TF.detach(), expected.detach()), (-1, grad_TF, x_TF.grad)):
        # queries are some of the tokens, keys are those of two copies of the row
        queries, keys = rotate(given[some], given.repeat(2, 1), of_some, tables, sign)
        torch.testing.assert_close(queries, right[some])
        torch.testing.assert_close(keys, right.repeat(2, 1))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("whole_row", [False, True])
def test_attention_and_its_gradients_are_those_of_a_dense_softmax(last: bool, whole_row: bool) -> None:
    q_NF, k_NF, v_NF = drawn_qkv()
    kept = [row * TOKENS + token for row in range(ROWS) for token in KEPT] if last else list(range(ROWS * TOKENS))
    expected_KF = dense_attention(q_NF, k_NF, v_NF, SCALE)[kept]
    grad_KF = torch.randn_like(expected_KF)
    d_q, d_k, d_v = torch.autograd.grad(expected_KF, (q_NF, k_NF, v_NF), grad_KF)
    layout = example_layout(whole_row=whole_row)
    with torch.no_grad():
        out_KF, saved = attention(q_NF[kept], k_NF, v_NF, layout, layer_index=0, scale=SCALE, last=last)
        found = attention_backward(grad_KF, layout, saved, scale=SCALE, last=last)
    torch.testing.assert_close(out_KF, expected_KF.detach())
    for gradient, expected in zip(found, (d_q[kept], d_k, d_v), strict=True):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("last", [False, True])
def test_a_recorded_prefix_serves_as_if_it_stood_in_the_row(last: bool) -> None:
    q_NF, k_NF, v_NF = (tensor.detach()[:TOKENS] for tensor in drawn_qkv())
    expected_NF = dense_attention(*(t.repeat(ROWS, 1) for t in (q_NF, k_NF, v_NF)), SCALE)[:TOKENS]
    prefix = prefix_layout(PREFIX, HEADS, q_NF.device)
    made, _ = attention(q_NF[:PREFIX], k_NF[:PREFIX], v_NF[:PREFIX], prefix, layer_index=0, scale=SCALE, last=False)
    torch.testing.assert_close(made, expected_NF[:PREFIX])
    assert [tensor.shape for tensor in prefix.record[0]] == [(HEADS.kv_heads, PREFIX, SIZE)] * 2

    index_BS = torch.tensor([[0, 1, 2, 3, -1], [4, 5, -1, -1, -1]])  # the 6 tokens behind the prefix
    visible_BSS = torch.ones(2, 5, 5, dtype=torch.bool).tril()
    suffixes = PackedSuffixes(index_BS, visible_BSS, torch.tensor([[1, 3], [0, -1]]), 0)
    layout = packed_layout(suffixes, rows=1, tokens=6, heads=HEADS, dtype=torch.float64)
    other = tuple(torch.zeros_like(tensor) for tensor in prefix.record[0])
    layout = replace(layout, cache=[other, prefix.record[0]])
    kept = [token - PREFIX for token in KEPT] if last else list(range(6))
    q_KF, k_SF, v_SF = q_NF[PREFIX:][kept], k_NF[PREFIX:], v_NF[PREFIX:]
    out_KF, _ = attention(q_KF, k_SF, v_SF, layout, layer_index=1, scale=SCALE, last=last)
    torch.testing.assert_close(out_KF, expected_NF[PREFIX:][kept])


def test_the_last_layer_of_a_recorded_prefix_computes_no_attention() -> None:
    q_NF, k_NF, v_NF = (tensor.detach()[:PREFIX] for tensor in drawn_qkv())
    prefix = prefix_layout(PREFIX, HEADS, q_NF.device)
    made, saved = attention(q_NF[-1:], k_NF, v_NF, prefix, layer_index=0, scale=SCALE, last=True)
    assert made.shape == (1, q_NF.shape[1])
    assert not saved
    torch.testing.assert_close(prefix.record[0][1].transpose(0, 1).flatten(1), v_NF)
