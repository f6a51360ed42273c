"""Training by folds: every row is predicted once, by the adapter that saw neither it nor a copy of it."""

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.baselines import NOTE, noted
from helpers.data import sentences, write_rows

from loraft.config.resolve import load_config, resolve
from loraft.config.schema import Config, OutputSection
from loraft.data.dataset import load_data
from loraft.engine.probabilities import to_probs
from loraft.errors import ConfigError, DataError, RunError
from loraft.evaluation.evaluate import evaluate
from loraft.evaluation.metrics import core, log_loss
from loraft.models.calibration import NONE, Calibration
from loraft.runs.predictions import PredictedRow, read_rows
from loraft.runs.run import Run
from loraft.runs.study_folders import FoldsFolder
from loraft.studies import report
from loraft.studies.sweep import local_engine
from loraft.studies.sweep.fold_records import FoldsResult
from loraft.studies.sweep.fold_tables import folds_notes
from loraft.studies.sweep.folds import _judged, _of_trainings, train_folds

pytestmark = pytest.mark.usefixtures("loads")

LABELS = ["negative", "neutral", "positive"]
# 36 sentences, the first four of each label twice: the copies differ in a full stop.
PAIRS = [(text, LABELS[i % 3]) for i, text in enumerate(sentences(36))]
PAIRS += [(f"{text}.", label) for text, label in PAIRS[:12]]


def written(path: Path, pairs: list[tuple[str, str]]) -> Path:
    return write_rows(path, [{"sentence": text, "sentiment": label} for text, label in pairs])


def config(source: Path, output: Path) -> Config:
    return resolve(
        overrides=["train.max_steps=2", "train.eval_steps=2", "train.metric=f1:positive", "lora.r=2", "name=gấp",
                   "train.per_device_train_batch_size=4", "eval.bootstrap_samples=100", f"data.source={source}",
                   f"output={output}"]
    )  # fmt: skip


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory, loads: list[Any]) -> tuple[Config, FoldsResult]:
    folder = tmp_path_factory.mktemp("gấp")
    section = config(written(folder / "một tệp.csv", PAIRS), folder / "runs")
    return section, train_folds(section, 3, quiet=True)


def test_every_row_is_predicted_once_by_an_adapter_that_saw_no_copy_of_it(folded: tuple[Config, FoldsResult]) -> None:
    rows = read_rows(Run(Path(folded[1].path)))
    assert [row.row for row in rows] == list(range(1, 49))
    assert [row.text for row in rows] == [text for text, _ in PAIRS]
    for fold in folded[1].folds:
        own = load_config(Path(fold.run) / "config.yaml")
        train, validation, test = (load_data(own, name) for name in ("train", "validation", "test"))
        assert [len(train), len(test)] == [fold.train_rows, fold.n]
        assert sorted(e.row for part in (train, validation, test) for e in part.examples) == list(range(1, 49))
        stems = [{text.rstrip(".") for text in part.texts} for part in (train, validation, test)]
        assert sum(map(len, stems)) == len(set.union(*stems))
        assert set(Counter(test.labels.tolist()).values()) <= {4, 5, 6}  # 16 rows of a label in 12 groups, 3 folds


def test_the_scores_are_those_of_all_rows_together(folded: tuple[Config, FoldsResult]) -> None:
    result = folded[1]
    rows = read_rows(Run(Path(result.path)))
    ids = {label: k for k, label in enumerate(LABELS)}
    references, predictions = ([ids[str(label)] for label in one]
                               for one in zip(*((row.label, row.predicted) for row in rows), strict=True))  # fmt: skip
    expected = core(references, predictions, 3)
    assert {score: result.report.scores[score] for score in expected} == pytest.approx(expected)
    assert result.report.n == 48
    low, high = result.report.intervals["label_f1"]
    assert low <= result.report.scores["label_f1"] <= high
    assert result.report.scores["label_f1"] == pytest.approx(result.report.per_class[2].f1)
    assert result.baselines is not None
    # The majority label of each fold's training rows, on that fold.
    right = 0
    for fold in result.folds:
        own = load_config(Path(fold.run) / "config.yaml")
        majority = np.bincount(load_data(own, "train").labels).argmax()
        right += int((load_data(own, "test").labels == majority).sum())
    assert result.baselines.rows[0].scores["accuracy"] == pytest.approx(right / 48)


def test_each_fold_is_calibrated_by_its_own_temperature(folded: tuple[Config, FoldsResult]) -> None:
    section = resolve(overrides=["eval.bootstrap_samples=100"])
    scores_NK = np.random.default_rng(0).normal(0, 2, (80, 3))
    fitted = (Calibration(2.0, None, 60), Calibration(0.5, (0.25, -0.25, 0.0), 60))
    rows = [
        [PredictedRow(n, "", LABELS[n % 3], LABELS[int(probs_K.argmax())], dict(zip(LABELS, probs_K, strict=True)))
         for n, probs_K in enumerate(one.probabilities(part_NK))]
        for one, part_NK in zip(fitted, np.split(scores_NK, 2), strict=True)
    ]  # fmt: skip
    found, _ = _judged(section, list(zip(rows, fitted, strict=True)), tuple(LABELS))
    references = [*np.arange(40) % 3] * 2
    before = found.before_calibration
    assert before is not None
    assert before.log_loss == pytest.approx(log_loss(references, to_probs(scores_NK)))
    assert found.log_loss != pytest.approx(before.log_loss)
    assert found.calibration is None
    told = folds_notes(replace(folded[1], report=found))
    assert any(line.startswith("the checkpoint of a fold is picked by ") for line in told)
    last = folds_notes(replace(folded[1], report=found, kept="last"))
    assert any(line.startswith("a fold keeps the weights of its last step;") for line in last)
    assert not any("picked by" in line for line in last)
    assert "calibrated: each fold by its own temperature" in told
    plain, _ = _judged(section, [(part, NONE) for part in rows], tuple(LABELS))
    assert plain.before_calibration is None


def test_what_the_scores_hide_is_told_and_kept(
    folded: tuple[Config, FoldsResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    section, result = folded
    monkeypatch.setattr(local_engine, "run_training", lambda *given, **named: pytest.fail("a fold was trained"))
    with pytest.warns(UserWarning, match="fewer than 20 training rows") as given:
        assert train_folds(section, 3, quiet=True).warnings == result.warnings
    told = [str(one.message) for one in given]
    assert told == list(result.warnings)
    # 16 rows of a label: some 10 of them are training rows of a fold. None stands in train of its own fold.
    assert any(one.startswith("fewer than 20 training rows: ") for one in told)
    assert any("intervals are wide on 48 rows" in one and "data.train_split" in one for one in told)
    assert not any("stand in train" in one for one in told)


def test_what_decides_between_interval_and_test_is_in_the_notes(folded: tuple[Config, FoldsResult]) -> None:
    *_, note, verdict = folds_notes(replace(folded[1], baselines=noted()))
    assert (note, verdict) == (NOTE, "The adapter is worse.")


def test_trainings_that_went_alike_are_told_once_with_their_folds() -> None:
    rate, first = "the learning rate 9 is 5 times above ({})", "validation is best at its first evaluation ({})"
    told = {"fold1": [rate.format(1)], "fold2": [first.format(2), rate.format(2)], "fold3": []}
    assert _of_trainings(told) == [f"fold1, fold2: {rate.format(1)}", f"fold2: {first.format(2)}"]


def test_the_same_command_trains_nothing_again_and_reports(
    folded: tuple[Config, FoldsResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    section, result = folded
    monkeypatch.setattr(local_engine, "run_training", lambda *given, **named: pytest.fail("a fold was trained"))
    assert train_folds(section, 3, quiet=True) == result
    assert FoldsResult.of(FoldsFolder(Path(result.path))) == result
    page = report.markdown(Path(result.path))
    assert "F1 of positive" in page
    assert "fold3" in page
    assert "\n## Warnings\n" in page
    fold = Run.open(result.folds[1].run)
    assert list(evaluate(run=fold.path).rows) == read_rows(fold)


def test_rows_that_changed_are_refused(folded: tuple[Config, FoldsResult], tmp_path: Path) -> None:
    section, result = folded
    shutil.copytree(section.output.folder, tmp_path / "runs")
    source = Path(section.data.source)
    kept = source.read_bytes()
    try:
        written(source, [*PAIRS, ("thêm một câu", "neutral")])
        with pytest.raises(RunError, match=r"drew its splits otherwise \(got fingerprint of all rows .* then"):
            train_folds(
                section.model_copy(update={"output": OutputSection(folder=str(tmp_path / "runs"))}), 3, quiet=True
            )
        with pytest.raises(RunError, match="may be training rows; put the file"):
            evaluate(run=result.folds[0].run)
    finally:
        source.write_bytes(kept)


@pytest.mark.parametrize("given", [{"split": [0.8, 0.1, 0.1]}, {"test_split": "khác.csv"}, {"validation_split": "dev"}])
def test_splits_that_folds_would_leave_unread_are_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    section = config(tmp_path / "một tệp.csv", tmp_path)
    named = section.model_copy(update={"data": section.data.model_copy(update=given)})
    ((key, value),) = given.items()
    with pytest.raises(ConfigError, match=rf"--folds: .*data\.{key}={re.escape(str(value))}\); leave out this"):
        train_folds(named, 3, quiet=True)


def test_a_label_with_fewer_rows_than_folds_and_a_fold_that_is_none_are_refused(tmp_path: Path) -> None:
    section = config(written(tmp_path / "ít.csv", PAIRS[:7]), tmp_path)
    with pytest.raises(DataError, match=r"to draw 3 splits \(got neutral: 2 rows, positive: 2 rows.*--folds"):
        train_folds(section, 3, quiet=True)
    for fold in ("3/2", "1/1", "x"):
        with pytest.raises(ConfigError, match=r"^data\.fold: "):
            resolve(overrides=[f"data.fold={fold}"])
