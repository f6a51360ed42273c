"""Which few-shot prompts fit: what is measured before any weights are loaded, and what is refused."""

import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers.fewshots import config, rows_file
from helpers.tiny import backbone

from loraft.config.schema import Config
from loraft.data.dataset import load_data
from loraft.errors import DataError
from loraft.models import positions
from loraft.models.encoder import Encoder
from loraft.models.load import build_encoder
from loraft.studies.fewshot import study as fewshot_study
from loraft.studies.fewshot.context import check_context
from loraft.studies.fewshot.demonstrations import draws
from loraft.studies.fewshot.summary import BACKBONE

pytestmark = pytest.mark.usefixtures("tiny_backbone")


def longest(settings: Config) -> dict[int, int]:
    """What `check_context` returns for one draw of two demonstrations."""
    train, test = load_data(settings, "train"), load_data(settings, "test")
    drawn = draws(train, test, max_shots=2, repeats=1, selection=settings.fewshot.selection, seed=settings.seed)
    return check_context(settings, train, test, drawn, [0, 2])


def test_where_answers_are_generated_their_limit_counts_instead_of_the_longest_label(tmp_path: Path) -> None:
    scored = longest(config(tmp_path))
    answer = max(map(len, build_encoder(config(tmp_path)).completions_K))
    for limit, counted in ((answer + 30, answer + 30), (1, answer)):
        generated = longest(config(tmp_path, "eval.decode=generate", f"eval.max_new_tokens={limit}"))
        assert generated == {k: tokens - answer + counted for k, tokens in scored.items()}


def test_a_prompt_may_fill_its_limit(tmp_path: Path) -> None:
    tokens = longest(config(tmp_path))
    assert longest(config(tmp_path, f"prompt.max_length={tokens[2]}")) == tokens
    with pytest.raises(DataError, match=rf"with 2 shots takes {tokens[2]} tokens"):
        longest(config(tmp_path, f"prompt.max_length={tokens[2] - 1}"))


def test_the_limit_that_is_suggested_is_rounded_up_to_64_where_the_context_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = longest(config(tmp_path))[2]
    rounded = -(-tokens // 64) * 64
    assert tokens < rounded
    for limit, suggested in ((rounded, rounded), (rounded - 1, tokens)):
        monkeypatch.setattr(positions, "positions", lambda section, limit=limit: limit)
        with pytest.raises(DataError, match=rf"; --set prompt.max_length={suggested}, or fewer --shots$"):
            longest(config(tmp_path, f"prompt.max_length={tokens - 1}"))


def test_a_prompt_that_does_not_fit_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fewshot_study, "build", lambda config: pytest.fail("weights were loaded"))
    with pytest.raises(DataError) as refused:
        fewshot_study.fewshot(config(tmp_path, "prompt.max_length=200", "fewshot.shots=[1,16]"), quiet=True)
    message = str(refused.value)
    assert "prompt with 16 shots takes" in message
    assert "(got prompt.max_length=200)" in message
    assert message.endswith("or --shots 1")
    assert not list(tmp_path.iterdir())

    tokens = int(message.split("takes ")[1].split()[0])
    enough = f"prompt.max_length={tokens}"
    monkeypatch.setattr(fewshot_study, "build", lambda config: (build_encoder(config), backbone()))
    study = fewshot_study.fewshot(config(tmp_path, enough, "fewshot.shots=[1,16]"), quiet=True)
    assert max(row.tokens or 0 for row in study.rows) == tokens
    assert [draw.report.truncated for draw in study.draws] == [0] * 5


@pytest.mark.parametrize("selection", ["random", "balanced", "nearest"])
def test_the_longest_prompt_is_measured_exactly(
    tmp_path: Path, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch, selection: str
) -> None:
    lengths: list[int] = []
    encode = Encoder.encode

    def measure(self: Encoder, texts: Any, demonstrations: Any = ()) -> Any:
        prompts = encode(self, texts, demonstrations)
        if demonstrations and self.max_length == 1024:  # the encoder of the evaluation
            answer = max(map(len, self.completions_K))
            lengths.extend(len(prompt.ids) + answer for prompt in prompts)
        return prompts

    monkeypatch.setattr(Encoder, "encode", measure)
    overrides = (f"fewshot.selection={selection}", "fewshot.shots=[6]", "data.max_test_rows=30")
    study = fewshot_study.fewshot(config(tmp_path, *overrides), quiet=True)
    assert len(lengths) == 60
    assert study.rows[-1].tokens == max(lengths)


def test_the_backbones_context_counts_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"takes \d+ tokens .*; the backbone's context leaves 2048 .*, choose another"):
        fewshot_study.fewshot(
            config(tmp_path, "prompt.max_length=9000", "fewshot.shots=[150]", "data.max_train_rows=400"), quiet=True
        )


LONG = "thầy dạy rất hay , dễ hiểu " * 60


def test_a_sentence_that_is_shortened_anyway_refuses_nothing(tmp_path: Path) -> None:
    test = rows_file(tmp_path, "dài.jsonl", LONG, "tốt")
    overrides = (f"data.test_split={test}", "prompt.max_length=256", "fewshot.shots=[1]")
    with pytest.warns(UserWarning, match="shortened"):
        study = fewshot_study.fewshot(config(tmp_path, *overrides), quiet=True)
    assert [draw.report.truncated for draw in study.draws] == [1, 1, 1]
    assert [row.tokens for row in study.rows if row.model == BACKBONE] == [256, 256]  # filled up


@pytest.mark.parametrize("selection", ["random", "nearest"])
@pytest.mark.parametrize("others", [[], ["tốt"]], ids=["only long rows", "one short row"])
def test_demonstrations_that_leave_no_room_are_refused_where_the_sentence_is_shortened_anyway(
    tmp_path: Path, selection: str, others: list[str]
) -> None:
    # The long sentences are most like the long one, so with `nearest` it is the long test row that they push out.
    train = rows_file(tmp_path, "train.jsonl", *(f"{LONG}{n}" for n in range(9)), "tốt lắm", "tốt quá")
    test = rows_file(tmp_path, "test.jsonl", LONG, *others)
    settings = config(tmp_path, f"data.train_split={train}", f"data.test_split={test}", "prompt.max_length=256",
                      "fewshot.shots=[6]", f"fewshot.selection={selection}")  # fmt: skip
    with pytest.raises(DataError, match=r"prompt with 6 shots takes \d{4} tokens for test row") as refused:
        fewshot_study.fewshot(settings, quiet=True)
    assert ("row 1 without its sentence" in str(refused.value)) == (selection == "nearest" or not others)
    assert not any(path.is_dir() for path in tmp_path.iterdir())


@pytest.mark.parametrize("decode", ["score", "generate"])
def test_a_sentence_beyond_the_backbones_positions_is_shortened_as_in_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decode: str
) -> None:
    monkeypatch.setattr(positions, "positions", lambda section: 256)
    test = rows_file(tmp_path, "dài.jsonl", LONG, "tốt")
    settings = config(
        tmp_path, f"data.test_split={test}", "fewshot.shots=[1]", f"eval.decode={decode}", "fewshot.repeats=1"
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        study = fewshot_study.fewshot(settings, quiet=True)
    told = [str(one.message) for one in caught if "prompts may take" in str(one.message)]
    # The longest answer has 4 tokens with its end of turn, and a generated one may have 12 more.
    beyond = " less the 12 by which eval.max_new_tokens is longer than any answer"
    less, most = ("", 256) if decode == "score" else (beyond, 244)
    assert told == [
        f"prompt.max_length: prompts may take {most} tokens, this backbone's positions{less} (got 1,024); longer"
        f" sentences are shortened to that, as with --set prompt.max_length={most}"
    ]
    assert [draw.report.truncated for draw in study.draws] == [1, 1]
    assert [row.tokens for row in study.rows if row.model == BACKBONE] == [256, 256]  # prompt and answer
