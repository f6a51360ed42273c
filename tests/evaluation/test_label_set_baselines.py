"""The baselines of label sets, and a model beside them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import label_sets
from helpers.config import config
from helpers.data import write_rows
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from loraft.config.schema import Config, OutputSection
from loraft.data.dataset import Split, load_data
from loraft.evaluation import advice, label_set_baselines
from loraft.evaluation.baselines import tfidf
from loraft.evaluation.multilabel import label_set_report
from loraft.evaluation.verdicts import BETTER, UNCLEAR, WORSE


@pytest.fixture(scope="module")
def feedback(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Split, Split]:
    """300 training and 120 test rows of the bundled feedback, each with a topic and a sentiment, and a rare label."""
    folder = tmp_path_factory.mktemp("phản hồi")
    labels = [*label_sets.TOPICS, *label_sets.SENTIMENTS, "lạ"]
    for split in ("train", "test"):
        write_rows(folder / f"{split}.jsonl", label_sets.feedback_rows(split))
    task = label_sets.task_file(folder, labels)
    limits = ("data.max_train_rows=300", "data.max_test_rows=120", "eval.baselines=auto")
    section = config(folder / "runs", f"data.source={folder}", f"prompt.task={task}", *limits)
    return section, load_data(section, "train"), load_data(section, "test")


def test_the_baselines_are_the_largest_set_and_one_svm_a_label(feedback: tuple[Config, Split, Split]) -> None:
    _, train, test = feedback
    largest = label_set_baselines.most_frequent_set(train, test, 8)
    assert largest.tolist() == [[True, False, False, False, False, False, True, False]] * 120  # lecturer, positive
    known = train.label_sets(8)[:, :7]
    expected = make_pipeline(tfidf(300), OneVsRestClassifier(LinearSVC(random_state=0))).fit(train.texts, known)
    found = label_set_baselines.linear_svms(train, test, 8)
    assert (found[:, :7] == expected.predict(test.texts)).all()
    assert not found[:, 7].any()  # no training row has it


def test_a_model_stands_beside_the_baselines_with_a_verdict(feedback: tuple[Config, Split, Split]) -> None:
    section, train, test = feedback
    sides: dict[str, np.ndarray] = {
        BETTER: test.label_sets(8),
        WORSE: np.zeros((120, 8), dtype=bool),
        UNCLEAR: label_set_baselines.linear_svms(train, test, 8),
    }
    for word, predictions in sides.items():
        found = label_set_baselines.compared_with(section, train, test, predictions, "adapter")
        assert found is not None
        svms = found.rows[1]
        assert svms.verdict == word
        assert 0.5 < svms.scores["micro_f1"] < 1
        assert list(svms.differences) == ["subset_accuracy", "micro_f1", "macro_f1"]
        assert found.verdict.startswith("The adapter")


def test_kept_baselines_are_not_taken_for_a_task_with_another_number_of_labels(
    feedback: tuple[Config, Split, Split], tmp_path: Path
) -> None:
    section, train, test = feedback
    for labels in (section.prompt.labels or [], [*(section.prompt.labels or []), "chưa có"]):
        prompt = section.prompt.model_copy(update={"labels": labels})
        given = section.model_copy(update={"prompt": prompt, "output": OutputSection(folder=str(tmp_path))})
        found = label_set_baselines.compared_with(given, train, test, test.label_sets(len(labels)), "adapter")
        assert found is not None
        assert found.rows[0].verdict == BETTER


def test_warnings_name_labels_that_are_never_predicted_or_rare(feedback: tuple[Config, Split, Split]) -> None:
    section, train, test = feedback
    probs = np.where(test.label_sets(8), 0.9, 0.1)
    probs[:, 0] = 0.0
    settings: dict[str, Any] = {"bootstrap_samples": 100, "confidence": 0.95, "seed": 1}
    report = label_set_report(test.label_sets(8), probs, [0.5] * 8, section.prompt.labels or [], **settings)
    told = "\n".join(advice.of_label_sets(section, report, test, probs >= 0.5, train))
    assert "never predicted: giảng viên" in told
    assert "fewer than 20 training rows: lạ (0)" in told


def test_no_baselines_where_they_are_off(feedback: tuple[Config, Split, Split], tmp_path: Path) -> None:
    section, train, test = feedback
    off = section.model_copy(update={"eval": section.eval.model_copy(update={"baselines": "off"})})
    assert label_set_baselines.compared_with(off, train, test, test.label_sets(8), "adapter") is None
