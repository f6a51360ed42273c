"""Shared-prefix attention equals a dense masked softmax, and models that use it the padded batch."""

from typing import Any

import pytest
import torch
from helpers.packed_attention import HEADS, INDEX_BS, ROWS, SIZE, TOKENS, dense_attention, drawn_qkv
from helpers.tiny import CONFIGS, SMALL, backbone
from helpers.tiny import HEADS as HEAD_COUNTS
from helpers.training import assert_same, rows, with_adapter
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig

from loraft.engine.prefix_attention import NAME, attend, enabled, supports

SLOTS = torch.tensor([0, 1, 2, 3, 5, 6])  # of the 6 suffix tokens in the flattened grid of 2 x 5 cells


def heads_first() -> list[torch.Tensor]:
    """The queries, keys and values of the example, (A, H, T, D) each."""
    return [tensor.detach().view(ROWS, TOKENS, -1, SIZE).transpose(1, 2) for tensor in drawn_qkv()]


def attended(**kwargs: Any) -> torch.Tensor:
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = HEADS.groups, True
    return attend(module, *heads_first(), None, **kwargs)[0]


@pytest.mark.parametrize("scaling", [None, 0.7])
def test_attention_is_that_of_a_dense_softmax(scaling: float | None) -> None:
    found = attended(suffix_index=INDEX_BS.clamp(min=0), suffix_slot=SLOTS, scaling=scaling)
    assert found.shape == (ROWS, TOKENS, HEADS.kv_heads * HEADS.groups, SIZE)
    expected = dense_attention(*(tensor.detach() for tensor in drawn_qkv()), scaling or SIZE**-0.5)
    torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=1e-6, atol=1e-6)  # its softmax is in fp32


def test_dropout_drops_attention_weights() -> None:
    assert not attended(suffix_index=INDEX_BS.clamp(min=0), suffix_slot=SLOTS, dropout=1.0).any()


def test_without_tables_it_is_plain_causal_attention() -> None:
    query, key, value = heads_first()
    key, value = (tensor.repeat_interleave(HEADS.groups, 1) for tensor in (key, value))
    expected = scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)
    torch.testing.assert_close(attended(), expected)


def test_the_common_architectures_take_the_fast_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "eager llama", LlamaConfig(**SMALL, **HEAD_COUNTS, attn_implementation="eager"))
    assert [name for name in CONFIGS if supports(backbone(name))] == ["llama", "qwen2", "qwen3", "gpt_neox"]


@pytest.mark.parametrize("architecture", ["qwen3", "gpt_neox"])  # for llama and qwen2 see test_fused_layer
def test_loss_and_all_gradients_equal_the_padded_batch(architecture: str) -> None:
    assert_same(with_adapter(architecture), rows())


def test_a_model_gets_its_own_attention_back() -> None:
    model = backbone()
    with pytest.raises(ZeroDivisionError), enabled(model):
        assert model.config._attn_implementation == NAME
        assert supports(model)
        raise ZeroDivisionError
    assert model.config._attn_implementation == "sdpa"
