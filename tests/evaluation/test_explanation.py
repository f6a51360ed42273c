"""Explanations: a word's effect is what the naive recomputation gives, and planted words come out."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.tiny import SENTENCES

from loraft.config.resolve import resolve
from loraft.data.records import Example
from loraft.engine import scorer
from loraft.engine.probabilities import to_probs
from loraft.errors import ConfigError, DataError
from loraft.evaluation import classifier, multilabel
from loraft.evaluation import explanation as module
from loraft.evaluation.classifier import Classifier, explain_mistakes, load
from loraft.evaluation.explanation import (
    LONGEST,
    MOST,
    Explanation,
    Explanations,
    WordEffect,
    log_odds,
    parts,
    signed,
    strongest,
    variants,
    without,
    word_spans,
)
from loraft.evaluation.predict import Loaded, predict
from loraft.models.calibration import NONE, Calibration
from loraft.runs.predictions import MISTAKES, PredictedRow, mistakes
from loraft.runs.records import read_record
from loraft.runs.run import Run

LABELS = ("negative", "neutral", "positive")


def words_of(text: str) -> list[str]:
    return [text[start:end] for start, end in word_spans(text)]


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("thầy dạy hay , dễ hiểu.", ["thầy", "dạy", "hay", ",", "dễ", "hiểu."]),
        ("một\tdòng\nhai \u00a0 dòng", ["một", "dòng", "hai", "dòng"]),
        ("老师很好。", ["老", "师", "很", "好", "。"]),
        ("我用 Python3 写", ["我", "用", "Python3", "写"]),
        ("lớp日本", ["lớp", "日", "本"]),
        ("ที่นี่ดี", ["ที่", "นี่", "ดี"]),  # vowels and tone marks stay with their consonants
        ("tốt 👩‍👩‍👧🇻🇳!", ["tốt", "👩‍👩‍👧🇻🇳!"]),
        ("서울 좋다", ["서울", "좋다"]),
        ("hay", ["hay"]),
        ("", []),
    ],
)
def test_words_stand_between_spaces_and_are_characters_in_scripts_without_them(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("text", "word", "left"),
    [
        ("thầy dạy hay", 0, "dạy hay"),
        ("thầy dạy hay", 1, "thầy hay"),
        ("thầy dạy hay", 2, "thầy dạy"),
        ("thầy  dạy\nhay", 1, "thầy  hay"),
        ("hay", 0, ""),
        ("我 love 你", 1, "我 你"),
        ("很好 lắm", 0, "好 lắm"),
        ("很好 lắm", 1, "很 lắm"),
    ],
)
def test_a_sentence_without_a_word_has_no_double_space(text: str, word: int, left: str) -> None:
    assert without(text, word_spans(text)[word]) == left


def test_many_words_are_left_out_in_groups_of_the_same_size() -> None:
    assert len(parts("từ " * MOST)) == MOST
    text = " ".join(map(str, range(2 * MOST + 1)))
    found = [text[start:end].split() for start, end in parts(text)]
    assert [len(group) for group in found] == [3] * 67  # 201 words: ceil(201 / 100) is 3
    assert [word for group in found for word in group] == text.split()


def test_a_sentence_of_too_many_characters_is_refused() -> None:
    with pytest.raises(DataError, match=r"row 7: too long to explain \(got 100,001 characters\); up to 100,000"):
        variants(Example("a" * (LONGEST + 1), row=7))


# --- log-odds ---------------------------------------------------------------------------------------------------------


def test_log_odds_are_those_of_the_probabilities() -> None:
    log_probs_NK = np.random.default_rng(0).normal(0, 3, (20, 6))
    for several, to_probs_of, labels in ((False, to_probs, 6), (True, multilabel.probabilities, 3)):
        probs_NK = to_probs_of(log_probs_NK)
        for k in range(labels):
            found = log_odds(log_probs_NK, k, several=several)
            assert found == pytest.approx(np.log(probs_NK[:, k] / (1 - probs_NK[:, k])), rel=1e-9, abs=1e-9)
    assert log_odds([[0.0, -800.0]], 0, several=False).tolist() == [800.0]  # where 1 - p is 0


@pytest.mark.parametrize(
    ("effect", "text"), [(0.314, "+0.31"), (-2.0, "-2.00"), (0.004, "0.00"), (-0.004, "0.00"), (0.0, "0.00")]
)
def test_an_effect_has_a_sign_unless_it_rounds_to_zero(effect: float, text: str) -> None:
    assert signed(effect) == text


# --- a classifier whose scores are known ------------------------------------------------------------------------------


def double(
    score: Callable[[str], list[float]],
    kind: str = "single",
    thresholds: tuple[float, ...] = (),
    calibration: Calibration = NONE,
) -> Classifier:
    """A classifier whose scores of a text are those of a function; keeps the texts of each call as `calls`."""
    made: Any = object.__new__(Classifier)
    made.labels = LABELS
    encoder: Any = SimpleNamespace(task=SimpleNamespace(labels=LABELS, kind=kind))
    made.loaded = Loaded(encoder, None, Path(), resolve(), thresholds, calibration)  # type: ignore[arg-type]
    made.calls = []

    def scores(rows: list[Example], told: int | None = None) -> np.ndarray:
        made.calls.append([row.text for row in rows])
        return np.array([score(row.text) for row in rows])

    made._scores = scores
    found: Classifier = made
    return found


WEIGHTS = {"thầy": 0.25, "dạy": -0.5, "rất": 0.75, "hay": 2.0, ".": 0.0}


def test_in_an_additive_model_the_effects_are_its_weights() -> None:
    def additive(text: str) -> list[float]:
        return [0.0, -1.0, sum(WEIGHTS[word] for word in text.split())]

    (found,) = double(additive).explain("thầy dạy rất hay .")
    assert found.label == "positive"
    assert [word.text for word in found.words] == [*WEIGHTS]
    assert [word.effect for word in found.words] == pytest.approx([*WEIGHTS.values()], abs=1e-12)
    assert found.log_odds == pytest.approx(2.5 - np.log(1 + np.exp(-1)))
    assert found.probability == pytest.approx(1 / (1 + np.exp(-found.log_odds)))
    (other,) = double(additive).explain("thầy dạy rất hay .", "negative")
    assert (other.label, other.predicted, found.predicted) == ("negative", ("positive",), ("positive",))
    assert [np.sign(word.effect) for word in other.words] == [-1, 1, -1, -1, 0]
    assert strongest(found) == "hay +2.00, rất +0.75, thầy +0.25"
    assert strongest(other) == "dạy +0.49"  # log(e^-1 + e^3) - log(e^-1 + e^2.5)
    assert strongest(Explanation(1, "a", "b", 0.5, 0.0, (WordEffect("a", 0, 1, -1.0),))) == "-"


def test_effects_are_those_of_calibrated_probabilities() -> None:
    def score(text: str) -> list[float]:
        return [0.0, -1.0, sum(WEIGHTS[word] for word in text.split())]

    calibration = Calibration(2.0, (1.5, -1.0, -0.5))
    (found,) = double(score, calibration=calibration).explain("thầy hay")
    probs = calibration.probabilities(np.array([score("thầy hay"), score("hay"), score("thầy")]))[:, 0]
    odds = np.log(probs / (1 - probs))
    assert found.label == "negative"  # a bias changes the label
    assert found.probability == pytest.approx(probs[0])
    assert [word.effect for word in found.words] == pytest.approx([odds[0] - odds[1], odds[0] - odds[2]])


def test_planted_words_come_out_and_others_have_no_effect() -> None:
    def negation(text: str) -> list[float]:
        """Positive with "hay"; negative with "không" before it."""
        return [3.0 if "không hay" in text else 0.0, 1.0, 3.0 if "hay" in text and "không" not in text else 0.0]

    (found,) = double(negation).explain("lớp này không hay lắm")
    effects = {word.text: word.effect for word in found.words}
    assert found.label == "negative"
    assert effects["không"] > effects["hay"] > 1
    assert [effects[word] for word in ("lớp", "này", "lắm")] == [0, 0, 0]


def test_a_sentence_and_its_variants_are_one_call() -> None:
    made: Any = double(lambda text: [0.0, 1.0, 2.0])
    made.explain(["thầy dạy hay", "hay"])
    assert made.calls == [["thầy dạy hay", "dạy hay", "thầy hay", "thầy dạy"], ["hay", ""]]


def test_a_words_place_is_that_in_the_composed_sentence() -> None:
    (found,) = double(lambda text: [0.0, 1.0, 2.0]).explain(unicodedata.normalize("NFD", " thầy  giảng\ndễ hiểu "))
    assert found.text == "thầy  giảng\ndễ hiểu"
    assert [found.text[word.start : word.end] for word in found.words] == ["thầy", "giảng", "dễ", "hiểu"]
    assert [word.text for word in found.words] == ["thầy", "giảng", "dễ", "hiểu"]


def test_of_several_labels_each_predicted_one_is_explained_or_the_likeliest() -> None:
    def score(text: str) -> list[float]:  # yes of each label, then no
        return [2.0 * ("a" in text), 1.0 * ("b" in text), -5.0, 0.0, 0.0, 0.0]

    found = double(score, "multilabel", (0.6, 0.6, 0.6)).explain("a b c")
    assert [one.label for one in found] == ["negative", "neutral"]
    assert [[word.effect for word in one.words] for one in found] == [[2, 0, 0], [0, 1, 0]]
    none = double(score, "multilabel", (0.95, 0.95, 0.95)).explain("a b c")
    assert [(one.label, one.predicted) for one in none] == [("negative", ())]
    assert double(score, "multilabel", (0.6,) * 3).explain("a b c", "Positive")[0].log_odds == -5


def test_another_label_than_the_runs_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^label: none of the run's \(got 'tốt'\); allowed: negative, neutral, posi"):
        double(lambda text: [0.0, 1.0, 2.0]).explain("hay", "tốt")


# --- the real scorer --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(run: Run) -> Classifier:
    return load(run.path)


def test_it_is_what_predicting_each_sentence_without_a_word_gives(run: Run, loaded: Classifier) -> None:
    text = SENTENCES[0]
    words = text.split()
    left = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
    whole, *others = predict([text, *left], run=run.path)
    (found,) = loaded.explain(text)
    assert found.label == whole.label
    odds = [np.log(row.probs[found.label] / (1 - row.probs[found.label])) for row in (whole, *others)]
    assert found.log_odds == pytest.approx(odds[0], abs=1e-4)
    assert found.probability == pytest.approx(whole.probs[found.label], abs=1e-6)
    assert [word.effect for word in found.words] == pytest.approx([odds[0] - one for one in odds[1:]], abs=1e-4)
    assert max(abs(word.effect) for word in found.words) > 1e-2


def test_a_sentence_of_one_word_is_compared_with_an_empty_one(loaded: Classifier) -> None:
    encoder = loaded.loaded.encoder
    ids = [prompt.ids for prompt in encoder.encode(["hay", ""])]
    scores = scorer.score(loaded.loaded.model, ids, encoder.completions_K)
    (found,) = loaded.explain("hay", "neutral")
    expected = log_odds(scores, 1, several=False)
    assert found.words[0].effect == pytest.approx(expected[0] - expected[1], abs=1e-4)


def test_only_the_sentence_itself_is_told_to_be_shortened(loaded: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    with pytest.warns(UserWarning, match="1 of 1 of these sentences were shortened") as told:
        (found,) = loaded.explain("học " * 2000)
    assert len(told) == 1
    assert [word.text.split() for word in found.words] == [["học"] * 1000] * 2


# --- the mistakes of a run --------------------------------------------------------------------------------------------


def wrong(row: int, probability: float) -> PredictedRow:
    probs = {"negative": probability, "neutral": 1 - probability, "positive": 0.0}
    return PredictedRow(row, f"câu {row}", "positive", "negative", probs)


def test_the_most_confident_mistakes_come_first_and_right_rows_never() -> None:
    rows = [wrong(1, 0.6), PredictedRow(2, "a", "neutral", "neutral"), wrong(3, 0.9), wrong(4, 0.6)]
    assert [row.row for row in mistakes(rows)] == [3, 1, 4]
    sets = [PredictedRow(1, "a", ("x",), ("y",)), PredictedRow(2, "b", ("x",), ()), PredictedRow(3, "c", ("x",), None)]
    sets.append(PredictedRow(4, "d", (), ("x", "y", "z")))
    assert [row.row for row in mistakes(sets)] == [4, 1, 2, 3]
    generated = [PredictedRow(1, "a", "x", None, answer="?"), PredictedRow(2, "b", "x", "y", answer="y")]
    assert [row.row for row in mistakes(generated)] == [1, 2]


@pytest.mark.parametrize("setting", ["output.texts=true", "output.texts=false", "eval.decode=generate"])
def test_a_run_keeps_explanations_of_its_mistakes_unless_it_must_not(
    setting: str, loaded: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    made = Run(tmp_path)
    made.explanations_path.write_text("of an earlier process", encoding="utf-8")
    rows = [wrong(row, row / 100) for row in range(1, MISTAKES + 3)]
    used = loaded.loaded
    monkeypatch.setattr(classifier, "warn_of_cuts", lambda prompts, what: told.append(len(prompts)))
    told: list[int] = []
    explain_mistakes(made, resolve(overrides=[setting]), used.encoder, used.model, (), NONE, rows)
    assert not any(told)  # scoring the test split has told of all cut sentences
    if setting != "output.texts=true":
        assert not made.explanations_path.exists()
        return
    kept = read_record(made.explanations_path, Explanations, "").mistakes
    assert [one.row for one in kept] == [*range(MISTAKES + 2, 2, -1)]
    (again,) = loaded.explain(Example(kept[0].text, row=kept[0].row))
    assert (kept[0].label, [word.text for word in kept[0].words]) == (again.label, [word.text for word in again.words])
    assert [word.effect for word in kept[0].words] == pytest.approx([word.effect for word in again.words], abs=1e-4)
