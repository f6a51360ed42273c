"""Figures: they exist, they show what they are given, and Vietnamese renders."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.figures import drawn_figures
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from matplotlib.patches import StepPatch

from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.errors import RunError
from loraft.evaluation.choosing import Metric
from loraft.evaluation.classification_report import classification_report
from loraft.evaluation.figures import confusion_matrix, draw_run_figures, learning_curve, reliability_diagram
from loraft.runs.predictions import PredictedRow, write_rows
from loraft.runs.run import Run

LABELS = ["tiêu cực", "trung tính", "tích cực (rất ưng ý)"]
LOG = [{"step": step, "loss": 2.0 / step, "learning_rate": 5e-4} for step in range(10, 110, 10)] + [
    {"step": step, "eval_loss": 2.5 / step, "eval_answer_loss": 0.5 / step, "eval_macro_f1": 0.8 - 4 / step}
    for step in (50, 100)
]


@pytest.fixture
def drawn():
    """The figures that are drawn during the test."""
    with drawn_figures() as figures:
        yield figures


@pytest.fixture(autouse=True)
def _missing_glyphs_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_learning_curve_shows_losses_of_one_unit_above_and_the_metric_below(tmp_path, drawn):
    learning_curve(LOG, tmp_path / "plots" / "learning_curve.png")
    upper, lower = drawn[0].axes
    assert [line.get_label() for line in upper.lines[:2]] == ["training", "validation"]
    named = [text.get_text() for text in upper.get_legend().get_texts()]
    assert named == ["training", "validation", "weights that are kept"]
    assert upper.lines[1].get_xydata().tolist() == [[50, 0.5 / 50], [100, 0.5 / 100]]
    assert upper.get_ylabel() == "loss\n(nats an answer token)"
    assert lower.lines[0].get_xydata().tolist() == [[50, 0.8 - 4 / 50], [100, 0.8 - 4 / 100]]
    assert lower.get_ylabel() == "validation macro-F1\n(fraction)"
    assert upper.get_xlim() == lower.get_xlim()
    assert imread(tmp_path / "plots" / "learning_curve.png").std() > 0


def test_the_best_step_is_marked_and_said(tmp_path, drawn):
    scores = [
        {"step": step, "eval_macro_f1": value} for step, value in ((50, 0.7), (100, 0.85), (150, 0.85), (200, 0.8))
    ]
    learning_curve(scores, tmp_path / "a.png")
    learning_curve(scores, tmp_path / "b.png", keep="last")
    errors = Metric("mean_absolute_error", "mean absolute error", "mean_absolute_error", ordinal=True)
    learning_curve([{"step": n, "eval_mean_absolute_error": n / 10} for n in (1, 2)], tmp_path / "c.png", errors)
    titles = ["○ best: step 100, macro F1 0.85",
              "○ kept: the last step, 200, macro F1 0.80; best: step 100,\nmacro F1 0.85",
              "○ best: step 1, mean absolute error 0.10"]  # fmt: skip
    for figure, title, marked in zip(drawn, titles, ([100, 0.85], [200, 0.8], [1, 0.1]), strict=True):
        lower = figure.axes[1]
        assert lower.get_title() == title
        (circle,) = (line for line in lower.lines if line.get_marker() == "o")
        assert circle.get_xydata().tolist() == [marked]


def test_a_log_of_an_earlier_version_has_no_validation_loss_in_that_unit(tmp_path, drawn):
    earlier = [{key: value for key, value in row.items() if key != "eval_answer_loss"} for row in LOG]
    learning_curve(earlier, tmp_path / "a.png")
    assert [line.get_label() for line in drawn[0].axes[0].lines if line.get_label()[0] != "_"] == [
        "training",
        "weights that are kept",
    ]


def test_a_step_logged_again_after_a_resume_is_drawn_once_with_the_later_value(tmp_path, drawn):
    learning_curve(
        [{"step": 20, "loss": 9.0}, {"step": 10, "loss": 3.0}, {"step": 20, "loss": 2.0}], tmp_path / "a.png"
    )
    assert drawn[0].axes[0].lines[0].get_xydata().tolist() == [[10, 3.0], [20, 2.0]]


def test_a_training_of_few_steps_without_evaluation_has_one_panel_and_whole_steps(tmp_path, drawn):
    learning_curve([{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}], tmp_path / "a.png")
    (axes,) = drawn[0].axes
    assert all(tick == round(tick) for tick in axes.get_xticks())
    assert axes.get_xlabel() == "training step"


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
    in_lines = ["tiêu cực", "trung tính", "tích cực (rất\nưng ý)"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == in_lines
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        f"{label}\n(n={n})" for label, n in zip(in_lines, (10, 0, 20), strict=True)
    ]


def contrast(one, other):
    """Of two colours, from 1 to 21, as WCAG 2.2 defines it."""
    lights = []
    for colour in (one, other):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_every_cell_of_a_matrix_can_be_read_whatever_its_shade(tmp_path, drawn):
    for right in range(0, 101, 4):
        confusion_matrix([[right, 100 - right, 0], [40, 60, 0]], ["chê", "khen"], tmp_path / "a.png")
        axes = drawn[-1].axes[0]
        for text, shade in zip(
            axes.texts, axes.images[0].to_rgba(axes.images[0].get_array()).reshape(-1, 4), strict=True
        ):
            assert contrast(text.get_color(), shade) >= 4.4, text.get_text()


def test_long_vietnamese_names_stand_apart_beside_eight_rows(tmp_path, drawn):
    labels = ["cơ sở vật chất và phòng học", "chương trình đào tạo", "giảng viên hướng dẫn thực hành ở phòng máy",
              "khác", "học phí và học bổng", "thủ tục hành chính", "thư viện", "ký túc xá sinh viên"]  # fmt: skip
    confusion_matrix(np.full((8, 9), 12_345).tolist(), labels, tmp_path / "a.png")
    assert drawn[0].axes[0].get_yticklabels()[2].get_text() == "giảng viên hướng dẫn\nthực hành ở …\n(n=111105)"
    assert texts(drawn[0])[0] == "12k"


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
    assert drawn[1].get_suptitle() == "No confusions"


def test_reliability_diagram_shows_accuracy_and_rows_by_confidence(tmp_path, drawn):
    # Four rows at confidence 0.7, three of them right: |0.75 - 0.7| = 0.05.
    reliability_diagram([0, 0, 0, 1], np.array([[0.7, 0.3]] * 4), tmp_path / "a.png")
    upper, lower = drawn[0].axes
    assert [bar.get_height() for bar in upper.patches] == [0.75]
    assert sum(bar.get_height() for bar in lower.patches) == 4
    assert "0.050" in drawn[0].get_suptitle()


def test_the_reliability_diagram_shows_what_calibration_changed(tmp_path, drawn):
    raw, calibrated = np.array([[0.9, 0.1]] * 4), np.array([[0.7, 0.3]] * 4)
    reliability_diagram([0, 0, 0, 1], calibrated, tmp_path / "a.png", raw)
    upper, lower = drawn[0].axes
    assert drawn[0].get_suptitle() == "Reliability: calibration error 0.050 (as scored 0.150)"
    (before,) = (line for line in upper.lines if line.get_label() == "as scored, before calibration")
    assert before.get_xydata().tolist() == [[pytest.approx(0.9), 0.75]]
    assert before.get_linestyle() == "--"
    (counts,) = (patch for patch in lower.patches if isinstance(patch, StepPatch))
    assert counts.get_data().values.tolist() == [0] * 13 + [4, 0]


def test_the_calibration_error_in_the_title_is_over_the_bins_that_are_drawn(tmp_path, drawn):
    # Of 15 bins, 0.62 and 0.68 lie in two: (|1 - 0.62| + |0 - 0.68|) / 2 = 0.53. Of 10 bins they would lie in one.
    reliability_diagram([0, 1], [[0.62, 0.38], [0.68, 0.32]], tmp_path / "a.png")
    assert [bar.get_height() for bar in drawn[0].axes[0].patches] == [1.0, 0.0]
    assert "0.530" in drawn[0].get_suptitle()


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
    run.config_path.write_text(dump_config(resolve()), encoding="utf-8")
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
    assert "0.167" in reliability.get_suptitle()


def test_without_probabilities_there_is_no_reliability_diagram(tmp_path):
    run = finished_run(tmp_path, scored=False)
    after = classification_report([1, 0, 0], None, [1, 1, 0], ["a", "b"], bootstrap_samples=100, confidence=0.9, seed=0)
    draw_run_figures(run, after, ["a", "b"])
    assert {path.name for path in run.plots.iterdir()} == {"learning_curve.png", "confusion_matrix.png"}
