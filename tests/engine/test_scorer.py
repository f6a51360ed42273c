"""The engine equals a plain full-sequence computation, whatever the batch, the padding, the cache and the labels."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.plain_scoring import score_plainly
from helpers.tiny import CONFIGS, SENTENCES, backbone, encoder, prompts, tokenizer
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config

from loraft.config.schema import ModelConfig, QuantConfig
from loraft.engine import scorer
from loraft.engine.scorer import answer_tokens, generate, greedy, score, to_probs
from loraft.errors import BackboneError
from loraft.models.backbone import load_backbone

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


@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
def test_scores_do_not_depend_on_batch_size_or_order(batch_tokens: int) -> None:
    model, ids = backbone(), prompts()
    topics = encoder("topic").completions_K
    expected = score_plainly(model, ids, topics)
    np.testing.assert_allclose(score(model, ids, topics, batch_tokens=batch_tokens), expected, atol=1e-5)
    np.testing.assert_allclose(score(model, ids[::-1], topics, batch_tokens=batch_tokens)[::-1], expected, atol=1e-5)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(60, 700))
def test_batches_hold_every_row_in_order_within_the_bound(lengths: list[int], most: int) -> None:
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches = scorer._batches(order, lengths, most)
    assert [i for batch in batches for i in batch] == order
    assert all(len(batch) * max(lengths[i] for i in batch) <= most for batch in batches)
    assert all(len(batch) < 8 or len(batch) % 8 == 0 for batch in batches[:-1])


def test_a_batch_may_reach_the_bound() -> None:
    assert scorer._batches([0, 1, 2], [10, 10, 10], 20) == [[0, 1], [2]]
    assert scorer._batches([0, 1], [10, 30], 20) == [[0], [1]]  # a row of its own may be longer


def test_batches_and_the_cached_prefix_are_chosen_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    cached: list[int] = []
    batches: list[list[int]] = []
    own_cache, own_logits = scorer.prefix_cache, scorer.logits_after

    def recorded_cache(model: Any, ids: list[int]) -> Any:
        cached.append(len(ids))
        return own_cache(model, ids)

    def recorded_logits(model: Any, cache: Any, prefix: int, suffixes: list[list[int]], *args: Any) -> Any:
        batches.append([len(suffix) for suffix in suffixes])
        return own_logits(model, cache, prefix, suffixes, *args)

    monkeypatch.setattr(scorer, "prefix_cache", recorded_cache)
    monkeypatch.setattr(scorer, "logits_after", recorded_logits)
    model = backbone()

    def rows(prefix: int, *lengths: int) -> list[list[int]]:
        """Rows of one first part and of different tokens after it."""
        return [[*range(prefix), *[100 + n] * length] for n, length in enumerate(lengths)]

    def called(ids: list[list[int]], batch_tokens: int | None = None) -> tuple[list[int], list[list[int]]]:
        cached.clear()
        batches.clear()
        score(model, ids, [[5, 4], [6, 4]], batch_tokens=batch_tokens)
        return list(cached), list(batches)

    assert called(rows(scorer.MIN_PREFIX, 1, 1)) == ([scorer.MIN_PREFIX], [[1, 1]])
    assert called(rows(scorer.MIN_PREFIX - 1, 1, 1)) == ([], [[scorer.MIN_PREFIX, scorer.MIN_PREFIX]])
    assert called(rows(20, 3)) == ([], [[23]])  # of one row
    assert called(rows(20, 60, 5, 4, 3, 2, 1), 72)[1] == [[1, 2, 3, 4, 5], [60]]  # 8 cells a row, and 64
    on_cpu = [len(batch) for batch in called(rows(20, *[60] * 30))[1]]
    assert on_cpu == [scorer.CPU_TOKENS // 64, 30 - scorer.CPU_TOKENS // 64]  # 24 rows of 64 cells


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


def decoded(model: Any, prompt: list[int], steps: int) -> list[int]:
    """Greedy decoding, a full sequence at every step, to the end."""
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_generation_equals_a_greedy_loop_over_full_sequences() -> None:
    model = backbone()
    expected = [decoded(model, prompt, 4) for prompt in prompts()[:3]]
    ends = expected[1][2]  # so that one of them stops early
    made = generate(model, prompts()[:3], [[1, ends], [2, ends]], pad=5, max_new_tokens=4, batch_tokens=400)
    assert made == [ids[: ids.index(ends)] if ends in ids else ids for ids in expected]
    assert len(made[1]) == 2


@pytest.mark.parametrize(
    ("architecture", "seed"), [("llama", 0), ("mistral", 0), ("qwen2", 1), ("qwen3", 0), ("gpt2", 2)]
)  # with weights from these seeds the rows' answers differ and repeat no token
def test_the_answer_read_off_one_pass_is_the_decoded_one(architecture: str, seed: int) -> None:
    model = backbone(architecture, seed)
    texts = [*prompts(), *prompts(["lớp đông quá", "rất hài lòng"])]
    paths = [decoded(model, prompt, 4) for prompt in texts]
    start = next(i for i, path in enumerate(paths) if len(set(path)) == 4)
    texts, paths = [*texts[start:], *texts[:start]], [*paths[start:], *paths[:start]]
    first, other = paths[0], next(path for path in paths if path[0] != paths[0][0])
    end = first[-1]
    answers = [
        [first[0], first[1] + 1, end],  # leaves the decoded path
        [*first[:3], end],
        [*first[:2], end],  # the beginning of the one before
        [*other[:2], other[2] + 1, end],
    ]
    expected = [next((k for k, ids in enumerate(answers) if path[: len(ids)] == ids), -1) for path in paths]
    assert 1 in expected
    assert -1 in expected
    assert greedy(model, texts, answers) == expected
    assert greedy(model, texts[:1], answers) == expected[:1]
    assert greedy(model, texts, answers, batch_tokens=1) == expected
    alike = [[*first[:2], first[2], end], [*first[:2], first[2] + 1, end]]  # two tokens are shared
    assert greedy(model, texts, alike)[0] == 0


def test_rows_whose_best_logits_are_close_are_decoded_token_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone()
    path = decoded(model, prompts()[0], 3)
    answers = [path, [path[0], path[1] + 1, path[2]]]
    assert greedy(model, prompts()[:2], answers)[0] == 0
    assert generate(model, prompts()[:1], answers, pad=5, max_new_tokens=3) == [path[:2]]
    monkeypatch.setattr(scorer, "MARGIN", dict.fromkeys(scorer.MARGIN, 1e9))
    assert greedy(model, prompts()[:2], answers) == [-1, -1]
    assert generate(model, prompts()[:1], answers, pad=5, max_new_tokens=3) == [path[:2]]


def test_one_pass_is_right_for_equal_rows_and_for_wrong_shared_tokens() -> None:
    model, prompt = backbone(), prompts()[0]
    path = decoded(model, prompt, 3)
    shared = [[*path[:2], path[2]], [*path[:2], path[2] + 1, path[2]]]  # the first two tokens are shared
    assert greedy(model, [prompt] * 3, shared) == [0] * 3
    wrong = path[0] + 1
    after = decoded(model, [*prompt, wrong], 2)
    assert greedy(model, [prompt], [[wrong, *after], [wrong, after[0] + 1, after[1]]]) == [-1]


def test_decoding_is_cut_after_the_largest_number_of_tokens_and_at_the_end_of_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, prompt = backbone(), prompts()[0]
    path = decoded(model, prompt, 3)
    made: list[torch.Size] = []
    own = type(model).generate

    def recorded(*args: Any, **kwargs: Any) -> torch.Tensor:
        out = own(*args, **kwargs)
        made.append(out.shape)
        return out

    monkeypatch.setattr(type(model), "generate", recorded)
    assert generate(model, [prompt], [path, [7, path[2]]], pad=5, max_new_tokens=2) == [path[:2]]
    assert generate(model, [prompt], [[7, path[1]], [8, path[1]]], pad=5, max_new_tokens=20) == [path[:1]]
    assert made == [(1, len(prompt) + 2), (1, len(prompt) + 2)]
    made.clear()
    bound = 2 * (len(prompt) + 4)
    answers = [[7, 6], [8, 6]]
    for batch_tokens, count in ((bound, [2]), (bound - 1, [1, 1])):  # rows times tokens, with the four new ones
        generate(model, [prompt] * 2, answers, pad=5, max_new_tokens=4, batch_tokens=batch_tokens)
        assert [shape[0] for shape in made] == count
        made.clear()
    short = prompt[-5:]  # rows of like length go together, and come back in their order
    found = generate(model, [prompt, short, short], answers, pad=5, max_new_tokens=4, batch_tokens=len(prompt) + 4)
    assert [tuple(shape) for shape in made] == [(2, 5 + 4), (1, len(prompt) + 4)]
    assert found == [decoded(model, row, 4) for row in (prompt, short, short)]


def test_the_bundled_backbone_answers_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_backbone(ModelConfig(dtype="fp32"), QuantConfig())
    wanted = generate(model, prompts(), [[1, 4], [2, 4]], pad=5, max_new_tokens=16)  # no answer of ours: all decoded
    monkeypatch.setattr(type(model), "generate", None)
    assert generate(model, prompts(), encoder().completions_K, pad=5, max_new_tokens=16) == wanted


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


def test_a_model_that_diverged_is_an_error_not_a_label() -> None:
    model = backbone()
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(BackboneError, match="6 of 6 rows have no score"):
        score(model, prompts(), encoder().completions_K)
