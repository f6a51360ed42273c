"""Evaluation of runs, backbones and models in memory."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import LABELS, SENTENCES, backbone, encoder, tokenizer
from helpers.tokenizers import made

from loraft.config.resolve import load_config, resolve
from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.data.records import Example
from loraft.engine import scorer
from loraft.engine.probabilities import to_probs
from loraft.errors import BackboneError, Note, RunError
from loraft.evaluation.classification_report import classification_report
from loraft.evaluation.evaluate import evaluate, judge
from loraft.models.encoder import Encoder
from loraft.models.load import build, load_run
from loraft.runs.records import as_json
from loraft.runs.run import Run

ROWS = tuple(Example(text, label, 10 * n) for n, (text, label) in enumerate(zip(SENTENCES, LABELS, strict=True)))
SPLIT = Split("test", ROWS, "rows")
NAMES = ("negative", "neutral", "positive")


def config(*overrides: str) -> Config:
    return resolve(overrides=["eval.bootstrap_samples=100", *overrides])


# --- judge ------------------------------------------------------------------------------------------------------------


def test_scoring_predicts_the_most_probable_label_of_each_row() -> None:
    model, prompts = backbone(), encoder().encode(SPLIT.texts)
    report, rows = judge(model, encoder(), prompts, SPLIT, config("seed=5", "eval.confidence=0.5"))
    probs = to_probs(scorer.score(model, [prompt.ids for prompt in prompts], encoder().completions_K))
    predictions = probs.argmax(axis=1)
    assert len(set(predictions.tolist())) > 1  # else the comparisons below say little
    assert [row.predicted for row in rows] == [NAMES[k] for k in predictions]
    assert [row.label for row in rows] == [NAMES[k] for k in LABELS]
    assert [(row.row, row.text) for row in rows] == [(10 * n, text) for n, text in enumerate(SENTENCES)]
    for row, probs_K in zip(rows, probs, strict=True):
        assert row.answer is None
        assert row.probs == dict(zip(NAMES, map(float, probs_K), strict=True))
    expected = classification_report(SPLIT.labels, probs, predictions, NAMES, bootstrap_samples=100, confidence=0.5,
                                     seed=5)  # fmt: skip
    found = {key: value for key, value in as_json(report).items() if key != "seconds"}
    assert found == {key: value for key, value in as_json(expected).items() if key != "seconds"}
    assert report.seconds > 0


def test_ties_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loraft.engine.scorer.score", lambda *args, **kwargs: np.zeros((6, 3)))
    with pytest.warns(Note, match="6 of 6 rows: the best labels tie"):
        judge(backbone(), encoder(), encoder().encode(SPLIT.texts), SPLIT, config())


def test_generating_reads_the_label_from_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["Sentiment: positive", "Sentiment: tốt", "neutral", "Sentiment: negative", "", "Sentiment: neutral"]
    given: dict[str, Any] = {}

    def generated(model: torch.nn.Module, ids: list[list[int]], completions_K: Any, **settings: Any) -> list[list[int]]:
        given.update(settings, ids=ids, completions_K=completions_K)
        return [
            [*tokenizer()(answer, add_special_tokens=False)["input_ids"], encoder().end_of_turn] for answer in answers
        ]

    monkeypatch.setattr("loraft.engine.decoding.generate", generated)
    prompts = encoder().encode(SPLIT.texts)
    asked = config("eval.decode=generate", "eval.max_new_tokens=9", "eval.batch_tokens=1234")
    report, rows = judge(backbone(), encoder(), prompts, SPLIT, asked)
    assert [row.predicted for row in rows] == ["positive", None, "neutral", "negative", None, "neutral"]
    assert [row.answer for row in rows] == answers
    assert {row.probs is None for row in rows} == {True}
    assert (report.decode, report.no_label) == ("generate", 2 / 6)
    # Gold is positive, negative, neutral, negative, positive, negative: rows 1, 3 and 4 are right.
    assert report.accuracy == 3 / 6
    assert report.log_loss is None
    assert given == {
        "ids": [prompt.ids for prompt in prompts], "completions_K": encoder().completions_K,
        "pad": encoder().tokenizer.pad_token_id, "max_new_tokens": 9, "batch_tokens": 1234,
    }  # fmt: skip


def test_answers_over_an_uncased_vocabulary_name_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    task = replace(encoder().task, answer_prefix="Nhãn: ", label_words=("Tiêu cực", "Vừa 😀", "Tích cực"))
    uncased = Encoder(made("wordpiece"), task, date_string="", max_length=4096)
    texts = ("Vừa 😀", "nhan : tieu", "")
    short = [made("wordpiece")(text, add_special_tokens=False)["input_ids"] for text in texts]
    own = [ids[:-1] for ids in uncased.completions_K]
    monkeypatch.setattr("loraft.engine.decoding.generate", lambda *args, **kwargs: [*own, *short])
    _, rows = judge(backbone(), uncased, uncased.encode(SPLIT.texts), SPLIT, config("eval.decode=generate"))
    assert [row.predicted for row in rows] == [*NAMES, "neutral", None, None]
    assert [row.answer for row in rows] == [
        "nhan : tieu cuc", "nhan : vua", "nhan : tich cuc", "vua", "nhan : tieu", ""
    ]  # fmt: skip


def test_shortened_sentences_are_counted() -> None:
    short = encoder(max_length=120)
    prompts = short.encode(SPLIT.texts)
    cut = sum(prompt.cut > 0 for prompt in prompts)
    assert 0 < cut < len(prompts)
    report, _ = judge(backbone(), short, prompts, SPLIT, config())
    assert report.truncated == cut
    whole = encoder().encode(SPLIT.texts)
    left_out = sum(len(one.ids) - len(other.ids) for one, other in zip(whole, prompts, strict=True))
    assert report.cut == left_out / sum(len(one.ids) - len(encoder().encode([""])[0].ids) for one in whole)


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_a_run_is_evaluated_with_its_adapter_and_its_own_config(run: Run) -> None:
    found = evaluate(run=run.path)
    section = load_config(run.config_path)
    own, model = load_run(run, section)
    report, rows = judge(model, own, own.encode(SENTENCES), SPLIT, section)
    assert found.report.scores == report.scores
    assert found.report.log_loss == report.log_loss
    assert [row.probs for row in found.rows] == [row.probs for row in rows]
    assert [row.row for row in found.rows] == [1, 2, 3, 4, 5, 6]
    assert (found.labels, found.split) == (NAMES, "test")
    assert found.source.endswith("test.jsonl")


def test_without_a_run_the_backbone_is_evaluated(run: Run) -> None:
    section = load_config(run.config_path)
    found = evaluate(config=section, zero_shot=True)
    own, base = build(section)
    assert found.report.log_loss == judge(base, own, own.encode(SENTENCES), SPLIT, section)[0].log_loss
    assert found.report.log_loss != evaluate(run=run.path).report.log_loss


@pytest.mark.parametrize(("length", "words"), [(120, "of 6 test sentences were shortened"), (110, "was cut away")])
def test_shortened_sentences_are_told_once_with_the_splits_name(length: int, words: str, run: Run) -> None:
    section = resolve(config_file=run.config_path, overrides=[f"prompt.max_length={length}", "eval.baselines=off"])
    with pytest.warns(UserWarning, match=words) as told:
        found = evaluate(config=section, zero_shot=True)
    assert found.report.truncated
    assert sum("prompt.max_length" in str(one.message) for one in told) == 1
    assert not any("train." in sentence for sentence in found.warnings)  # keys of a training do not help without one


def test_another_split_and_another_config_are_taken(run: Run) -> None:
    section = resolve(config_file=run.config_path, overrides=["eval.confidence=0.5"])
    found = evaluate(run=str(run.path), config=section, split="khác")
    assert (found.report.n, found.report.confidence, found.split) == (1, 0.5, "khác")
    file = run.path.parent / "data" / "khác.jsonl"
    assert evaluate(run=run.path, split=str(file)).report.n == 1


def test_in_json_what_was_evaluated_stands_behind_the_report_without_the_rows(run: Run) -> None:
    found = evaluate(run=run.path)
    content = found.to_json()
    assert list(content) == [
        *found.report.to_json(), "labels", "split", "source", "notes", "adapter", "baselines", "warnings"
    ]  # fmt: skip
    assert content["baselines"] is None  # the data has no train split
    assert any("never predicted" in sentence for sentence in content["warnings"])
    assert content["adapter"] == str(run.adapter)
    assert content["accuracy"] == np.mean([row.label == row.predicted for row in found.rows])


def test_one_of_run_adapter_and_zero_shot_must_be_given(run: Run) -> None:
    for several in ({"zero_shot": True}, {"adapter": run.adapter}):
        with pytest.raises(RunError, match=r"got --run and .*; give one of"):
            evaluate(run=run.path, **several)  # type: ignore[arg-type]
    for nothing in ({}, {"config": config()}):
        with pytest.raises(RunError, match="nothing to evaluate"):
            evaluate(**nothing)  # type: ignore[arg-type]
    for alone in ({"zero_shot": True}, {"adapter": run.adapter}):
        with pytest.raises(RunError, match="no config"):
            evaluate(**alone)  # type: ignore[arg-type]


def test_an_adapter_made_elsewhere_is_evaluated_on_the_configs_backbone(run: Run, tmp_path: Path) -> None:
    section = load_config(run.config_path)
    folder = shutil.copytree(run.adapter, tmp_path / "bộ")
    (folder / "loraft.json").unlink()
    found = evaluate(config=section, adapter=folder)
    assert found.rows == evaluate(run=run.path).rows
    assert found.to_json()["adapter"] == str(folder)
    text = (folder / "adapter_config.json").read_text(encoding="utf-8")
    named = json.dumps({**json.loads(text), "base_model_name_or_path": "ai/khác"})
    (folder / "adapter_config.json").write_text(named, encoding="utf-8")
    with pytest.warns(Note, match=r"trained with the backbone ai/khác, and is used with"):
        assert evaluate(config=section, adapter=folder).rows == found.rows
    elsewhere = section.model_copy(update={"model": section.model.model_copy(update={"name": "ai/khác"})})
    with pytest.raises(BackboneError, match=r"its backbone cannot be loaded \(got ai/khác: .*--model"):
        evaluate(config=elsewhere, adapter=folder)


def test_a_runs_own_adapter_is_checked_as_the_run_is(run: Run) -> None:
    other = resolve(config_file=run.config_path, overrides=["prompt.date_string=01 Jan 2030"])
    with pytest.raises(RunError, match="date in the prompt"):
        evaluate(config=other, adapter=run.adapter)
    assert evaluate(config=load_config(run.config_path), adapter=str(run.adapter)).rows
