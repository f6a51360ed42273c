"""Scores and answers of every kind of architecture are those of whole sequences in transformers' eager attention."""

import itertools
import re
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from helpers.plain_scoring import score_plainly
from helpers.tiny import ALIBI, EXPERTS, LONG_ROPE, RECURRENT, WINDOWED, backbone, random_model, special
from transformers import AutoConfig, PreTrainedModel

from loraft.engine import plain_rows, prefix_cache
from loraft.engine.decoding import generate, greedy
from loraft.engine.plain_rows import plain_logits
from loraft.engine.scorer import score
from loraft.errors import Note

SINGLE = [[5, 4], [6, 4], [7, 4]]
NESTED = [[5, 6, 7, 4], [5, 6, 8, 9, 4], [5, 6, 8, 9, 10, 4], [5, 7, 4]]  # the third begins with the second
# Rows of 24 to 31 tokens, longer than the windows, with a common beginning that is longer, too; and of 8 to 11 tokens.
LONG = [[*range(100, 120), *range(300 * n, 300 * n + own)] for n, own in ((1, 4), (2, 11), (3, 7))]
SHORT = [[*range(100, 108), *range(300 * n, 300 * n + own)] for n, own in ((1, 1), (2, 3))]
WHOLE = "each row runs whole"


def eager(model: PreTrainedModel) -> PreTrainedModel:
    with suppress(ValueError):  # no attention to choose
        model.set_attn_implementation("eager")
    return model


def assert_plain(model: PreTrainedModel, expected_of: PreTrainedModel, rows: list[list[int]]) -> None:
    for answers in (SINGLE, NESTED):
        expected = score_plainly(expected_of, rows, answers)
        assert np.ptp(expected, axis=0).min() > 1e-3  # the rows do differ, so agreement means something
        np.testing.assert_allclose(score(model, rows, answers), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", WINDOWED)
def test_rows_beyond_a_window_are_scored_whole(architecture: str) -> None:
    model = special(architecture)
    with pytest.warns(Note, match=f"attention window of 16 tokens; {WHOLE}"):
        assert_plain(model, eager(special(architecture)), LONG)


@pytest.mark.parametrize("architecture", ["gemma3_text", "llama4_text"])
def test_a_window_changes_scores_of_longer_rows_alone(architecture: str) -> None:
    size = "attention_chunk_size" if architecture == "llama4_text" else "sliding_window"
    wide, narrow = special(architecture, **{size: 64}), special(architecture)
    assert abs(score_plainly(wide, LONG, NESTED) - score_plainly(narrow, LONG, NESTED)).max() > 1e-2
    assert abs(score_plainly(wide, SHORT, NESTED) - score_plainly(narrow, SHORT, NESTED)).max() < 1e-5


@pytest.mark.parametrize("architecture", ["gemma2", "qwen2", "llama4_text"])
def test_rows_that_fit_the_window_share_their_prefix(architecture: str) -> None:
    fitting = max(map(len, SHORT)) + len(NESTED[2]) - 1
    size = "attention_chunk_size" if architecture == "llama4_text" else "sliding_window"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_plain(special(architecture, **{size: fitting}), eager(special(architecture, **{size: fitting})), SHORT)
    with pytest.warns(Note, match=WHOLE):
        score(special(architecture, **{size: fitting - 2}), SHORT, NESTED)


@pytest.mark.parametrize("architecture", [*RECURRENT, *ALIBI])
def test_recurrent_and_alibi_backbones_are_scored_whole(architecture: str) -> None:
    told = "recurrent" if architecture in RECURRENT else "takes no position ids"
    with pytest.warns(Note, match=f"{told}.*; {WHOLE}"):
        assert_plain(special(architecture), eager(special(architecture)), LONG)


# --- rotary frequencies that change with the length of a row ---------------------------------------------------------

SAME_LENGTH = [[5, 6, 4], [5, 7, 4], [6, 6, 4]]
AROUND_16 = [LONG[0][:count] for count in (12, 15, 16, 17, 24, 24)] + LONG[1:]


def long_rope(architecture: str) -> PreTrainedModel:
    return random_model(AutoConfig.for_model(architecture, **LONG_ROPE[architecture]))


@pytest.mark.parametrize("architecture", LONG_ROPE)
def test_each_row_has_the_rotary_frequencies_of_its_own_length(architecture: str) -> None:
    rows = AROUND_16[::-1]
    model = long_rope(architecture)
    told = f"rotary frequencies change in rows of more than 1[56] tokens; {WHOLE}"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for answers in (SINGLE, SAME_LENGTH, SINGLE):
            expected = np.concatenate([score_plainly(long_rope(architecture), [row], answers) for row in rows])
            np.testing.assert_allclose(score(model, rows, answers), expected, atol=1e-5)
            short = [n for n, row in enumerate(rows) if len(row) <= 13]
            np.testing.assert_allclose(score(model, [rows[n] for n in short], answers), expected[short], atol=1e-5)
    assert len(said) == 1
    assert re.search(told, str(said[0].message))


@pytest.mark.filterwarnings("ignore::loraft.errors.Note")
@pytest.mark.parametrize("architecture", LONG_ROPE)
def test_rows_are_decoded_with_the_rotary_frequencies_of_their_own_length(architecture: str) -> None:
    rows = [row for row in AROUND_16 if len(row) != 16]
    expected = [generate(long_rope(architecture), [row], [[1], [2]], pad=5, max_new_tokens=2)[0] for row in rows]
    assert generate(long_rope(architecture), rows, [[1], [2]], pad=5, max_new_tokens=2) == expected


@pytest.mark.parametrize("architecture", EXPERTS)
def test_experts_share_the_prefix(architecture: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_plain(special(architecture), eager(special(architecture)), LONG)


@pytest.mark.parametrize("architecture", ["gemma3_text", "gpt_oss", "lfm2", "minimax", "mamba", "mpt"])
def test_answers_are_those_of_a_greedy_loop(architecture: str) -> None:
    model = special(architecture)

    def decoded(row: list[int], steps: int = 3) -> list[int]:
        ids = list(row)
        for _ in range(steps):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        return ids[len(row) :]

    rows = [*LONG, LONG[0][::-1], LONG[2]]  # two of them have as many tokens as another one
    end = 8000  # which none of them decodes to
    paths = [decoded(row) for row in rows]
    with pytest.warns(Note, match=WHOLE):
        assert generate(model, rows, [[1, end], [2, end]], pad=5, max_new_tokens=3) == paths
    first = [[*paths[0][:2], paths[0][2]], [paths[0][0], paths[0][1] + 1, paths[0][2]]]
    assert greedy(model, rows, first)[0] == 0


def test_plain_logits_are_those_of_whole_sequences() -> None:
    model = backbone()
    rows, branches = [[9, 8, 7], [6, 5]], [[1, 2], [3]]
    with torch.no_grad():
        logits = plain_logits(model, rows, branches, 2)
        of_rows, of_branches = logits[:, :2], logits[:, 2:]
        for n, row in enumerate(rows):
            whole = [model(torch.tensor([[*row, *branch]])).logits[0, len(row) :] for branch in branches]
            torch.testing.assert_close(of_branches[n], torch.cat(whole), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(of_rows[n], model(torch.tensor([row])).logits[0, -2:], rtol=1e-4, atol=1e-5)


# --- architectures of which the config says nothing -------------------------------------------------------------------


def raises(*args: Any, **kwargs: Any) -> Any:
    raise ValueError("too many values to unpack\nin a layer")


@pytest.mark.parametrize(("broken", "told"), [(raises, "too many values to unpack"), (None, r"differ by \d\.\d{4}")])
def test_an_unknown_architecture_is_compared_with_plain_rows_once(
    broken: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()
    own = prefix_cache._masked_logits

    def counted(*args: Any, **kwargs: Any) -> Any:
        next(calls)
        return broken() if broken else own(*args, **kwargs) * 1.01

    monkeypatch.setattr(prefix_cache, "_masked_logits", counted)
    model = backbone("gpt2")
    expected = score_plainly(model, LONG, NESTED)
    with pytest.warns(UserWarning, match=rf"does not suit this backbone \(.*{told}.*\); {WHOLE}"):
        np.testing.assert_allclose(score(model, LONG, NESTED), expected, atol=1e-5)
    np.testing.assert_allclose(score(model, LONG[:2], NESTED), expected[:2], atol=1e-5)
    assert next(calls) == 1
    monkeypatch.setattr(prefix_cache, "_masked_logits", own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(backbone("gpt2"), LONG, NESTED)  # another model is compared anew


def test_known_architectures_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_rows, "_compared", None)
    for architecture in ("llama", "qwen3"):
        score(backbone(architecture), LONG, NESTED)
