"""Prediction: one result for each input, in order, equal to scoring each sentence alone."""

import json
import shutil
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import SENTENCES

import loraft
from loraft.config.resolve import load_config, resolve
from loraft.config.schema import EvalConfig
from loraft.data.records import BadRow, Example
from loraft.engine import ranged_rows, scorer
from loraft.engine.probabilities import to_probs
from loraft.errors import ConfigError, Note, RunError
from loraft.evaluation import predict as module
from loraft.evaluation import scored_rows
from loraft.evaluation.predict import Prediction, predict
from loraft.evaluation.shift import Progress
from loraft.models.calibration import Calibration
from loraft.models.load import load_run
from loraft.runs.bundle import config_of
from loraft.runs.run import Run

NAMES = ("negative", "neutral", "positive")


@pytest.fixture(scope="module")
def expected(run: Run) -> list[list[float]]:
    """Probabilities of the labels for each of `SENTENCES`, each scored alone."""
    encoder, model = load_run(run, load_config(run.config_path))
    ids = [encoder.encode([text])[0].ids for text in SENTENCES]
    return [to_probs(scorer.score(model, [one], encoder.completions_K))[0].tolist() for one in ids]


def assert_predicted(found: Prediction, probs_K: list[float]) -> None:
    assert list(found.probs) == list(NAMES)
    assert list(found.probs.values()) == pytest.approx(probs_K, rel=1e-4)  # in a batch sums are in another order
    assert found.label == NAMES[int(np.argmax(probs_K))]
    assert found.error is None


def test_each_sentence_gets_its_label_and_probabilities_in_order(run: Run, expected: list[list[float]]) -> None:
    found = list(predict(SENTENCES, run=str(run.path)))
    assert [(row.row, row.text, row.extra) for row in found] == [(n, text, {}) for n, text in enumerate(SENTENCES, 1)]
    assert len({row.label for row in found}) > 1
    for row, probs_K in zip(found, expected, strict=True):
        assert_predicted(row, probs_K)


def test_one_sentence_is_one_input(run: Run, expected: list[list[float]]) -> None:
    (found,) = predict(SENTENCES[1], run=run.path)
    assert (found.row, found.text) == (1, SENTENCES[1])
    assert_predicted(found, expected[1])


def test_one_row_is_one_input_and_what_is_no_text_gets_an_error(run: Run, expected: list[list[float]]) -> None:
    (found,) = predict(Example(SENTENCES[1], None, 7), run=run.path)
    assert found.row == 7
    assert_predicted(found, expected[1])
    wrong, right = predict([None, SENTENCES[1]], run=run.path)  # type: ignore[list-item]
    assert (wrong.label, wrong.probs, right.row) == (None, {}, 2)
    assert wrong.error
    assert_predicted(right, expected[1])
    (damaged,) = predict(b"\xff\xfe", run=run.path)  # type: ignore[arg-type]
    assert damaged.error


@pytest.mark.parametrize("value", [2, -0.1, float("nan"), "0.5"])
def test_a_min_confidence_that_is_no_probability_is_refused(run: Run, value: float) -> None:
    with pytest.raises(ConfigError, match=r"min_confidence: is no number from 0 to 1 \(got"):
        next(predict(SENTENCES[0], run=run.path, min_confidence=value))


def test_a_sentence_typed_in_decomposed_letters_is_the_same_sentence(run: Run, expected: list[list[float]]) -> None:
    typed = unicodedata.normalize("NFD", SENTENCES[0])
    assert typed != SENTENCES[0]
    (found,) = predict(typed, run=run.path)
    assert found.text == SENTENCES[0]
    assert_predicted(found, expected[0])


def test_rows_keep_numbers_and_extras_and_bad_rows_their_place(run: Run, expected: list[list[float]]) -> None:
    rows: list[Example | BadRow] = [
        BadRow(3, "no text"), Example(SENTENCES[0], None, 5, {"id": "a"}), BadRow(6, "two texts"),
        Example(SENTENCES[1], None, 9, {"id": "b"}),
    ]  # fmt: skip
    found = list(predict(rows, run=run.path))
    assert found[0] == Prediction(3, "", None, error="no text")
    assert found[2] == Prediction(6, "", None, error="two texts")
    assert [(found[i].row, found[i].extra) for i in (1, 3)] == [(5, {"id": "a"}), (9, {"id": "b"})]
    assert_predicted(found[1], expected[0])
    assert_predicted(found[3], expected[1])


def test_min_confidence_leaves_less_probable_labels_out_and_keeps_the_probabilities(
    run: Run, expected: list[list[float]]
) -> None:
    best = [max(row.probs.values()) for row in predict(SENTENCES, run=run.path)]
    limit = sorted(best)[2]
    found = list(predict(SENTENCES, run=run.path, min_confidence=limit))
    assert [row.label is None for row in found] == [one < limit for one in best]
    assert sum(row.label is None for row in found) == 2  # the limit itself is enough
    assert [max(row.probs.values()) for row in found] == best


def test_rows_are_read_in_groups_and_none_is_lost(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scored_rows, "PREDICT_ROWS", 4)
    sizes = []
    original = scorer.start

    def counted(model: object, ids: list[list[int]], *args: object, **settings: object) -> object:
        sizes.append(len(ids))
        return original(model, ids, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("loraft.engine.scorer.start", counted)
    found = [row.text for row in predict(iter(SENTENCES), run=run.path)]
    assert found == SENTENCES
    assert sizes == [4, 2]


def test_a_prediction_goes_on_after_a_group_bit_for_bit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scored_rows, "PREDICT_ROWS", 4)
    monkeypatch.setattr(scored_rows, "FIRST", 2)
    # Rows 7 to 12 begin with the same words: without the prefix of the rows before them a longer one would be cached.
    start = "thầy dạy rất dễ hiểu và rất nhiệt tình "
    rows = [Example(text, None, n) for n, text in enumerate(SENTENCES + [start + text for text in SENTENCES], 1)]
    whole = list(predict(rows, run=run.path))
    for done in (2, 6, 10):
        progress = Progress()
        found = []
        for row in predict(rows, run=run.path, progress=progress):
            found.append(row)
            if len(found) == progress.rows == done:
                break
        kept = Progress(progress.rows, [*progress.prefix], dict(progress.predicted))
        found += predict(rows[done:], run=run.path, progress=kept)
        assert found == whole
        assert kept.rows == 12


def test_a_group_is_full_by_characters_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scored_rows.characters(Example("hay", None, 1, {"a": "dài", "b": 5})) == 6
    monkeypatch.setattr("loraft.data.stream.MOST_CHARACTERS", sum(map(len, SENTENCES[:2])))
    sizes = []
    monkeypatch.setattr(scored_rows, "one_behind", lambda groups, *given, **named: sizes.extend(map(len, groups)) or [])
    list(predict(SENTENCES, run=run.path))
    assert sizes[0] == 2


def test_with_wait_a_row_is_answered_before_the_source_goes_on(run: Run) -> None:
    answered = threading.Event()

    def slow() -> Iterator[str]:
        yield SENTENCES[0]
        assert answered.wait(20)
        yield SENTENCES[1]

    found = []
    for row in predict(slow(), run=run.path, wait=0.01):
        found.append(row.text)
        answered.set()
    assert found == SENTENCES[:2]


def test_a_group_is_handed_out_when_the_next_one_has_been_started_or_nothing_comes() -> None:
    def source() -> Iterator[list[int]]:
        yield from ([1], [2, 3], [], [4])
        raise ValueError("the source broke")

    log: list[object] = []
    started = scored_rows.one_behind(source(), lambda group: log.append(f"start {group}") or group, overlap=True)
    with pytest.raises(ValueError, match="the source broke"):
        for group in started:
            log.append(group)
    assert log == ["start [1]", "start [2, 3]", [1], [2, 3], "start [4]", [4]]
    log.clear()
    at_once = scored_rows.one_behind([[1], [], [2]], lambda group: log.append(f"start {group}") or group, overlap=False)
    for group in at_once:
        log.append(group)
    assert log == ["start [1]", [1], "start [2]", [2]]


def test_on_a_gpu_predictions_are_the_same(
    run: Run, expected: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scored_rows, "computes_meanwhile", lambda model: True)
    monkeypatch.setattr(scored_rows, "GPU_PREDICT_ROWS", 2)
    monkeypatch.setattr("loraft.engine.ranged_rows.suits", lambda model: True)
    prefixes = []
    own = ranged_rows.prefix_cache
    monkeypatch.setattr(ranged_rows, "prefix_cache", lambda *args: prefixes.append(args[1]) or own(*args))
    answered = threading.Event()

    def slow() -> Iterator[str]:
        yield from SENTENCES[:5]
        assert answered.wait(20)
        yield SENTENCES[5]

    found = []
    for row in predict(slow(), run=run.path, wait=0.01):
        found.append(row)
        if len(found) == 5:
            answered.set()
    for row, probs_K in zip(found, expected, strict=True):
        assert_predicted(row, probs_K)
    assert len(prefixes) == 1  # for all groups


def test_an_adapter_made_elsewhere_predicts_with_a_config(run: Run, expected: list[list[float]]) -> None:
    (found,) = predict(SENTENCES[1], adapter=run.adapter, config=load_config(run.config_path))
    assert_predicted(found, expected[1])
    for given in ({}, {"adapter": run.adapter}, {"run": run.path, "adapter": run.adapter}):
        with pytest.raises(RunError, match=r"needs a run, or an adapter with a config \(got (neither|both)"):
            next(predict(SENTENCES[1], **given))  # type: ignore[arg-type]


def test_another_config_may_not_ask_another_question(run: Run) -> None:
    other = resolve(config_file=run.config_path, overrides=["prompt.date_string=01 Jan 2030"])
    with pytest.raises(RunError, match="date in the prompt"):
        next(predict(SENTENCES[0], run=run.path, config=other))


def test_labels_that_tie_for_the_best_are_told() -> None:
    scores_NK = np.array([[-1.0, -1.0, -2.0], [-1.0, -2.0, -2.0], [-3.0, -1.0, -1.0], [-2.0, -1.0, -3.0]])
    with pytest.warns(Note, match="2 of 4 rows: the best labels tie; the first one is taken"):
        assert module.warn_of_ties(scores_NK) == 2
    assert module.warn_of_ties(scores_NK[1:2]) == 0
    assert module.warn_of_ties(np.zeros((0, 3))) == 0


def test_predictions_tell_of_ties(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loraft.engine.scorer.start", lambda model, ids, *a, **k: lambda: np.zeros((len(ids), 3)))
    with pytest.warns(Note, match="1 of 1 rows: the best labels tie"):
        (found,) = predict(SENTENCES[0], run=run.path)
    assert found.label == NAMES[0]


def test_everything_that_uses_a_run_applies_its_calibration_unless_told_not_to(
    run: Run, expected: list[list[float]], tmp_path: Path
) -> None:
    copied = Run(shutil.copytree(run.path, tmp_path / "hiệu-chỉnh"))
    one = Calibration(2.0, (0.0, 0.9, -0.9))
    path = copied.adapter / "loraft.json"
    content = json.loads(path.read_text(encoding="utf-8")) | {"calibration": {"temperature": 2.0, "bias": one.bias}}
    path.write_text(json.dumps(content), encoding="utf-8")
    calibrated = one.probabilities(np.log(np.array(expected)))
    raw = config_of(copied).model_copy(update={"eval": EvalConfig(calibrate=False)})
    for config, wanted in ((None, calibrated), (raw, np.array(expected))):
        found = list(predict(SENTENCES, run=copied.path, config=config))
        np.testing.assert_allclose([[*row.probs.values()] for row in found], wanted, atol=1e-5)
        assert [row.label for row in found] == [
            list(row.probs)[k] for row, k in zip(found, wanted.argmax(1), strict=True)
        ]
        np.testing.assert_allclose(loraft.load(copied.path, config=config).probabilities(SENTENCES), wanted, atol=1e-5)
    report, before = (loraft.evaluate(run=copied.path, config=config).report for config in (None, raw))
    assert report.calibration == one
    assert before.calibration is before.before_calibration is None
    assert report.before_calibration is not None
    assert report.before_calibration.log_loss == pytest.approx(before.log_loss)
    assert report.before_calibration.accuracy == before.accuracy
    assert report.log_loss != pytest.approx(before.log_loss)
