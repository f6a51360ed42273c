"""The loss of packed batches is the textbook's cross-entropy of the padded ones, for every method and adapter."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import label_sets
from helpers.tiny import SENTENCES, backbone, tokenizer
from helpers.training import PAD, SECTIONS, assert_same, loss_and_gradients, rows, with_adapter

from loraft.engine import lora_linear
from loraft.engine.collator import IGNORE, pack, pad, question_rows
from loraft.engine.loss import (
    BatchMethod,
    answer_loss_sum,
    answer_loss_sums,
    packed_suffixes,
    shared_prefix_mask,
    static_loss_sums,
    visible,
)
from loraft.engine.static_batch import static_batch
from loraft.models.adapter import add_adapters

SEGMENTS = torch.tensor([0, 0, 1, 1, 2])
SEEN = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]


def test_padded_loss_is_the_textbook_cross_entropy() -> None:
    model, batch = with_adapter(), rows("balanced")
    expected = 0.0
    for row in batch:
        ids = torch.tensor([row.input_ids])
        labels = ids.clone()
        labels[:, : row.answer_start] = IGNORE
        mean = model(input_ids=ids, labels=labels).loss.item()  # over the answer tokens
        expected += row.weight * mean * (len(row.input_ids) - row.answer_start)
    assert answer_loss_sum(model, pad(batch, PAD), torch.float32).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "architecture", ["gemma2", "gpt2", "mistral", "mixtral", "qwen3_moe"]
)  # for others see test_prefix_attention
def test_loss_and_all_gradients_equal_the_padded_batch(architecture: str) -> None:
    assert_same(with_adapter(architecture), rows())


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"use_rslora": True}, {"init_lora_weights": "gaussian"}])
def test_adapter_variants_agree_too(lora: dict[str, Any]) -> None:
    assert_same(with_adapter(**lora), rows())


def test_one_row_equal_rows_and_class_weights_agree() -> None:
    model = with_adapter()
    assert_same(model, rows()[:1])
    assert_same(model, rows()[:1] * 4)
    assert_same(model, rows("balanced"))


@pytest.mark.parametrize("batch", ["packed", "padded", "static"])
def test_an_adapter_learns_from_all_rows_but_those_that_it_holds_out(batch: str) -> None:
    drawn = [replace(row, held_out=number % 4 - 1) for number, row in enumerate(rows("balanced"))]
    model, names = add_adapters(backbone(), SECTIONS, seed=1)  # untrained ones, whose scores are the backbone's
    with lora_linear.enabled(model, names):
        model.train()
        if batch == "static":
            found = static_loss_sums(model, static_batch(drawn, 40, 3).inputs, torch.float32, method=BatchMethod.MASK)
        else:
            inputs = pack(drawn) if batch == "packed" else pad(drawn, PAD)
            found = answer_loss_sums(model, inputs, torch.float32, 3)
    left = [[replace(row, held_out=-1) for row in drawn if row.held_out != number] for number in range(3)]
    assert len({len(one) for one in left} | {len(drawn)}) > 1
    expected = [answer_loss_sum(model.get_base_model(), pad(one, PAD), torch.float32).item() for one in left]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_a_token_sees_the_prefix_and_its_own_suffix_up_to_itself() -> None:
    assert visible(SEGMENTS).int().tolist() == SEEN
    mask_11TT = shared_prefix_mask(SEGMENTS, torch.float16)
    least = torch.finfo(torch.float16).min
    assert mask_11TT.dtype == torch.float16
    assert mask_11TT[0, 0].tolist() == [[0.0 if seen else least for seen in row] for row in SEEN]


def test_whole_row_attention_takes_the_row_as_one_suffix() -> None:
    for batch, grid in ((rows(), None), (rows() * 10, pack(rows() * 10)["suffix_index"])):
        inputs = pack(batch)
        positions = (inputs["labels"][0] != IGNORE).nonzero().squeeze(1) - 1
        suffixes = packed_suffixes(inputs, positions)
        if grid is None:
            assert suffixes.index_BS.tolist() == [list(range(inputs["input_ids"].shape[1]))]
            assert torch.equal(suffixes.visible_BSS[0], visible(inputs["segments"]))
            assert suffixes.prefix == 0
        else:
            assert torch.equal(suffixes.index_BS, grid)
            assert suffixes.visible_BSS[7].equal(torch.ones(grid.shape[1], grid.shape[1]).tril().bool())
            assert suffixes.prefix == int((inputs["segments"] == 0).sum())
        kept = suffixes.index_BS.gather(1, suffixes.kept_BQ.clamp(min=0))[suffixes.kept_BQ >= 0]
        assert kept.tolist() == positions.tolist()


def test_the_loss_of_label_sets_is_that_of_each_answer_after_its_question() -> None:
    """Rows with 0, 1 and 3 labels; each question by itself in transformers, in fp32, without padding."""
    model, made = with_adapter(), label_sets.encoder()
    prompts = [prompt.ids for prompt in made.encode(SENTENCES[:3])]
    applies_NK = label_sets.applies()[:3]
    batch = question_rows(prompts, applies_NK, made.completions_K, "none")
    expected, count = torch.zeros(()), 0
    for prompt, applies_K in zip(prompts, applies_NK, strict=True):
        for label, applies in zip(label_sets.LABELS, applies_K, strict=True):
            question = tokenizer()(f"{label}:", add_special_tokens=False)["input_ids"]
            word = tokenizer()(" có" if applies else " không", add_special_tokens=False)["input_ids"]
            answer = [*word, made.end_of_turn]
            ids_1T = torch.tensor([[*prompt, *question, *answer]])
            logits_LV = model(input_ids=ids_1T).logits[0, -len(answer) - 1 : -1]
            expected = expected + torch.nn.functional.cross_entropy(logits_LV, torch.tensor(answer), reduction="sum")
            count += len(answer)
    model.zero_grad()
    expected.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    assert len(gradients) >= 4
    for inputs in (pack(batch), pad(batch, PAD)):
        loss, found = loss_and_gradients(model, inputs)
        assert loss == pytest.approx(expected.item(), rel=1e-5)
        assert len(inputs["weights"]) == count  # which the trainer divides by
        for name, gradient in gradients.items():
            assert torch.linalg.norm(found[name] - gradient) <= 1e-5 * torch.linalg.norm(gradient) + 1e-7, name
    assert_same(model, batch)
