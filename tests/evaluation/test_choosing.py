"""The score that `train.metric` names: how a config gives it, where it stands in tables, what it adds to reports."""

from pathlib import Path
from typing import Any

import pytest

from loraft.config.resolve import resolve
from loraft.errors import ConfigError
from loraft.evaluation.choosing import DEFAULT, Metric
from loraft.evaluation.classification_report import EvaluationReport, classification_report
from loraft.evaluation.metrics import confusion
from loraft.evaluation.significance import compared
from loraft.evaluation.tables import before_after, summary
from loraft.evaluation.verdicts import verdict
from loraft.runs.records import as_json, record_from

LABELS = ["chê", "thường", "khen"]
REFERENCES, GOOD, BAD = [0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 1, 2, 2, 1], [2, 2, 1, 1, 0, 0, 0, 2]

SETTINGS: dict[str, Any] = {"bootstrap_samples": 200, "confidence": 0.95, "seed": 1}


def metric(name: str, kind: str = "single") -> Metric:
    labels = "[negative, neutral, positive]"
    return Metric.of(resolve(overrides=[f"train.metric={name}", f"prompt.kind={kind}", f"prompt.labels={labels}"]))


def report(answers: list[int], of: Metric = DEFAULT) -> EvaluationReport:
    return of.added(classification_report(REFERENCES, None, answers, LABELS, **SETTINGS), 200, 1)


def test_the_default_adds_nothing_to_a_report_and_leaves_the_order_of_tables() -> None:
    assert metric("macro_f1") == DEFAULT
    assert report(GOOD) == report(GOOD, DEFAULT)
    assert DEFAULT.shown(report(GOOD).scores) == ["accuracy", "macro_f1", "macro_precision", "macro_recall"]


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        # GOOD: label 2 has precision 1 and recall 2/3, so F1 0.8. Wrong by one step twice: 2 / 8.
        ("f1:positive", "F1 of positive", "0.8000"),
        ("mean_absolute_error", "mean absolute error", "0.2500"),
        ("accuracy", "accuracy", "0.7500"),
    ],
)
def test_another_metric_heads_the_table_with_its_interval(name: str, word: str, value: str) -> None:
    of = metric(name, "ordinal")
    found = report(GOOD, of)
    low, high = found.intervals[of.key]
    rows = [[str(cell) for cell in column.cells] for column in summary(found, of).columns]
    assert (rows[0][0], rows[1][0]) == (word, f"{value} [{low:.3f}, {high:.3f}]")
    assert low <= found.scores[of.key] <= high
    assert of.value(confusion(REFERENCES, GOOD, 3)) == found.scores[of.key]
    assert "quadratic kappa" in rows[0]
    assert record_from(as_json(found), EvaluationReport, Path(), "") == found


def test_the_f1_of_a_label_without_rows_has_neither_interval_nor_test() -> None:
    of, references = metric("f1:neutral"), [0, 0, 2, 2]
    found = of.added(classification_report(references, None, [0, 0, 2, 0], LABELS, **SETTINGS), 200, 1)
    assert [str(next(iter(column.cells))) for column in summary(found, of).columns] == ["F1 of neutral", "0.0000"]
    assert of.compared(references) == ("accuracy", "macro_f1")
    assert of.compared(REFERENCES) == ("accuracy", "macro_f1", "label_f1:1")


def test_a_lower_error_is_better() -> None:
    of, many = metric("mean_absolute_error", "ordinal"), 20
    (gaps,) = compared(
        REFERENCES * many, [([GOOD * many], [BAD * many])], 3, scores=of.compared(REFERENCES), **SETTINGS
    )
    # GOOD is wrong by 2 / 8 steps, BAD by (2 + 2 + 1 + 1 + 2 + 2) / 8.
    assert gaps["mean_absolute_error"].difference == pytest.approx(-1.0)
    assert gaps["mean_absolute_error"].interval[1] < 0
    assert verdict(gaps, 0.95) == "better"
    assert of.gain(0.25) > of.gain(0.5)
    column = before_after(report(BAD, of), report(GOOD, of), of).columns[-1]
    assert str(next(iter(column.cells))) == "-1.00 steps"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["train.metric=f1:tốt"],
            r"^train: metric='f1:tốt' names no label of the task; labels: negative, neutral, posit",
        ),
        (
            ["train.metric=quadratic_kappa"],
            r"^train: metric=quadratic_kappa needs labels in order; set prompt\.kind=ord",
        ),
        (["train.metric=auc"], r"^train\.metric: is no metric \(got 'auc', from --set\); macro_f1, accuracy"),
    ],
)
def test_a_metric_that_the_task_does_not_have_is_refused(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(overrides=given)


def test_a_task_file_says_that_its_labels_are_in_order(tmp_path: Path) -> None:
    task = tmp_path / "sao.yaml"
    task.write_text("labels: [tệ, thường, tốt]\nkind: ordinal\n", encoding="utf-8")
    config = resolve(overrides=[f"prompt.task={task}", "train.metric=quadratic_kappa"])
    assert Metric.of(config) == Metric("quadratic_kappa", "quadratic kappa", "quadratic_kappa", True)
    assert resolve(overrides=[f"prompt.task={task}"], flags={"prompt.task": "topic"}).prompt.kind == "single"
