"""Rows with 0 to 3 labels: a training learns them, and eval and predict use the thresholds that it chose."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import label_sets
from helpers.config import config
from helpers.data import write_rows

from loraft.data.dataset import Split, load_data
from loraft.data.examples import Examples
from loraft.data.records import Example
from loraft.errors import ConfigError
from loraft.evaluation import label_sets as module
from loraft.evaluation.evaluate import Evaluation, evaluate
from loraft.evaluation.label_sets import judged
from loraft.evaluation.predict import predict
from loraft.models import manifest
from loraft.models.calibration import Calibration
from loraft.runs.predictions import read_rows
from loraft.runs.run import Run
from loraft.training.pipeline import train
from loraft.training.results import RunResult

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # about few rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Eight steps of the bundled backbone on made rows, whose checkpoint is picked by the F1 of one label."""
    folder = tmp_path_factory.mktemp("nhãn")
    steps = ("train.max_steps=8", "train.eval_steps=8", "train.learning_rate=2e-3", "train.metric=f1:học phí")
    return train(label_sets.made_config(folder, *steps), quiet=True)


def test_a_training_learns_label_sets(trained: RunResult) -> None:
    assert trained.before is not None
    assert trained.after.scores["micro_f1"] > trained.before.scores["micro_f1"] + 0.2
    assert trained.after.log_loss < trained.before.log_loss  # type: ignore[operator]
    assert trained.train.validation_macro_f1 is not None
    assert RunResult.of(Run.open(trained.run)) == trained


def test_the_f1_of_one_label_picks_the_checkpoint_and_has_an_interval(trained: RunResult) -> None:
    (f1,) = (row.f1 for row in trained.after.per_class if row.label == "học phí")
    assert trained.after.scores["label_f1"] == pytest.approx(f1)
    low, high = trained.after.intervals["label_f1"]
    assert low <= f1 <= high
    log = Run.open(trained.run).read_log()
    assert any("eval_label_f1" in row for row in log)


def test_eval_and_predict_use_the_thresholds_of_the_training(trained: RunResult) -> None:
    run = Run.open(trained.run)
    thresholds = manifest.read(run.adapter).thresholds
    assert thresholds == trained.after.thresholds
    assert thresholds != trained.before.thresholds == (0.5, 0.5, 0.5)  # type: ignore[union-attr]
    again: Evaluation = evaluate(run=run.path)
    assert again.report.scores == pytest.approx(trained.after.scores)
    assert again.report.thresholds == thresholds
    rows = read_rows(run)
    assert [row.label for row in rows[:3]] == [(), ("cơ sở vật chất",), tuple(label_sets.LABELS)]
    found = list(predict([row.text for row in rows], run=run.path))
    assert [one.label for one in found] == [row.predicted for row in rows]
    for one in found:
        applies = [p >= least for p, least in zip(one.probs.values(), thresholds or (), strict=True)]
        assert one.label == tuple(label for label, yes in zip(one.probs, applies, strict=True) if yes)


def test_what_needs_validation_rows_of_one_label_is_refused(trained: RunResult) -> None:
    for asked in ({"sets": 0.9}, {"prior": {label_sets.LABELS[0]: 1.0}}):
        with pytest.raises(ConfigError, match=f"{next(iter(asked))}: needs scores .* a row may have several labels"):
            next(predict("thầy dạy hay", run=trained.run, **asked))


def test_a_confidence_below_which_rows_are_undecided_is_refused(trained: RunResult) -> None:
    with pytest.raises(ConfigError, match=r"min_confidence: with prompt\.kind=multilabel"):
        next(predict("thầy dạy hay", run=trained.run, min_confidence=0.5))


def test_the_bundled_feedback_has_a_topic_and_a_sentiment_in_each_row(tmp_path: Path) -> None:
    labels = [*label_sets.TOPICS, *label_sets.SENTIMENTS]
    write_rows(tmp_path / "test.jsonl", label_sets.feedback_rows("test"))
    section = config(
        tmp_path, f"data.source={tmp_path}", f"prompt.task={label_sets.task_file(tmp_path, labels)}",
        "data.max_test_rows=12", "eval.baselines=off",
    )  # fmt: skip
    sets = load_data(section, "test").label_sets(7)
    assert sets[:, :4].sum(axis=1).tolist() == sets[:, 4:].sum(axis=1).tolist() == [1] * 12
    found = evaluate(config=section, zero_shot=True)
    assert [row.label for row in found.report.per_class] == labels
    content = json.loads(json.dumps(found.to_json()))
    assert content["thresholds"] == [0.5] * 7
    assert 0 <= content["micro_f1"] <= 1


@pytest.mark.slow
def test_a_training_learns_topics_and_sentiments_of_the_bundled_feedback(tmp_path: Path) -> None:
    labels = [*label_sets.TOPICS, *label_sets.SENTIMENTS]
    for split in ("train", "validation", "test"):
        write_rows(tmp_path / f"{split}.jsonl", label_sets.feedback_rows(split))
    section = config(
        tmp_path / "runs", f"data.source={tmp_path}", f"prompt.task={label_sets.task_file(tmp_path, labels)}",
        "train.max_steps=300", "train.eval_steps=100", "data.max_train_rows=null", "train.learning_rate=2e-3",
        "data.max_test_rows=200", "data.max_eval_rows=150", "eval.baselines=on",
    )  # fmt: skip
    result = train(section, quiet=True)
    assert result.before is not None
    assert result.after.scores["micro_f1"] > result.before.scores["micro_f1"] + 0.2
    assert result.baselines is not None
    largest_set = result.baselines.rows[0]  # the answer that needs no sentence
    assert result.after.scores["macro_f1"] > largest_set.scores["macro_f1"] + 0.1


def test_generated_answers_are_refused(tmp_path: Path) -> None:
    section = label_sets.made_config(tmp_path, "eval.decode=generate")
    with pytest.raises(ConfigError, match=r"eval\.decode: generates one label a row"):
        evaluate(config=section, zero_shot=True)


def test_the_report_has_the_probabilities_before_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores_N2K = np.random.default_rng(0).normal(0, 3, (40, 4))
    split = Split("test", Examples(Example(f"câu {n}", (n % 2,), n) for n in range(40)), "")
    monkeypatch.setattr(module.scorer, "score", lambda *_, **__: scores_N2K)
    encoder: Any = SimpleNamespace(task=SimpleNamespace(labels=("a", "b")), completions_K=[], unscored=0)
    one = Calibration(2.0, None, 60)
    least = (0.3, 0.7)
    found, rows = judged(Any, encoder, [], split, config(tmp_path), one.of_yes(np.array(least)).tolist(), one)  # type: ignore[arg-type]
    plain, same = judged(Any, encoder, [], split, config(tmp_path), least)  # type: ignore[arg-type]
    before = found.before_calibration
    assert before is not None
    assert (before.log_loss, before.expected_calibration_error) == (plain.log_loss, plain.expected_calibration_error)
    assert (found.calibration, plain.calibration, plain.before_calibration) == (one, None, None)
    assert [row.predicted for row in rows] == [row.predicted for row in same]
    assert found.log_loss != before.log_loss
