"""The promise of `predict --max-error`: exact bounds, how often it is broken, how it is refused."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import SENTENCES

from loraft.config.resolve import load_config, resolve
from loraft.config.schema import Config, EvalConfig
from loraft.errors import ConfigError, Note, RunError
from loraft.evaluation.guarantee import (
    Answers,
    guaranteed,
    least_answers,
    least_confidence,
    lowest_threshold,
    of_adapter,
    rows_needed,
    start_of,
    upper_bounds,
)
from loraft.evaluation.predict import predict
from loraft.models import manifest
from loraft.models.calibration import NONE, Calibration
from loraft.runs.run import Run
from loraft.runs.validation_scores import VALIDATION_FILE, ValidationScores, write

DRAWS, LEVEL = 500, 0.95
MOST_BROKEN = 0.05 + 2 * np.sqrt(0.05 * 0.95 / DRAWS)


@dataclass(frozen=True)
class Population:
    """Rows of a few confidences, each with its share of the rows and of mistakes: where errors are known exactly."""

    confidences: np.ndarray
    shares: np.ndarray
    errors: np.ndarray

    def draw(self, rows: int, generator: np.random.Generator) -> Answers:
        at = generator.choice(len(self.shares), rows, p=self.shares)
        return Answers(self.confidences[at], generator.random(rows) < self.errors[at])

    def error(self, threshold: float) -> float:
        reached = self.confidences >= threshold
        return float(self.shares[reached] @ self.errors[reached] / self.shares[reached].sum())


def steps(*errors: float, between: int = 40) -> Population:
    """Confidences from 0.5 to 1, as many rows of each error, the first for the lowest confidences."""
    number = between * len(errors)
    return Population(np.linspace(0.5, 1, number), np.full(number, 1 / number), np.repeat(errors, between))


HARD = {
    "errors just too many everywhere": steps(0.1001),
    "a step where the error passes the bound": steps(0.3, 0.3, 0.2, 0.0, 0.0, 0.0),
    "ties": Population(np.array([0.6, 0.8, 0.9]), np.array([0.3, 0.3, 0.4]), np.array([0.4, 0.15, 0.0669])),
    "more errors among the surest": steps(0.3, 0.06, 0.07, 0.16),
}


@pytest.mark.parametrize("name", HARD)
def test_a_promise_is_broken_in_at_most_one_of_twenty_draws(name: str) -> None:
    population, generator = HARD[name], np.random.default_rng(7)
    broken = 0
    for _ in range(DRAWS):
        guiding, aside = population.draw(150, generator), population.draw(150, generator)
        found = lowest_threshold(guiding, aside, 0.1, LEVEL)
        broken += found is not None and population.error(found) > 0.1
    assert broken / DRAWS <= MOST_BROKEN
    assert broken / DRAWS > 0.005  # it is a hard place: were nothing ever promised, nothing would be tested


def test_the_simulation_notices_thresholds_that_are_chosen_by_the_rows_that_test_them() -> None:
    population, generator, broken = HARD["errors just too many everywhere"], np.random.default_rng(7), 0
    for _ in range(DRAWS):
        aside = population.draw(150, generator)
        answered_T, wrong_T = aside.at(aside.thresholds())
        broken += bool((upper_bounds(wrong_T, answered_T, LEVEL) <= 0.1).any())
    assert broken / DRAWS > MOST_BROKEN


def test_bounds_are_those_of_scipys_exact_test() -> None:
    from scipy.stats import beta, binomtest

    for answered, wrong in ((59, 0), (93, 1), (93, 93), (400, 17), (1, 0), (7, 7)):
        found = float(upper_bounds(wrong, answered, LEVEL))
        exact = binomtest(wrong, answered, alternative="less").proportion_ci(LEVEL, method="exact").high
        assert found == pytest.approx(exact, abs=1e-12)
        if wrong < answered:
            assert found == pytest.approx(beta.ppf(LEVEL, wrong + 1, answered - wrong), abs=1e-12)
            assert binomtest(wrong, answered, found, alternative="less").pvalue == pytest.approx(1 - LEVEL)
    assert upper_bounds(0, 0, LEVEL) == 1


@pytest.mark.parametrize("max_error", [0.01, 0.02, 0.05, 0.3])
def test_fewer_answers_than_the_least_show_nothing(max_error: float) -> None:
    least = least_answers(max_error, LEVEL)
    low, high = upper_bounds([0, 0], [least, least - 1], LEVEL)
    assert low <= max_error < high
    assert {0.01: 299, 0.02: 149, 0.05: 59}.get(max_error, least) == least  # as docs/guarantees.md says


@pytest.mark.parametrize("seed", range(6))
def test_the_threshold_is_that_of_mapies_fixed_sequence(seed: int) -> None:
    control = pytest.importorskip("mapie.risk_control.fwer_control")
    from scipy.stats import binom

    generator = np.random.default_rng(seed)
    population = steps(0.3, 0.1, 0.04, 0.03, 0.01)
    guiding, aside = population.draw(200, generator), population.draw(300, generator)
    thresholds_T = guiding.thresholds()[start_of(guiding, LEVEL) :]
    answered_T, wrong_T = aside.at(thresholds_T)
    rejected = control.control_fwer(binom.cdf(wrong_T, answered_T, 0.1), 1 - LEVEL, "fixed_sequence")
    assert lowest_threshold(guiding, aside, 0.1, LEVEL) == thresholds_T[rejected[-1]]


def test_a_larger_error_never_answers_fewer_rows() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        guiding, aside = (steps(0.3, 0.1, 0.02, 0.01).draw(120, generator) for _ in range(2))
        found = [lowest_threshold(guiding, aside, error, LEVEL) for error in np.linspace(0.02, 0.5, 25)]
        shown = [2.0 if one is None else one for one in found]
        assert shown == sorted(shown, reverse=True)
        assert shown[-1] == 0  # answers all: fewer than half are wrong


def test_thresholds_lie_between_confidences_and_tied_rows_stay_together() -> None:
    tied = Answers(np.array([0.9, 0.9 + 1e-9, 0.7, 0.7, 0.5]), np.array([False, True, False, True, True]))
    np.testing.assert_allclose(tied.thresholds(), [0.8, 0.6, 0.0])
    answered_T, wrong_T = tied.at(tied.thresholds())
    assert (answered_T.tolist(), wrong_T.tolist()) == ([2, 4, 5], [1, 2, 3])
    assert [int(one) for one in tied.at(0.7)] == [4, 2]  # as `predict` compares: reaching it is enough


def test_with_the_number_of_rows_that_it_takes_about_half_of_the_draws_show_the_error() -> None:
    population, generator = steps(0.3, 0.08, 0.02, 0.01), np.random.default_rng(0)
    wanted = int(np.median([rows_needed(population.draw(1500, generator), 0.03, LEVEL) or 0 for _ in range(9)]))

    def shown(rows: int) -> float:
        draws = [(population.draw(rows, generator), population.draw(rows, generator)) for _ in range(100)]
        return float(np.mean([lowest_threshold(*pair, 0.03, LEVEL) is not None for pair in draws]))

    assert 0.25 < shown(wanted) < 0.8
    assert shown(wanted // 3) < 0.25
    assert rows_needed(steps(0.3).draw(500, generator), 0.1, LEVEL) is None


def test_what_is_refused_says_what_can_be_promised_and_with_how_many_rows() -> None:
    sure = Answers(np.linspace(0.9, 1, 40), np.zeros(40, dtype=bool))
    with pytest.raises(
        ConfigError, match=r"max_error: is not shown with 95% confidence \(got 0\.05, 40 validation"
    ) as e:
        guaranteed(sure, sure, 0.05, LEVEL)
    assert "; about 0.073 is, at the strictest threshold; this one takes at least 59 answers, without a mistake" in str(
        e.value
    )
    assert "rows set aside, for even odds; an error is promised only if it was chosen before" in str(e.value)
    assert guaranteed(sure, sure, 0.073, LEVEL).answered == 40  # what the message says
    wrong = replace(sure, wrong_N=np.ones(40, dtype=bool))
    with pytest.raises(ConfigError, match=r"; no error is; .*, and a better model$"):
        guaranteed(wrong, wrong, 0.05, LEVEL)


def scores(rows: int = 300, *, aside: bool = True, wrong: int = 9) -> ValidationScores:
    """Rows of a run of three labels, half set aside; the least sure ones are wrong, and a bias makes all wrong."""
    margins = np.linspace(0.1, 4, rows)
    log_probs = np.stack([np.zeros(rows), margins, np.full(rows, -1.0)], axis=1)
    references = np.where(np.arange(rows) < wrong, 0, 1)
    return ValidationScores(
        ("negative", "neutral", "positive"), tuple(range(rows)), tuple(references.tolist()),
        tuple(map(tuple, log_probs.tolist())), tuple(aside and n % 2 == 1 for n in range(rows)),
    )  # fmt: skip


def test_an_adapters_promise_is_about_the_labels_and_confidences_of_its_calibration(tmp_path: Path) -> None:
    write(tmp_path, scores())
    found = of_adapter(tmp_path, NONE, 0.03, LEVEL)
    hotter = of_adapter(tmp_path, Calibration(2.0), 0.03, LEVEL)
    assert (found.rows, found.answered, found.wrong) == (150, hotter.answered, hotter.wrong)  # the same rows
    assert (found.wrong, found.answered) == (0, 146)  # of the 150, 4 are wrong
    assert hotter.threshold < found.threshold
    assert str(found).startswith("max_error 0.03: rows with a confidence of at least 0.")
    assert f"({found.answered} of 150 rows set aside are answered, {found.wrong} wrongly)" in str(found)
    with pytest.raises(ConfigError, match="max_error: is not shown with 95% confidence"):  # other labels, most wrong
        of_adapter(tmp_path, Calibration(1.0, (5.0, -5.0, 0.0)), 0.03, LEVEL)


def test_without_rows_set_aside_a_promise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RunError,
        match=r"max_error needs .*\(got no validation_scores\.json, as of .*\); name the run that it was made from",
    ):
        of_adapter(tmp_path, NONE, 0.05, LEVEL)
    write(tmp_path, scores(aside=False))
    with pytest.raises(RunError, match=r"\(got 300 rows, which all chose the checkpoint\).*59 rows set aside are the"):
        of_adapter(tmp_path, NONE, 0.05, LEVEL)
    (tmp_path / "loraft.json").write_text(json.dumps({"files": {VALIDATION_FILE: "0" * 64}}), encoding="utf-8")
    for state in ("changed", "missing"):
        with pytest.raises(RunError, match=rf"validation_scores\.json: is not the file .* \(got {state}\); copy the"):
            of_adapter(tmp_path, NONE, 0.05, LEVEL)
        (tmp_path / VALIDATION_FILE).unlink(missing_ok=True)
    for value in (0, 1, -0.1, float("nan"), 1e-320, "0.05"):
        with pytest.raises(ConfigError, match=r"max_error: is no number from 1e-06 to 0\.999999 \(got"):
            of_adapter(tmp_path, NONE, value, LEVEL)


@pytest.fixture(scope="module")
def shown(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run with a temperature, and with scores of validation rows among which those below 0.4 are wrong."""
    copied = Run(shutil.copytree(run.path, tmp_path_factory.mktemp("runs") / "hứa"))
    write(copied.adapter, scores())
    manifest.write(copied.adapter, manifest.read(copied.adapter))
    path = copied.adapter / "loraft.json"
    content = json.loads(path.read_text(encoding="utf-8")) | {"calibration": {"temperature": 2.0}}
    path.write_text(json.dumps(content), encoding="utf-8")
    return copied


def test_predict_labels_the_rows_that_reach_the_threshold_and_says_so_before(shown: Run) -> None:
    config = load_config(shown.config_path)
    raw: Config = config.model_copy(update={"eval": EvalConfig(calibrate=False)})
    for one, calibration in ((config, Calibration(2.0)), (raw, NONE)):
        promise = of_adapter(shown.adapter, calibration, 0.03, LEVEL)
        with pytest.warns(Note, match="max_error 0.03: ") as told:
            found = list(predict(SENTENCES, run=shown.path, config=one, max_error=0.03))
        assert str(promise) in [str(note.message) for note in told]
        assert [row.label is not None for row in found] == [
            max(row.probs.values()) >= promise.threshold for row in found
        ]
    config = config.model_copy(update={"eval": EvalConfig(confidence=0.9)})
    with pytest.warns(Note, match="with 90% confidence"):
        least_confidence(shown.adapter, config, None, 0.03)
    assert "with 99.95% confidence at most 3% of" in str(replace(promise, confidence=0.9995))


def test_two_rules_and_label_sets_are_refused(shown: Run) -> None:
    with pytest.raises(ConfigError, match=r"max_error and min_confidence: .*\(got 0\.05 and 0\.8\); give one"):
        next(predict(SENTENCES, run=shown.path, min_confidence=0.8, max_error=0.05))
    several = resolve(overrides=["prompt.kind=multilabel"])
    with pytest.raises(ConfigError, match=r"max_error: with prompt\.kind=multilabel each label has its own"):
        least_confidence(shown.adapter, several, None, 0.05)
