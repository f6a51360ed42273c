"""Scores by ranges of keys are those of plain passes; nothing on the way asks the device for a value."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from helpers.plain_scoring import score_plainly
from helpers.tiny import awaken, backbone, encoder, prompts
from peft import PeftModel

from loraft.config.schema import LoraSection
from loraft.engine import lm_head, lora_linear, prefix_cache, ranged_rows, scorer
from loraft.engine.decoding import greedy
from loraft.engine.key_ranges import KeyRanges, query_bounds, visible
from loraft.engine.lm_head import split_product
from loraft.engine.ranged_rows import cells_of
from loraft.engine.row_batches import KeptPrefix, _even_batches
from loraft.models.adapter import add_adapters

# Answers that share first tokens, differ in length, and one that is the beginning of another; 4 ends a turn.
NESTED = [[5, 6, 7, 4], [5, 6, 8, 9, 4], [5, 6, 8, 9, 10, 4], [5, 7, 4]]
PREFIX = list(range(100, 120))
UNEVEN = [[*PREFIX, *range(300, 301)], [*PREFIX, *range(310, 400)], [*PREFIX, *range(410, 415)], [*PREFIX, 301]]
ROWS = {"sentences": prompts(), "no prefix": [row[-5:] for row in UNEVEN], "uneven": UNEVEN, "one": UNEVEN[1:2]}


@pytest.fixture
def ranged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Scores by ranges on the CPU, and holds the number of rows of each batch."""
    sizes: list[int] = []
    own = ranged_rows.cells_of

    def counted(suffixes: Any, branches: Any, *args: Any) -> Any:
        sizes.append(len(suffixes))
        return own(suffixes, branches, *args)

    monkeypatch.setattr(ranged_rows, "suits", lambda model: True)
    monkeypatch.setattr(ranged_rows, "cells_of", counted)
    monkeypatch.setattr(prefix_cache, "logits_after", None)
    return sizes


def test_a_packed_row_is_the_picture() -> None:
    cells = cells_of([[7, 8, 9], [3, 2]], [[5, 6], [4]], 1, 20)
    assert cells.ids_T.tolist() == [7, 8, 9, 5, 6, 4, 3, 2, 5, 6, 4, 0, 0, 0, 0, 0]
    assert (cells.positions_T - 20).tolist()[:11] == [0, 1, 2, 3, 4, 3, 0, 1, 2, 3, 2]
    assert cells.positions_T[11:].tolist() == [0] * 5  # padding must have no larger position than the tokens
    own, begin, first, stop = (cells.queries_4T - 20)[:, :11].tolist()
    assert own == list(range(11))
    assert begin == [0, 0, 0, 3, 3, 5, 6, 6, 8, 8, 10]
    assert list(zip(first, stop, strict=True)) == [
        *[(-20, -20)] * 3, *[(0, 3)] * 3, *[(-20, -20)] * 2, *[(6, 8)] * 3
    ]  # fmt: skip
    assert cells.kept_K.tolist() == [2, 3, 4, 5, 7, 8, 9, 10]
    ranges = KeyRanges(torch.from_numpy(cells.queries_4T), torch.zeros(2, 36), torch.tensor([20]))
    lines = ["".join(".1"[int(seen)] for seen in line) for line in visible(ranges)[:, 18:31].tolist()]
    assert lines[:11] == [
        "111..........",
        "1111.........",
        "11111........",
        "111111.......",
        "1111111......",
        "11111..1.....",
        "11......1....",
        "11......11...",
        "11......111..",
        "11......1111.",
        "11......11..1",
    ]
    low, high = query_bounds(torch.from_numpy(cells.queries_4T), 36, 20).tolist()
    assert all(low[key] <= query < high[key] for query, key in visible(ranges).nonzero().tolist())


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("batch_tokens", [None, 60])
@pytest.mark.parametrize("completions", ["single", "nested"])
def test_scores_equal_full_sequences(
    rows: str, batch_tokens: int | None, completions: str, ranged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = backbone(), ROWS[rows]
    answers = NESTED if completions == "nested" else encoder().completions_K
    found = scorer.score(model, ids, answers, batch_tokens=batch_tokens)
    assert sum(ranged) == len(ids) + (rows in ("sentences", "uneven"))  # and the prefix
    monkeypatch.setattr(ranged_rows, "suits", lambda model: False)
    np.testing.assert_allclose(found, score_plainly(model, ids, answers), atol=1e-5)
    monkeypatch.undo()
    np.testing.assert_allclose(found, scorer.score(model, ids, answers), atol=1e-5)


def test_a_bf16_backbone_has_the_same_exact_logits(ranged: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone().to(torch.bfloat16)
    found = scorer.score(model, UNEVEN, NESTED)
    monkeypatch.undo()
    expected = score_plainly(backbone(), UNEVEN, NESTED)
    difference = abs(scorer.score(model, UNEVEN, NESTED) - expected).max()
    assert abs(found - expected).max() < 1.5 * difference


def test_greedy_answers_are_the_same(ranged: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone()
    first = [int(model(torch.tensor([row])).logits[0, -1].argmax()) for row in prompts()]
    answers = [[first[0], 9, 4], [first[0], 4], [first[1], 8, 4]]
    second = int(model(torch.tensor([[*prompts()[0], first[0]]])).logits[0, -1].argmax())
    answers.append(
        [first[0], second, int(model(torch.tensor([[*prompts()[0], first[0], second]])).logits[0, -1].argmax())]
    )
    found = greedy(model, prompts(), answers)
    assert found[0] == 3
    assert ranged
    monkeypatch.undo()
    assert found == greedy(model, prompts(), answers)


def test_nothing_asks_the_device_for_a_value_before_the_end(ranged: list[int]) -> None:
    # A meta tensor has no values: item(), tolist(), bool(), cpu() and nonzero() of it raise.
    fetch = scorer.start(backbone().to("meta"), UNEVEN, NESTED, batch_tokens=60)
    assert len(ranged) > 2
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        fetch()


def test_batches_are_even_and_within_their_bound() -> None:
    lengths = [7, 5, 9, 6, 8, 3, 4, 9, 2, 7]
    batches = _even_batches(lengths, 25)
    assert [i for batch in batches for i in batch] == list(range(10))
    assert all(sum(lengths[i] for i in batch) <= 25 for batch in batches)
    assert _even_batches([50, 1, 1], 10) == [[0], [1, 2]]  # a row of its own may be longer
    assert [len(batch) for batch in _even_batches([1] * 101, 100)] == [51, 50]


def test_a_kept_prefix_serves_later_calls(ranged: list[int]) -> None:
    model, kept = backbone(), KeptPrefix()
    expected = score_plainly(model, UNEVEN, NESTED)
    for rows, count in (([0, 1, 2], 2), ([1], 1), ([3, 0], 1)):  # the first pass computes the prefix, too
        ranged.clear()
        found = scorer.start(model, [UNEVEN[i] for i in rows], NESTED, kept=kept)()
        assert len(ranged) == count
        np.testing.assert_allclose(found, expected[rows], atol=1e-5)
    other = [[1, *row] for row in UNEVEN]
    np.testing.assert_allclose(
        scorer.start(model, other, NESTED, kept=kept)(), score_plainly(model, other, NESTED), atol=1e-5
    )
    assert kept.ids == [1, *PREFIX]


def adapted(head: bool = False) -> tuple[PeftModel, list[str]]:
    modules = ["q_proj", "v_proj", "lm_head"] if head else "all-linear"
    sections = [LoraSection(r=r, target_modules=modules, lora_dropout=0.1) for r in (1, 4, 32)]
    with patch("loraft.models.adapter.check_targets"):  # which lets none on the head, as adapters made elsewhere have
        model, names = add_adapters(backbone(), sections, seed=5)
    awaken(model)
    return model.eval(), names


def one_by_one(model: PeftModel, names: list[str]) -> np.ndarray:
    scores = []
    for name in names:
        model.base_model.set_adapter(name)
        scores.append(scorer.score(model, UNEVEN, NESTED))
    model.base_model.set_adapter(names)
    return np.stack(scores)


@pytest.mark.parametrize("head", [False, True])
def test_adapters_scored_together_equal_those_scored_one_by_one(
    head: bool, ranged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, names = adapted(head)
    monkeypatch.setattr(lm_head, "LOGITS", 1)  # the head reads row by row where it has no adapter
    with lora_linear.enabled(model, names):  # as in a joint training, where the evaluation takes place
        found = scorer.score_adapters(model, names, UNEVEN, NESTED, batch_tokens=600)
        assert all("forward" in vars(layer) for layer in model.modules() if hasattr(layer, "lora_A"))
    assert not any("forward" in vars(layer) for layer in model.modules())
    assert not any(layer.training for layer in model.modules())
    monkeypatch.undo()
    expected = one_by_one(model, names)
    assert np.ptp(expected, axis=0).min() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)  # scores of -50 have fp32 steps of 4e-6


def test_scores_do_not_read_copies_of_weights_that_training_keeps(ranged: list[int]) -> None:
    model, names = adapted()
    expected = scorer.score_adapters(model, names, UNEVEN, NESTED)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.low_precision = torch.zeros_like(parameter)  # as before the first step, and stale after each
    np.testing.assert_array_equal(scorer.score_adapters(model, names, UNEVEN, NESTED), expected)


def test_an_adapter_that_diverged_spoils_no_other_one(ranged: list[int]) -> None:
    model, names = adapted()
    expected = scorer.score_adapters(model, names, UNEVEN, NESTED)
    for name, parameter in model.named_parameters():
        if f"lora_B.{names[1]}" in name:
            parameter.data.fill_(float("nan"))
    found = scorer.score_adapters(model, names, UNEVEN, NESTED)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])


def test_adapters_of_a_backbone_with_a_limit_are_scored_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows beyond the limit run whole, and whole rows serve one adapter."""
    model, _ = adapted()
    monkeypatch.setattr(ranged_rows, "suits", lambda model: True)
    assert scorer.scores_together(model)
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    monkeypatch.setattr(model.config, "rope_parameters", dynamic)  # all tiny backbones of a kind share one config
    assert not scorer.scores_together(model)


# --- what only a GPU shows --------------------------------------------------------------------------------------------

MANY = [[*range(100, 120), *range(300 + n, 301 + n + 7 * n % 90)] for n in range(200)]


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.25)])
@pytest.mark.gpu
def test_scores_on_a_gpu_are_those_of_full_sequences(architecture: str, dtype: torch.dtype, tolerance: float) -> None:
    model = backbone(architecture).to("cuda", dtype)
    assert ranged_rows.suits(model)
    expected = score_plainly(backbone(architecture), MANY, NESTED)
    for batch_tokens in (None, 500):
        found = scorer.score(model, MANY, NESTED, batch_tokens=batch_tokens)
        np.testing.assert_allclose(found, expected, atol=tolerance)
    one = scorer.score(model, MANY[7:8], NESTED)  # without a cached prefix
    np.testing.assert_allclose(one, expected[7:8], atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.gpu
def test_batches_are_enqueued_without_waiting(dtype: torch.dtype) -> None:
    model, kept = backbone().to("cuda", dtype), KeptPrefix()
    expected = scorer.score(model, MANY, NESTED, batch_tokens=500)  # compiles the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        first = scorer.start(model, MANY, NESTED, batch_tokens=500, kept=kept)
        second = scorer.start(model, MANY[:20], NESTED, kept=kept)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    np.testing.assert_allclose(first(), expected, atol=1e-5)
    np.testing.assert_allclose(second(), expected[:20], atol=1e-3 if dtype == torch.float32 else 0.25)


@pytest.mark.gpu
def test_three_bf16_products_on_a_gpu_are_as_exact_as_one_in_fp32() -> None:
    torch.manual_seed(0)
    x_NH, weight_VH = torch.randn(300, 2048, device="cuda"), torch.randn(4000, 2048, device="cuda").bfloat16()
    right = x_NH.double() @ weight_VH.double().t()
    size = right.abs().max()
    of_fp32 = (x_NH @ weight_VH.float().t() - right).abs().max()
    assert (split_product(x_NH, weight_VH) - right).abs().max() < max(4 * of_fp32, 1e-6 * size)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.25)])
@pytest.mark.gpu
def test_adapters_on_a_gpu_have_the_scores_of_those_scored_one_by_one(dtype: torch.dtype, tolerance: float) -> None:
    model, names = add_adapters(backbone().to(dtype), [LoraSection(r=r) for r in (1, 4, 32)], seed=5)
    awaken(model)
    model.to("cuda").eval()
    assert scorer.scores_together(model)
    found = scorer.score_adapters(model, names, MANY, NESTED)
    for scores_NK, name in zip(found, names, strict=True):
        model.base_model.set_adapter(name)
        np.testing.assert_allclose(scores_NK, scorer.score(model, MANY, NESTED), atol=tolerance)


@pytest.mark.gpu
def test_greedy_answers_on_a_gpu_are_those_of_the_cpu() -> None:
    model, answers = backbone(), encoder().completions_K
    first = [int(model(torch.tensor([row])).logits[0, -1].argmax()) for row in prompts()]
    answers = [*answers, [first[0], 9, 4], [first[1], 4]]
    expected = greedy(model, prompts(), answers)
    assert greedy(model.to("cuda"), prompts(), answers) == expected
