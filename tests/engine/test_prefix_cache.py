"""Logits after a cached prefix are those of full sequences, with and without branches, fused layers and a cache."""

import pytest
import torch
from helpers.tiny import backbone
from transformers import PreTrainedModel

from loraft.engine import fused_layer
from loraft.engine.prefix_cache import _tree, logits_after, prefix_cache

PREFIX = list(range(100, 109))
SUFFIXES = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18], [19, 20]]
BRANCHES = [[30, 31], [], [32]]


def sequence_logits(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def test_a_row_is_the_picture_of_suffix_and_branches() -> None:
    tree = _tree([[7, 8, 9]], [[5, 6], [4]], 1)
    assert tree.ids_BS.tolist() == [[7, 8, 9, 0, 0, 5, 6, 4]]
    assert tree.positions_BS.tolist() == [[0, 1, 2, 3, 4, 3, 4, 3]]
    assert tree.kept_BQ.tolist() == [[2, 5, 6, 7]]
    assert tree.visible_BSS[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 1, 0],
        [1, 1, 1, 0, 0, 0, 0, 1],
    ]


def test_rows_are_packed_to_a_bucket_size() -> None:
    tree = _tree(SUFFIXES, BRANCHES, 1)
    assert tree.ids_BS.shape == (3, 16)  # 11 + 3 tokens, rounded up
    # 3 + 11 + 2 tokens and 3 a row of the branches are 25; the first 7 cells of padding make them 32.
    assert tree.computed_BS.int().tolist() == [
        [1] * 10 + [0] * 3 + [1] * 3,
        [1] * 11 + [0] * 2 + [1] * 3,
        [1] * 2 + [0] * 11 + [1] * 3,
    ]


def test_padding_has_no_larger_position_than_the_tokens() -> None:
    assert _tree([[7]], [[5]], 1).positions_BS.tolist() == [[0, 1, 1, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("branches", [BRANCHES, [[]]], ids=["branches", "none"])
def test_logits_are_those_of_full_sequences(
    fused: bool, cached: bool, branches: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backbone()
    if not fused:
        monkeypatch.setattr(fused_layer, "supports", lambda model: False)
    prefix = PREFIX if cached else []
    with torch.no_grad():
        cache = prefix_cache(model, prefix) if cached else None
        logits = logits_after(model, cache, len(prefix), SUFFIXES, branches, 2)
    suffix_logits, branch_logits = logits[:, :2], logits[:, 2:]
    assert suffix_logits.shape[:2] == (3, 2)
    assert branch_logits.shape[:2] == (3, sum(map(len, branches)))
    for row, suffix in enumerate(SUFFIXES):
        ids = [*prefix, *suffix]
        torch.testing.assert_close(suffix_logits[row], sequence_logits(model, ids)[-2:], rtol=1e-4, atol=1e-5)
        start = 0
        for branch in filter(None, branches):
            expected = sequence_logits(model, [*ids, *branch])[len(ids) :]
            torch.testing.assert_close(branch_logits[row, start : start + len(branch)], expected, rtol=1e-4, atol=1e-5)
            start += len(branch)
    assert model(torch.tensor([PREFIX])).logits.shape[1] == len(PREFIX)  # the LM head reads all tokens again


def test_long_rows_and_other_models_run_without_fused_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    compute = fused_layer.FusedLayer.compute
    monkeypatch.setattr(fused_layer.FusedLayer, "compute", lambda *args: computed.append(1) or compute(*args))
    for limit, count in ((16, 2), (15, 0)):  # the rows have 16 cells, the model two layers
        computed.clear()
        monkeypatch.setattr("loraft.engine.prefix_cache.MAX_FUSED_CELLS", limit)
        with torch.no_grad():
            logits_after(backbone(), None, 0, SUFFIXES, BRANCHES, 1)
            logits_after(backbone("qwen3"), None, 0, SUFFIXES, BRANCHES, 1)
        assert len(computed) == count


def test_the_cache_is_that_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone()
    with torch.no_grad():
        found = prefix_cache(model, PREFIX)
        monkeypatch.setattr(fused_layer, "supports", lambda model: False)
        expected = prefix_cache(model, PREFIX)
    assert [tensor.shape for layer in found for tensor in layer] == [
        (2, 9, 8)
    ] * 4  # key-value heads, tokens, head size
    for mine, theirs in zip(found, expected, strict=True):
        for tensor, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(tensor, other, rtol=1e-4, atol=1e-5)
