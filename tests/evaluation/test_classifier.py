"""A loaded run answers as prediction does, from several threads, and as scikit-learn asks."""

import shutil
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny import SENTENCES
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score

from loraft.config.resolve import load_config, resolve
from loraft.engine import scorer
from loraft.errors import ConfigError, DataError, RunError
from loraft.evaluation import classifier as module
from loraft.evaluation.classifier import Classifier, load
from loraft.evaluation.predict import Loaded, opened, predict
from loraft.models.device import DTYPE_NAMES
from loraft.models.load import load_run
from loraft.runs.run import Run

THREADS, CALLS = 8, 1000


@pytest.fixture(scope="module")
def loaded(run: Run) -> Classifier:
    return load(run.path)


def test_it_answers_as_prediction_does(run: Run, loaded: Classifier) -> None:
    expected = list(predict(SENTENCES, run=run.path))
    found = loaded.predict(SENTENCES)
    assert [(row.row, row.text, row.label) for row in found] == [(row.row, row.text, row.label) for row in expected]
    probs_NK = np.array([[row.probs[label] for label in loaded.labels] for row in expected])
    assert loaded.probabilities(SENTENCES) == pytest.approx(probs_NK, abs=1e-6)
    assert loaded.probabilities(SENTENCES).argmax(axis=1).tolist() != [0] * len(SENTENCES)


def test_one_text_is_a_row_and_no_text_is_none(loaded: Classifier) -> None:
    assert [row.text for row in loaded.predict(SENTENCES[0])] == [SENTENCES[0]]
    assert loaded.probabilities(SENTENCES[0]).shape == (1, 3)
    assert loaded.predict([]) == []
    assert loaded.probabilities([]).shape == (0, 3)


@pytest.mark.parametrize("text", [None, 3, "", "  "])
def test_what_is_no_text_is_an_error_with_its_number(loaded: Classifier, text: Any) -> None:
    with pytest.raises(DataError, match=r"^text 2: "):
        loaded.predict([SENTENCES[0], text])


def test_an_answer_does_not_depend_on_earlier_calls_and_nothing_is_loaded_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = load(run.path), load(run.path)
    monkeypatch.setattr(module, "opened", None)  # would raise
    first.predict(SENTENCES)
    first.predict("học " * 40)
    assert (first.log_probs(SENTENCES[1]) == second.log_probs(SENTENCES[1])).all()
    cache = first._kept.cache
    assert cache is not None
    first.predict(SENTENCES[2])
    assert first._kept.cache is cache


def test_scores_are_those_of_the_sentence_alone(run: Run, loaded: Classifier) -> None:
    encoder, model = load_run(run, load_config(run.config_path))
    alone = [scorer.score(model, [encoder.encode([text])[0].ids], encoder.completions_K)[0] for text in SENTENCES]
    assert loaded.log_probs(SENTENCES) == pytest.approx(np.array(alone), abs=1e-4)


def ask(loaded: Classifier, calls: int) -> None:
    """Calls from several threads at once, each compared with the answer of a single thread."""
    expected = {text: loaded.log_probs(text) for text in SENTENCES}
    together = threading.Barrier(THREADS)

    def thread(number: int) -> int:
        together.wait()
        wrong = 0
        for call in range(calls):
            text = SENTENCES[(number + call) % len(SENTENCES)]
            wrong += not (loaded.log_probs(text) == expected[text]).all()
        return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(thread, range(THREADS))) == 0


def test_threads_share_it(loaded: Classifier) -> None:
    ask(loaded, 10)


@pytest.mark.slow
def test_a_thousand_calls_from_each_of_eight_threads_get_the_right_answers(loaded: Classifier) -> None:
    ask(loaded, CALLS)


def test_one_call_computes_at_a_time(loaded: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[int] = []
    most = []
    start = scorer.start

    def counted(*given: Any, **named: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        try:
            return start(*given, **named)
        finally:
            inside.pop()

    monkeypatch.setattr(scorer, "start", counted)
    ask(loaded, 3)
    assert max(most) == 1


def test_it_is_a_classifier_of_scikit_learn(loaded: Classifier) -> None:
    estimator = loaded.as_sklearn()
    assert estimator.classes_.tolist() == sorted(loaded.labels)
    predicted = estimator.predict(SENTENCES)
    assert predicted.tolist() == [row.label for row in loaded.predict(SENTENCES)]
    assert (estimator.classes_[estimator.predict_proba(SENTENCES).argmax(axis=1)] == predicted).all()
    assert estimator.score(SENTENCES, predicted) == accuracy_score(predicted, predicted)
    texts, labels = [*SENTENCES] * 3, np.resize(list(loaded.labels), 3 * len(SENTENCES))
    calibrated = CalibratedClassifierCV(FrozenEstimator(estimator), cv=2).fit(texts, labels)
    assert calibrated.predict_proba(SENTENCES).sum(axis=1) == pytest.approx(1)


def test_columns_follow_the_classes_where_labels_are_in_another_order(loaded: Classifier) -> None:
    estimator = loaded.as_sklearn()
    shuffled = Classifier(loaded.loaded)
    shuffled.labels = tuple(reversed(loaded.labels))
    assert shuffled.as_sklearn().predict_proba(SENTENCES) == pytest.approx(estimator.predict_proba(SENTENCES)[:, ::-1])


def test_an_adapter_apart_from_its_run_is_loaded_by_its_own_file(run: Run, loaded: Classifier, tmp_path: Path) -> None:
    alone = shutil.copytree(run.adapter, tmp_path / "bộ chuyển đổi")
    found = load(alone)
    assert (found.log_probs(SENTENCES) == loaded.log_probs(SENTENCES)).all()
    assert found.loaded.config.prompt == loaded.loaded.config.prompt
    weights = alone / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(RunError, match=r"is not the adapter that its loraft.json names"):
        load(alone)


def test_sets_of_labels_are_no_classes(loaded: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    several = type("Task", (), {"kind": "multilabel", "labels": loaded.labels})()
    double = Loaded(type("Encoder", (), {"task": several})(), None, Path(), None, ())  # type: ignore[arg-type]
    estimator = Classifier.__new__(Classifier)
    estimator.loaded, estimator.labels = double, loaded.labels
    with pytest.raises(ConfigError, match=r"prompt.kind=multilabel"):
        estimator.as_sklearn()


def test_a_shortened_sentence_is_told(loaded: Classifier) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded.predict("rất dài " * 3000)
    assert any("shortened" in str(one.message) for one in caught)


@pytest.mark.parametrize("texts", [3, None, {"câu": "thầy giảng hay"}, np.array([["thầy", "cô"]])])
def test_what_is_no_list_of_texts_is_one_message(loaded: Classifier, texts: Any) -> None:
    with pytest.raises(DataError, match=r"^texts: one text or a list of texts \(got \w+\); give the column"):
        loaded.predict(texts)
    with pytest.raises(DataError, match=r"^texts: "):
        loaded.as_sklearn().predict(texts)


def test_scikit_learn_takes_one_text_none_and_a_copy(loaded: Classifier) -> None:
    estimator = loaded.as_sklearn()
    assert estimator.predict(SENTENCES[0]).shape == (1,)
    assert estimator.predict([]).dtype == estimator.classes_.dtype
    assert clone(estimator) is estimator


@pytest.mark.filterwarnings("ignore:the adapter was trained over:loraft.errors.Note")
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])  # of the training, and another one
def test_runs_of_one_backbone_share_its_weights_also_in_another_dtype(run: Run, dtype: str) -> None:
    config, bases = resolve(base=load_config(run.config_path), overrides=[f"model.dtype={dtype}"]), {}
    models = [opened(run.path, None, config, bases).model for _ in range(2)]
    first, second = ({p.data_ptr() for p in model.parameters()} for model in models)
    assert first == second
    assert {DTYPE_NAMES[p.dtype] for p in models[0].parameters()} == {dtype}
    assert len(bases) == 1
