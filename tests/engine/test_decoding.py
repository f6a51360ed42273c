"""Greedy answers are those of a token-by-token loop over full sequences."""

from typing import Any

import pytest
import torch
from helpers.tiny import backbone, encoder, prompts

from loraft.config.schema import ModelConfig, QuantConfig
from loraft.engine import decoding
from loraft.engine.decoding import generate, greedy
from loraft.models.backbone import load_backbone


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
    monkeypatch.setattr(decoding, "MARGIN", dict.fromkeys(decoding.MARGIN, 1e9))
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
