"""Figures: they exist, they show what they are given, and Vietnamese renders."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import StepPatch

from loraft.errors import RunError
from loraft.evaluation.classification_report import classification_report
from loraft.evaluation.figures import confusion_matrix, draw_run_figures, learning_curve, reliability_diagram
from loraft.runs.predictions import PredictedRow, write_rows
from loraft.runs.run import Run

LABELS = ["tiêu cực", "trung tính", "tích cực (rất ưng ý)"]
LOG = [{"step": step, "loss": 2.0 / step, "learning_rate": 5e-4} for step in range(10, 110, 10)] + [
    {"step": step, "eval_loss": 2.5 / step, "eval_accuracy": 0.9 - 3 / step, "eval_macro_f1": 0.8 - 4 / step}
    for step in (50, 100)
]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn during the test, to be asked what they show."""
    figures = []
    make = Figure.__init__

    def keep(self, *args, **kwargs):
        make(self, *args, **kwargs)
        figures.append(self)

    monkeypatch.setattr(Figure, "__init__", keep)
    return figures


@pytest.fixture(autouse=True)
def _missing_glyphs_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_learning_curve_shows_losses_above_and_scores_below(tmp_path, drawn):
    learning_curve(LOG, tmp_path / "plots" / "learning_curve.png")
    upper, lower = drawn[0].axes
    assert [line.get_label() for line in upper.lines] == ["train, per answer token", "validation, per sentence"]
    assert [line.get_label() for line in lower.lines] == ["accuracy", "macro-F1"]
    assert list(lower.lines[1].get_xdata()) == [50, 100]
    assert list(lower.lines[1].get_ydata()) == [0.8 - 4 / 50, 0.8 - 4 / 100]
    assert "nats" in upper.get_ylabel()
    assert "fraction" in lower.get_ylabel()
    assert imread(tmp_path / "plots" / "learning_curve.png").std() > 0


def test_a_step_logged_again_after_a_resume_is_drawn_once_with_the_later_value(tmp_path, drawn):
    learning_curve(
        [{"step": 20, "loss": 9.0}, {"step": 10, "loss": 3.0}, {"step": 20, "loss": 2.0}], tmp_path / "a.png"
    )
    assert drawn[0].axes[0].lines[0].get_xydata().tolist() == [[10, 3.0], [20, 2.0]]


def test_values_that_were_not_finite_are_left_out(tmp_path, drawn):
    learning_curve([{"step": 10, "loss": None}, {"step": 20, "loss": 2.0}], tmp_path / "a.png")
    assert drawn[0].axes[0].lines[0].get_xydata().tolist() == [[20, 2.0]]


def test_a_log_without_numbers_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(RunError, match="nothing to draw"):
        learning_curve([{"step": 1, "note": "bắt đầu"}], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_confusion_matrix_prints_counts_shares_and_labels(tmp_path, drawn):
    confusion_matrix([[8, 1, 1, 0], [0, 0, 0, 0], [5, 0, 15, 0]], LABELS, tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert texts(drawn[0])[:3] == ["8\n80.0%", "1\n10.0%", "1\n10.0%"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == LABELS
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        f"{label}\n(n={n})" for label, n in zip(LABELS, (10, 0, 20), strict=True)
    ]


def test_answers_that_are_no_label_get_a_column(tmp_path, drawn):
    confusion_matrix([[8, 1, 1, 0], [0, 4, 0, 2], [5, 0, 15, 0]], LABELS, tmp_path / "a.png")
    assert drawn[0].axes[0].get_xticklabels()[-1].get_text() == "no label"
    assert texts(drawn[0])[7] == "2\n33.3%"


def test_of_many_labels_the_most_frequent_confusions_are_bars_of_one_size(tmp_path, drawn):
    labels = [f"nhãn {n}" for n in range(80)]
    counts = np.zeros((80, 81), int)
    for n in range(79):
        counts[n, n + 1], counts[n, n] = n + 1, n + 1
    confusion_matrix(counts.tolist(), labels, tmp_path / "a.png")
    bars = drawn[0].axes[0]
    assert [bar.get_width() for bar in bars.patches] == list(range(79, 64, -1))
    assert bars.get_yticklabels()[0].get_text() == "nhãn 78 → nhãn 79"
    assert texts(drawn[0])[0] == "79 (50%)"
    assert max(imread(tmp_path / "a.png").shape) < 1200  # pixels
    confusion_matrix(np.eye(80, 81, dtype=int).tolist(), labels, tmp_path / "b.png")
    assert drawn[1].axes[0].get_title() == "No confusions"


def test_reliability_diagram_shows_accuracy_and_rows_by_confidence(tmp_path, drawn):
    # Four rows at confidence 0.7, three of them right: |0.75 - 0.7| = 0.05.
    reliability_diagram([0, 0, 0, 1], np.array([[0.7, 0.3]] * 4), tmp_path / "a.png")
    upper, lower = drawn[0].axes
    assert [bar.get_height() for bar in upper.patches] == [0.75]
    assert sum(bar.get_height() for bar in lower.patches) == 4
    assert "0.050" in upper.get_title()


def test_the_reliability_diagram_shows_what_calibration_changed(tmp_path, drawn):
    raw, calibrated = np.array([[0.9, 0.1]] * 4), np.array([[0.7, 0.3]] * 4)
    reliability_diagram([0, 0, 0, 1], calibrated, tmp_path / "a.png", raw)
    upper, lower = drawn[0].axes
    assert upper.get_title() == "Reliability: calibration error 0.050 (as scored 0.150)"
    (before,) = (line for line in upper.lines if line.get_label() == "as scored, before calibration")
    assert before.get_xydata().tolist() == [[pytest.approx(0.9), 0.75]]
    assert before.get_linestyle() == "--"
    (counts,) = (patch for patch in lower.patches if isinstance(patch, StepPatch))
    assert counts.get_data().values.tolist() == [0] * 13 + [4, 0]


def test_the_calibration_error_in_the_title_is_over_the_bins_that_are_drawn(tmp_path, drawn):
    # Of 15 bins, 0.62 and 0.68 lie in two: (|1 - 0.62| + |0 - 0.68|) / 2 = 0.53. Of 10 bins they would lie in one.
    reliability_diagram([0, 1], [[0.62, 0.38], [0.68, 0.32]], tmp_path / "a.png")
    assert [bar.get_height() for bar in drawn[0].axes[0].patches] == [1.0, 0.0]
    assert "0.530" in drawn[0].axes[0].get_title()


def test_figures_are_grey_only(tmp_path):
    learning_curve(LOG, tmp_path / "a.png")
    confusion_matrix([[8, 1, 1, 1], [0, 4, 0, 2], [5, 0, 15, 0]], LABELS, tmp_path / "b.png")
    reliability_diagram([0, 1], np.array([[0.7, 0.3], [0.4, 0.6]]), tmp_path / "c.png")
    for name in "abc":
        red, green, blue = np.moveaxis(imread(tmp_path / f"{name}.png")[..., :3], -1, 0)
        assert np.abs(red - green).max() < 0.02
        assert np.abs(red - blue).max() < 0.02


def test_the_same_data_give_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        learning_curve(LOG, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def finished_run(folder: Path, *, scored: bool) -> Run:
    """A run whose answers are "b", "b" and "a" to rows of "b", "a" and "a"."""
    run = Run.create(folder, "r16")
    for row in LOG:
        run.append_log(row)
    answered = [("b", {"a": 0.3, "b": 0.7}), ("b", {"a": 0.3, "b": 0.7}), ("a", {"a": 0.9, "b": 0.1})]
    write_rows(run, [
        PredictedRow(n, "câu", label, said, probs=probs if scored else None)
        for n, (label, (said, probs)) in enumerate(zip("baa", answered, strict=True))
    ])  # fmt: skip
    return run


def test_a_runs_figures_show_its_log_its_confusion_and_its_probabilities(tmp_path, drawn):
    run = finished_run(tmp_path, scored=True)
    after = classification_report([1, 0, 0], None, [1, 1, 0], ["a", "b"], bootstrap_samples=100, confidence=0.9, seed=0)
    draw_run_figures(run, after, ["a", "b"])
    assert {path.name for path in run.plots.iterdir()} == {
        "learning_curve.png", "confusion_matrix.png", "reliability.png"
    }  # fmt: skip
    curve, matrix, reliability = drawn
    assert len(curve.axes[0].lines[0].get_xdata()) == 10
    assert texts(matrix) == ["1\n50.0%", "1\n50.0%", "0\n0.0%", "1\n100.0%"]
    # Of the two rows at 0.7 one is right, and so is the one at 0.9: (2 * 0.2 + 0.1) / 3 = 0.167.
    assert [bar.get_height() for bar in reliability.axes[0].patches] == [0.5, 1.0]
    assert "0.167" in reliability.axes[0].get_title()


def test_without_probabilities_there_is_no_reliability_diagram(tmp_path):
    run = finished_run(tmp_path, scored=False)
    after = classification_report([1, 0, 0], None, [1, 1, 0], ["a", "b"], bootstrap_samples=100, confidence=0.9, seed=0)
    draw_run_figures(run, after, ["a", "b"])
    assert {path.name for path in run.plots.iterdir()} == {"learning_curve.png", "confusion_matrix.png"}
