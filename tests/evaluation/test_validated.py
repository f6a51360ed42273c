"""`predict` with sets, changed priors and the look for a shift, on the validation scores that lie beside an adapter."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import SENTENCES

import loraft
from loraft.data.records import BadRow, Example
from loraft.data.stream import sample
from loraft.engine.probabilities import to_probs
from loraft.errors import ConfigError, Note, RunError
from loraft.evaluation import priors, scored_rows
from loraft.evaluation.predict import Prediction, predict
from loraft.evaluation.shift import Progress
from loraft.evaluation.validated import Validated
from loraft.models import manifest
from loraft.runs import validation_scores
from loraft.runs.run import Run
from loraft.runs.validation_scores import ValidationScores

NAMES = ("negative", "neutral", "positive")


@pytest.fixture(scope="module")
def probs(run: Run) -> np.ndarray:
    """Of `SENTENCES`, (6, 3), which are the probabilities of each validation row in its turn."""
    return loraft.load(run.path).probabilities(SENTENCES)


@pytest.fixture(scope="module")
def scored(run: Run, probs: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with 240 validation rows, of which the second half is set aside, their labels drawn by these."""
    folder = shutil.copytree(run.path, tmp_path_factory.mktemp("đo") / "run")
    rng = np.random.default_rng(0)
    rows = np.arange(240) % len(SENTENCES)
    references = [int(rng.choice(3, p=probs[row])) for row in rows]
    log_probs = tuple(tuple(np.log(probs[row]).tolist()) for row in rows)
    aside = tuple(n >= 120 for n in range(240))
    scores = ValidationScores(NAMES, tuple(range(1, 241)), tuple(references), log_probs, aside)
    adapter = Run.open(folder).adapter
    validation_scores.write(adapter, scores)
    manifest.write(adapter, manifest.read(adapter))
    return folder


def quietly(found: Iterator[Prediction]) -> tuple[list[Prediction], list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        return list(found), told


def test_sets_hold_the_labels_above_the_threshold_of_the_rows_set_aside_and_the_label(scored: Path) -> None:
    scores = validation_scores.read(Run.open(scored).adapter)
    assert scores is not None
    log_probs, references = scores.arrays(set_aside=True)
    own = np.sort(to_probs(log_probs)[np.arange(120), references])
    least = own[120 - int(np.ceil(121 * 0.7))]
    found, told = quietly(predict(SENTENCES * 10, run=scored, sets=0.7))
    for one in found:
        assert one.set == tuple(k for k in NAMES if one.probs[k] >= least - 1e-6 or k == one.label)
    assert {len(one.set or ()) for one in found} > {2}
    (note,) = told  # rows like the validation rows: no word of a shift
    assert issubclass(note.category, Note)
    assert "at least 0.7, averaged over draws of the 120 set-aside rows" in str(note.message)
    assert all(one.set is None for one in quietly(predict(SENTENCES, run=scored))[0])


def test_sets_by_label_name_the_labels_with_too_few_rows(scored: Path) -> None:
    with pytest.raises(ConfigError, match=r"sets: a coverage of 0\.99 needs 99 .*, of each label \(got negative \d+, "):
        next(predict(SENTENCES, run=scored, sets=0.99, sets_by_label=True))
    _, (note,) = quietly(predict(SENTENCES, run=scored, sets=0.6, sets_by_label=True))
    assert "whatever that label is" in str(note.message)
    assert "negative " in str(note.message)


def test_a_shift_voids_the_promise_of_sets_and_is_a_note_without_one(scored: Path) -> None:
    unlike = [SENTENCES[0]] * 60
    _, told = quietly(predict(unlike, run=scored, sets=0.7))
    (warning,) = [one for one in told if not issubclass(one.category, Note)]
    assert "these rows are unlike the validation rows, about which alone max_error and sets" in str(warning.message)
    assert "the predicted labels differ in" in str(warning.message)
    _, told = quietly(predict(unlike, run=scored, min_confidence=0.1))
    assert [issubclass(one.category, Note) for one in told] == [False]
    _, (note,) = quietly(predict(unlike, run=scored))
    assert issubclass(note.category, Note)
    assert "these rows are unlike the validation rows" in str(note.message)
    assert quietly(predict(unlike[:49], run=scored))[1] == []
    assert quietly(predict(unlike, run=scored, prior={"negative": 0.1, "neutral": 0.8, "positive": 0.1}))[1][1:] == []


def test_a_resumed_prediction_counts_the_rows_before_it(scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scored_rows, "FIRST", 4)
    monkeypatch.setattr(scored_rows, "PREDICT_ROWS", 28)
    rows = [Example(SENTENCES[0], None, n) for n in range(1, 61)]
    whole, (note,) = quietly(predict(rows, run=scored))
    progress, found = Progress(), []
    for one in predict(rows, run=scored, progress=progress):
        found.append(one)
        if len(found) == progress.rows == 32:
            break
    rest, (again,) = quietly(predict(rows[32:], run=scored, progress=progress))
    assert found + rest == whole
    assert str(again.message) == str(note.message)
    assert (sum(progress.confidences), sum(progress.predicted.values())) == (60, 60)


def test_given_shares_change_probabilities_and_labels_and_what_that_does_is_told_first(
    scored: Path, probs: np.ndarray
) -> None:
    scores = validation_scores.read(Run.open(scored).adapter)
    assert scores is not None
    old = np.bincount(scores.references) / 240
    new = {"negative": 0.05, "positive": 0.9, "neutral": 0.05}
    predictions = predict(SENTENCES, run=scored, prior=new)
    with pytest.warns(
        Note,
        match=r"prior: label shares negative 0\.\d{3} -> 0\.050, .* 240 .*, weighted to these: accuracy 0",
    ):
        first = next(predictions)
    found = [first, *predictions]
    expected = probs * np.array([new[name] for name in NAMES]) / old
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose([[*one.probs.values()] for one in found], expected, rtol=1e-4)
    assert [one.label for one in found] == [NAMES[k] for k in expected.argmax(axis=1)]
    assert [one.label for one in found] != [NAMES[k] for k in probs.argmax(axis=1)]


def test_shares_are_estimated_from_a_sample_of_rows_without_labels(
    scored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*SENTENCES * 10, BadRow(61, "no text")]
    one, (note,) = quietly(predict(SENTENCES, run=scored, prior=rows))
    assert ", estimated from 60 rows (95% interval)" in str(note.message)
    assert sum(one[0].probs.values()) == pytest.approx(1)
    monkeypatch.setattr("loraft.evaluation.predict.SAMPLE", 55)
    assert ", estimated from 55 rows" in str(quietly(predict(SENTENCES, run=scored, prior=rows))[1][0].message)
    with pytest.raises(ConfigError, match=r"prior: 50 rows or more are needed to estimate shares \(got 6\)"):
        next(predict(SENTENCES, run=scored, prior=SENTENCES))
    with pytest.raises(ConfigError, match=r"prior: give shares by label, or rows .* \(got 'estimate'\)"):
        next(predict(SENTENCES, run=scored, prior="estimate"))


def test_sets_over_all_labels_do_not_survive_changed_shares_and_those_by_label_do(scored: Path) -> None:
    new = {"negative": 0.02, "neutral": 0.02, "positive": 0.96}
    for asked in ({"sets": 0.6}, {"max_error": 0.6}):
        with pytest.raises(
            ConfigError, match=rf"prior: under other label shares .* {next(iter(asked))} promises nothing"
        ):
            next(predict(SENTENCES, run=scored, prior=new, **asked))
    plain, _ = quietly(predict(SENTENCES, run=scored, sets=0.6, sets_by_label=True))
    found, _ = quietly(predict(SENTENCES, run=scored, sets=0.6, sets_by_label=True, prior=new))
    for one, before in zip(found, plain, strict=True):
        assert one.label in (one.set or ())
        assert {*(before.set or ())} - {before.label} <= {*(one.set or ())}
    assert [one.label for one in found] != [one.label for one in plain]


def test_a_run_without_validation_scores_predicts_and_refuses_what_needs_them(run: Run) -> None:
    assert quietly(predict([SENTENCES[0]] * 60, run=run.path))[1] == []
    for asked in ({"sets": 0.9}, {"prior": dict.fromkeys(NAMES, 1 / 3)}):
        with pytest.raises(ConfigError, match=rf"{next(iter(asked))}: needs scores .* has no validation_scores\.json"):
            next(predict(SENTENCES, run=run.path, **asked))


def test_an_edited_file_of_validation_scores_promises_nothing(scored: Path, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(scored, tmp_path / "sửa"))
    path = run.adapter / validation_scores.VALIDATION_FILE
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    for asked in ({"sets": 0.6}, {"max_error": 0.6}, {"prior": dict.fromkeys(NAMES, 1 / 3)}, {}):
        with (
            warnings.catch_warnings(record=True) as told,
            pytest.raises(RunError, match="is not the file that"),
        ):
            next(predict(SENTENCES, run=run.path, **asked))
        assert told == []


def test_progress_of_another_run_is_refused(scored: Path) -> None:
    with pytest.raises(RunError, match=r"progress: is not of this run \(got 1 bins of confidence, not "):
        next(predict(SENTENCES, run=scored, progress=Progress(6, confidences=[6])))


def test_shares_that_a_balanced_training_assumes_are_told(probs: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    rows = np.tile(probs * np.array([0.5, 0.1, 0.4]), (60, 1))
    rows /= rows.sum(axis=1, keepdims=True)
    references = np.array([rng.choice(3, p=row) for row in rows])
    known = Validated(NAMES, np.tile(probs, (60, 1)), references, np.ones(360, dtype=bool))
    with pytest.warns(Note, match=r"label shares negative .* assume other shares, as after a balanced training \(nega"):
        known.priors(dict(zip(NAMES, priors.shares(references, 3), strict=True)))


def test_a_sample_is_random_bounded_and_in_order() -> None:
    assert sample(range(5), 10, lambda row: 1) == [0, 1, 2, 3, 4]
    drawn = sample(range(20_000), 2_000, lambda row: 1)
    counts = np.bincount(np.array(drawn) // 2_000, minlength=10)  # 200 expected in each tenth
    assert (abs(counts - 200) < 5 * np.sqrt(200 * 0.9)).all()
    assert drawn == sorted(set(drawn))
    assert len(sample(range(100), 50, lambda row: 2**20)) == 16  # of 2**24 characters
