"""The baselines are what they say they are."""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from loraft.config.resolve import resolve
from loraft.data.dataset import Split, load_data, load_split
from loraft.data.records import Example
from loraft.errors import DataError, Note
from loraft.evaluation import baselines, metrics
from loraft.evaluation.baselines import compared_with, linear_svm, majority, tfidf, train_rows


def split(rows: list[tuple[str, int]]) -> Split:
    return Split("train", tuple(Example(text, label, n) for n, (text, label) in enumerate(rows, start=1)), "rows")


TRAIN = split([("thầy tốt", 2), ("cô rất tốt", 2), ("tốt lắm", 2), ("phòng nóng", 0), ("nóng quá", 0)])


def test_the_majority_is_that_of_the_training_rows() -> None:
    assert majority(TRAIN, split([("nóng", 0), ("quá nóng", 0), ("tốt", 2)])).tolist() == [2, 2, 2]


def test_the_svm_separates_by_words() -> None:
    assert linear_svm(TRAIN, split([("phòng rất nóng", 0), ("phòng rất tốt", 2)])).tolist() == [0, 2]


def test_one_label_alone_is_answered_always() -> None:
    assert linear_svm(split([("tốt", 1), ("hay", 1)]), TRAIN).tolist() == [1] * 5


def test_terms_are_words_of_any_length_runs_of_punctuation_and_their_pairs() -> None:
    found = tfidf(2).fit(["ổn :)) !", "à ổn"]).get_feature_names_out()
    assert sorted(found) == sorted(["ổn", ":))", "!", "à", "ổn :))", ":)) !", "à ổn"])


@pytest.mark.parametrize(("rows", "terms"), [(999, {"ổn", "tốt"}), (1000, {"ổn"})])
def test_terms_of_one_row_are_left_out_from_1000_rows_on(rows: int, terms: set[str]) -> None:
    assert set(tfidf(rows).fit(["ổn", "ổn", "tốt"]).get_feature_names_out()) == terms


# 90 rows that words tell apart, and 10 of a second label: always saying the first label has 0.9 of them right.
ROWS = split([(f"thầy tốt {n}", 2) for n in range(90)] + [(f"phòng nóng {n}", 0) for n in range(10)])


def beside(output: Path, predictions: list[int], *overrides: str, train: Split | None = TRAIN) -> baselines.Baselines:
    config = resolve(overrides=[f"output={output}", "eval.bootstrap_samples=100", *overrides])
    found = compared_with(config, train, ROWS, predictions, "adapter")
    assert found is not None
    return found


def test_a_model_that_always_says_the_largest_label_is_no_success(tmp_path: Path) -> None:
    plain, svm = beside(tmp_path, [2] * 100).rows
    assert (plain.name, plain.scores["accuracy"], svm.scores["accuracy"]) == ("majority label", 0.9, 1.0)
    assert {one.difference for one in plain.differences.values()} == {0.0}
    # 90 right answers against 100: McNemar's p is 2 / 2 ** 10; macro F1 0.9474 / 2 against 1.
    assert np.isclose(svm.differences["accuracy"].p_value or 1, 2 / 2**10)
    assert np.isclose(svm.differences["macro_f1"].difference, 2 * 90 / (190 * 2) - 1)
    assert (plain.verdict, svm.verdict) == ("cannot be told apart", "worse")


def test_the_verdict_begins_with_what_the_model_loses_to(tmp_path: Path) -> None:
    said = beside(tmp_path, [2] * 100).verdict
    assert said == (
        "The adapter is worse than the TF-IDF + linear SVM (accuracy, macro F1); it cannot be told apart from the"
        " majority label (accuracy, macro F1)."
    )
    good = beside(tmp_path, ROWS.labels.tolist()).verdict
    assert good.endswith("it is better than the majority label (accuracy, macro F1).")
    mixed = beside(tmp_path, [0] * 10 + [2] * 80 + [0] * 10)  # all ten found, ten wrong: equal accuracy
    assert (mixed.rows[0].differences["accuracy"].difference, mixed.rows[0].verdict) == (0.0, "better")
    assert "better than the majority label (macro F1)" in mixed.verdict


def test_answers_are_kept_for_the_same_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = beside(tmp_path, [2] * 100)
    monkeypatch.setattr(baselines, "BASELINES", dict.fromkeys(baselines.BASELINES, lambda train, test: 1 / 0))
    assert beside(tmp_path, [2] * 100) == first
    with pytest.raises(ZeroDivisionError):
        beside(tmp_path, [2] * 100, train=split([("tốt", 2), ("nóng", 0)]))
    assert not (tmp_path / "chưa có").exists()
    with pytest.raises(ZeroDivisionError):
        beside(tmp_path / "chưa có", [2] * 100)


def test_baselines_are_left_out_where_they_are_off_or_would_take_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    off, auto, on = (resolve(overrides=[f"output={tmp_path}", f"eval.baselines={v}"]) for v in ("off", "auto", "on"))
    assert compared_with(off, TRAIN, ROWS, [2] * 100, "adapter") is None
    assert compared_with(auto, None, ROWS, [2] * 100, "adapter") is None
    monkeypatch.setattr(baselines, "MOST_WORK", 3 * sum(map(len, [*TRAIN.texts, *ROWS.texts])) - 1)  # of 3 labels
    with pytest.warns(Note, match="eval.baselines=on"):
        assert compared_with(auto, TRAIN, ROWS, [2] * 100, "adapter") is None
    assert compared_with(on, TRAIN, ROWS, [2] * 100, "adapter") is not None


def test_training_rows_are_read_where_they_are_at_hand(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("sentence,sentiment\nthầy tốt,2\n", encoding="utf-8")
    auto, on = (resolve(overrides=[f"data.source={tmp_path}", f"eval.baselines={v}"]) for v in ("auto", "on"))
    assert train_rows(auto, "test") is None
    with pytest.raises(DataError, match="no file for split train"):
        train_rows(on, "test")
    found = train_rows(resolve(overrides=["data.max_train_rows=5"]), "test")
    assert found is not None
    assert len(found) == 5
    assert train_rows(resolve(), "train") is None
    off = resolve(overrides=["data.max_train_rows=5", "eval.baselines=off"])
    assert train_rows(off, "test") == found  # warnings need them, too


@pytest.mark.parametrize("task", ["sentiment", "topic"])
@pytest.mark.parametrize("source", ["feedback", os.environ.get("LORAFT_VSFC")])
def test_the_answers_are_those_of_scikit_learns_default_tolerance(source: str | None, task: str) -> None:
    if source is None:
        pytest.skip("LORAFT_VSFC does not name the folder of UIT-VSFC")
    config = resolve(flags={"data.source": source, "prompt.task": task})
    train, test = load_data(config, "train"), load_data(config, "test")
    exact = make_pipeline(tfidf(len(train)), LinearSVC(random_state=0)).fit(train.texts, train.labels)
    assert np.array_equal(linear_svm(train, test), exact.predict(test.texts))


@pytest.mark.skipif("LORAFT_VSFC" not in os.environ, reason="LORAFT_VSFC does not name the folder of UIT-VSFC")
def test_the_svm_on_the_real_corpus() -> None:
    config = resolve(flags={"data.source": str(Path(os.environ["LORAFT_VSFC"]))})
    labels = list(config.prompt.labels or [])
    train, test = (load_split(config.data, name, labels=labels, label_column="sentiment") for name in ("train", "test"))
    scores = metrics.core(test.labels, linear_svm(train, test), len(labels))
    # 0.897 and 0.714: words and pairs of words that occur twice, default LinearSVC, measured with scikit-learn alone.
    assert np.allclose([scores["accuracy"], scores["macro_f1"]], [0.897, 0.714], atol=0.002)
