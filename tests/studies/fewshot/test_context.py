"""Few-shot prompts that do not fit: what is shortened, what is told about it, and what is refused."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers.fewshots import config, rows_file
from helpers.tiny import tokenizer

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
from loraft.studies.fewshot.tables import fewshot_notes

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


def test_a_prompt_may_fill_its_limit_and_never_passes_it(tmp_path: Path) -> None:
    tokens = longest(config(tmp_path))
    assert longest(config(tmp_path, f"prompt.max_length={tokens[2]}")) == tokens
    for limit in (tokens[2] - 1, tokens[0] + 40):  # demonstrations end with a word
        found = longest(config(tmp_path, f"prompt.max_length={limit}"))
        assert found[0] == tokens[0]
        assert limit - 10 < found[2] <= limit


def test_demonstrations_that_would_show_nothing_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fewshot_study, "build", lambda config: pytest.fail("weights were loaded"))
    with pytest.raises(DataError) as refused:
        fewshot_study.fewshot(config(tmp_path, "prompt.max_length=200", "fewshot.shots=[1,16]"), quiet=True)
    assert str(refused.value) == (
        "fewshot.shots: 16 demonstrations leave 0 tokens for each of their sentences, of at least 8 (got"
        " prompt.max_length=200); --shots 1, or a larger prompt.max_length"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("selection", ["random", "balanced", "nearest"])
def test_the_longest_prompt_is_measured_exactly(
    tmp_path: Path, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch, selection: str
) -> None:
    lengths: list[int] = []
    judge = fewshot_study.judge

    def measure(model: Any, encoder: Encoder, prompts: Any, *given: Any, **named: Any) -> Any:
        lengths.extend(len(prompt.ids) + max(map(len, encoder.completions_K)) for prompt in prompts)
        return judge(model, encoder, prompts, *given, **named)

    monkeypatch.setattr(fewshot_study, "judge", measure)
    overrides = (f"fewshot.selection={selection}", "fewshot.shots=[6]", "data.max_test_rows=30")
    study = fewshot_study.fewshot(config(tmp_path, *overrides), quiet=True)
    assert len(lengths) == 90
    assert study.rows[-1].tokens == max(lengths)


def test_the_backbones_context_counts_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"150 demonstrations leave \d tokens .*got prompt.max_length=2048\); fewer"):
        fewshot_study.fewshot(
            config(tmp_path, "prompt.max_length=9000", "fewshot.shots=[150]", "data.max_train_rows=400"), quiet=True
        )


LONG = "thầy dạy rất hay , dễ hiểu " * 60


@pytest.mark.parametrize("selection", ["random", "nearest"])
def test_long_demonstrations_are_shortened_and_the_study_says_by_how_much(
    tmp_path: Path, asked: list[list[str]], selection: str
) -> None:
    train = rows_file(tmp_path, "train.jsonl", *(f"{n} {LONG}" for n in range(9)))
    test = rows_file(tmp_path, "test.jsonl", LONG, "tốt")
    settings = config(tmp_path, f"data.train_split={train}", f"data.test_split={test}", "prompt.max_length=400",
                      "fewshot.shots=[4]", f"fewshot.selection={selection}", "fewshot.repeats=1")  # fmt: skip
    with pytest.warns(UserWarning, match="1 of 2 test sentences were shortened"):
        study = fewshot_study.fewshot(settings, quiet=True)
    row = study.rows[-1]
    assert (row.name, row.tokens, row.truncated) == ("backbone, 4 shots", 400, 1)
    text = asked[-1][1]
    shown = re.findall(r"Sentence: (\d .*)\nSentiment: positive", text)
    assert len(shown) == 4
    whole = sum(len(tokenizer()(f"{text[0]} {LONG.strip()}", add_special_tokens=False).input_ids) for text in shown)
    left = sum(len(tokenizer()(text, add_special_tokens=False).input_ids) for text in shown)
    assert row.demonstrations_cut == pytest.approx(1 - left / whole)
    assert fewshot_notes(study)[-1] == (
        f"shortened to fit, backbone, 4 shots: {1 - left / whole:.1%} of the demonstrations' tokens; 1 of 2 test rows,"
        f" {row.cut:.1%} of all rows' tokens"
    )
    assert 0.5 < row.cut < 1
    assert len(fewshot_notes(study)) == 5  # the prompt without demonstrations is shortened, too


def test_a_long_sentence_alone_is_shortened_as_in_an_evaluation(tmp_path: Path) -> None:
    test = rows_file(tmp_path, "dài.jsonl", LONG, "tốt")
    overrides = (f"data.test_split={test}", "prompt.max_length=256", "fewshot.shots=[1]")
    with pytest.warns(UserWarning, match="shortened"):
        study = fewshot_study.fewshot(config(tmp_path, *overrides), quiet=True)
    assert [draw.report.truncated for draw in study.draws] == [1, 1, 1]
    assert [draw.demonstrations_cut for draw in study.draws] == [0, 0, 0]
    assert [row.tokens for row in study.rows if row.model == BACKBONE] == [256, 256]  # filled up


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
