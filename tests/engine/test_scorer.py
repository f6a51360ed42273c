"""The engine equals a plain full-sequence computation, whatever the batch, the padding, the cache and the labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import label_sets
from helpers.plain_scoring import score_plainly
from helpers.tiny import CONFIGS, SENTENCES, backbone, encoder, prompts, tokenizer
from transformers import GPT2Config

from loraft.config.schema import LoraSection
from loraft.engine.layout import bucket_size, common_prefix
from loraft.engine.probabilities import to_probs
from loraft.engine.scorer import answer_tokens, score
from loraft.errors import BackboneError
from loraft.evaluation.multilabel import probabilities
from loraft.models.adapter import add_adapter

# Answers that share first tokens, differ in length, and one that is the beginning of another; 4 ends a turn.
NESTED = [[5, 6, 7, 4], [5, 6, 8, 9, 4], [5, 6, 8, 9, 10, 4], [5, 7, 4]]


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("completions", ["single", "nested"])
def test_scores_equal_full_sequences(architecture: str, completions: str) -> None:
    model = backbone(architecture)
    answers = NESTED if completions == "nested" else encoder().completions_K
    expected = score_plainly(model, prompts(), answers)
    assert np.ptp(expected, axis=0).min() > 1e-3  # the rows do differ, so agreement means something
    np.testing.assert_allclose(score(model, prompts(), answers), expected, atol=1e-5)


# 80 answers of three tokens and an end: four first tokens, after each of them four second ones, after those five.
EIGHTY = [[10 + a, 20 + b, 30 + c, 4] for a in range(4) for b in range(4) for c in range(5)]


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])  # fused layers, and a mask
def test_answers_that_begin_alike_are_computed_token_by_token_once(architecture: str) -> None:
    model, rows = backbone(architecture), [[*range(100, 112), 200 + n, 300 + n] for n in range(2)]
    computed: list[int] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: computed.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    found = score(model, rows, EIGHTY)
    # The prefix of 12 tokens; then of each row 2 tokens of its own and 4 + 16 of the tree, as the last tokens of
    # answers predict nothing. Rows are rounded up to 24 cells. Answer by answer they would have 2 + 80 * 2.
    assert computed[-2:] == [12, 2 * 24 if architecture == "qwen3" else bucket_size(2 * 22)]
    np.testing.assert_allclose(found, score_plainly(model, rows, EIGHTY), atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
def test_scores_do_not_depend_on_batch_size_or_order(batch_tokens: int) -> None:
    model, ids = backbone(), prompts()
    topics = encoder("topic").completions_K
    expected = score_plainly(model, ids, topics)
    np.testing.assert_allclose(score(model, ids, topics, batch_tokens=batch_tokens), expected, atol=1e-5)
    np.testing.assert_allclose(score(model, ids[::-1], topics, batch_tokens=batch_tokens)[::-1], expected, atol=1e-5)


@pytest.mark.parametrize("completions", ["single", "nested"])
def test_rows_that_fill_the_context_have_scores(completions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = NESTED if completions == "nested" else encoder().completions_K
    longest = max(map(len, prompts())) + max(map(len, answer_tokens(answers)))
    monkeypatch.setitem(CONFIGS, "gpt2", GPT2Config(**CONFIGS["gpt2"].to_dict() | {"n_positions": longest}))
    model = backbone("gpt2")
    expected = score_plainly(model, prompts(), answers)
    np.testing.assert_allclose(score(model, prompts(), answers), expected, atol=1e-5)


def test_one_row_equal_rows_and_no_rows() -> None:
    model, ids = backbone(), prompts()
    answers = encoder().completions_K
    one = score_plainly(model, ids[:1], answers)
    np.testing.assert_allclose(score(model, ids[:1], answers), one, atol=1e-5)
    np.testing.assert_allclose(score(model, ids[:1] * 3, answers), np.repeat(one, 3, axis=0), atol=1e-5)
    assert score(model, [], answers).shape == (0, 3)


def test_the_end_of_turn_counts_only_where_an_answer_begins_another() -> None:
    assert answer_tokens([[1, 2, 9], [1, 3, 9]]) == [[1, 2], [1, 3]]
    assert answer_tokens([[1, 2, 9], [1, 2, 3, 9]]) == [[1, 2, 9], [1, 2, 3, 9]]


def test_probabilities_are_the_softmax_over_labels() -> None:
    log_probs_NK = np.log(np.array([[0.2, 0.1, 0.1], [1e-9, 2e-9, 1e-9]]))
    np.testing.assert_allclose(to_probs(log_probs_NK), [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])


def test_scores_are_those_of_the_label_words() -> None:
    model = backbone()
    log_probs_NK = score(model, prompts([SENTENCES[0]]), encoder().completions_K)
    words = [" negative", " neutral", " positive"]
    text = tokenizer()("Sentiment:", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*prompts([SENTENCES[0]])[0], *text]])
    with torch.no_grad():
        next_V = model(ids).logits[0, -1].log_softmax(-1)
    expected = [float(next_V[tokenizer()(w, add_special_tokens=False)["input_ids"][0]]) for w in words]
    np.testing.assert_allclose(log_probs_NK[0], expected, atol=1e-5)


def test_a_score_that_is_not_a_number_is_an_error_with_its_causes_and_not_a_label(tmp_path: Path) -> None:
    def told(model: Any) -> str:
        with pytest.raises(BackboneError, match=r"6 of 6 rows have no score \(got NaN\); probably ") as error:
            score(model, prompts(), encoder().completions_K)
        return str(error.value).partition("probably ")[2]

    damaged = backbone()
    damaged.model.norm.weight.data.fill_(float("nan"))
    files, rate = "weights of the backbone are NaN or infinite: get its files again", "train.learning_rate"
    fp16 = "; or fp16, which holds numbers up to 65,504, overflows: --set model.dtype=fp32"
    assert told(damaged) == files
    assert told(damaged.half()) == files + fp16
    diverged = add_adapter(backbone(), LoraSection(r=2), seed=1)
    for name, weight in diverged.named_parameters():
        weight.data.fill_(float("nan")) if "lora_B" in name else None
    assert told(diverged).endswith(f"lower {rate}")
    assert told(diverged.half()).endswith(f"lower {rate}{fp16}")


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_one_pass_gives_the_odds_of_yes_of_every_label(architecture: str) -> None:
    model, made = backbone(architecture), label_sets.encoder()
    ids = [prompt.ids for prompt in made.encode(SENTENCES)]
    found = probabilities(score(model, ids, made.completions_K, unscored=made.unscored))
    for n, prompt in enumerate(ids):
        for k in range(3):
            yes, no = made.completions_K[k], made.completions_K[3 + k]
            asked = common_prefix([yes, no])
            ids_1T = torch.tensor([[*prompt, *yes[:asked]]])
            with torch.inference_mode():
                logits_V = model(input_ids=ids_1T).logits[0, -1].double()
            odds = float(logits_V[yes[asked]] - logits_V[no[asked]])  # each answer's last word is one token
            assert len(yes) == len(no) == asked + 2
            assert found[n, k] == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-5)
    assert np.ptp(found, axis=0).min() > 1e-3  # the rows do differ
