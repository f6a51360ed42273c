"""Builds the report of a finished run from its files: results, figures, mistakes, and how to use its adapter."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from loraft.config.resolve import load_config
from loraft.config.schema import Config
from loraft.display.page import Code, Document, Part
from loraft.display.table import listing
from loraft.errors import spared
from loraft.evaluation import tables
from loraft.evaluation.choosing import Metric
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.explanation import TOP, Explanations, strongest
from loraft.evaluation.figures import draw_run_figures, learning_curve
from loraft.models.peft_code import peft_code
from loraft.runs.predictions import MISTAKES, PredictedRow, mistakes, read_rows
from loraft.runs.records import as_json, read_record
from loraft.runs.run import Run
from loraft.studies.report_sections import config_and_environment, figure, made_from, sources
from loraft.training.model_card import SENTENCE, beside, calibration, headline, pairs
from loraft.training.results import RunResult

WITHOUT = "delete it: the report is then without these words"
WORDS = (
    f"Words for it: up to {TOP} words without which the log-odds of the wrong label fall most, and by how many nats."
    " They are what the model goes by, not causes; loraft explain --run . 'câu' shows all words of a sentence."
)


def of_run(folder: Path) -> Document:
    """The report of a finished run.

    Figures that are missing, as in the trials of a sweep, are drawn, and so is a learning curve of an earlier version.

    Raises:
        RunError: a file of the run is damaged or of a later version.
    """
    run = Run(folder)
    result, config = RunResult.of(run), load_config(run.config_path)
    after = result.after
    subtitle = made_from(run, f"rank {config.lora.r}, {config.lora.alpha_policy}")
    mistakes = _mistakes(run, after)
    if not any(run.plots.glob("*.png")):  # after all files are read, of which one may be damaged
        draw_run_figures(run, after, result.labels)
    elif (log := run.read_log()) and not any("eval_answer_loss" in row for row in log):
        # Drawn by an earlier version, in another unit.
        with spared("the learning curve", f"loraft report {shlex.quote(str(run.path))}"):
            learning_curve(log, run.learning_curve_path, Metric.of(config), config.train.keep)
    metric = Metric.of(config)
    training = as_json(result.train) | {"cut": None, "share of the rows' tokens left out": result.train.cut}
    return Document(
        title=f"Run {run.name}",
        subtitle=subtitle,
        sections=[
            (
                "Results",
                [
                    headline(result, metric),
                    *beside(result, metric),
                    tables.before_after(result.before, after, metric, result.before_is),
                ],
            ),
            ("Warnings", [*result.warnings]),
            ("Labels", [*tables.labels(after), *figure(run.confusion_matrix_path)]),
            ("Calibration", [*calibration(after), *figure(run.reliability_path)]),
            ("Most confident mistakes", mistakes),
            ("Training", [*figure(run.learning_curve_path), pairs(training)]),
            ("How to use the adapter", _usage(run, config)),
            ("Data", [sources(result.data)]),
            ("Config", config_and_environment(run)),
        ],
        labels=result.labels,
    )


def _mistakes(run: Run, after: EvaluationReport) -> list[Part]:
    """The wrong rows as `mistakes` sorts them, with the words behind each where the run keeps them."""
    wrong = mistakes(read_rows(run) if run.predictions_path.exists() else [])
    if not wrong:
        return ["None: every test row is right."]
    total = f"{len(wrong):,} of {after.n:,} test rows are wrong"
    total += "" if wrong[0].text else " (their sentences are not kept: output.texts=false)"
    shown = wrong[:MISTAKES]
    if wrong[0].probs is None:
        answers = [(row.text, str(row.label), str(row.answer), str(row.row)) for row in shown]
        return [f"{total}; the first of them:", listing(("sentence", "reference", "answer", "row"), answers)]
    words, columns = _words(run, shown), ["sentence", "reference", "predicted", "row"]
    if after.thresholds is not None:
        cells = [[row.text, _joined(row.label), _joined(row.predicted), str(row.row)] for row in shown]
        order = "the most wrong labels"
    else:
        columns.insert(3, "probability")
        probs = [(row.probs or {}).get(str(row.predicted), 0.0) for row in shown]
        cells = [
            [row.text, str(row.label), str(row.predicted), f"{prob:.3f}", str(row.row)]
            for row, prob in zip(shown, probs, strict=True)
        ]
        order = "the highest probability of the wrong label"
    if words:
        columns.insert(-1, "words for it")
        for row, line in zip(shown, cells, strict=True):
            line.insert(-1, words.get(row.row, "-"))
    return [f"{total}; those with {order}:", listing(columns, cells), *([WORDS] if words else ())]


def _joined(labels: str | tuple[str, ...] | None) -> str:
    return ", ".join(sorted(labels or ())) or "-"


def _words(run: Run, shown: Sequence[PredictedRow]) -> dict[int, str]:
    """By the number of a wrong row, the words that speak for a label that it does not have; none where none are kept.

    Only of the labels that were predicted: after a row was predicted again, its explanation may be of another one.
    """
    if not run.explanations_path.exists():
        return {}
    wrong = {row.row: {*_labels(row.predicted)} - {*_labels(row.label)} for row in shown}
    found: dict[int, str] = {}
    for one in read_record(run.explanations_path, Explanations, WITHOUT).mistakes:
        if one.label in (labels := wrong.get(one.row, set())):
            named = f"{one.label}: " if len(labels) > 1 else ""
            found[one.row] = "; ".join(filter(None, (found.get(one.row), named + strongest(one))))
    return found


def _labels(of: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return of if isinstance(of, tuple) else (str(of),)


def _usage(run: Run, config: Config) -> list[Part]:
    """Commands and Python code that predict with the adapter, for the run's folder, wherever it is moved to."""
    column = shlex.quote(config.data.text_column)
    return [
        "In the run's folder, which holds this report. On the command line, one sentence or a whole file:",
        Code(
            f"loraft predict --run . '{SENTENCE}'\n"
            f"loraft predict --run . --input feedback.csv --text-column {column} --json"
        ),
        "In Python:",
        Code(f'import loraft\n\nfor row in loraft.predict("{SENTENCE}", run="."):\n    print(row.label, row.probs)'),
        "The adapter is a plain PEFT directory, which also holds loraft.json with its prompt and labels. The backbone"
        " must be loaded as in the training:",
        Code(peft_code(run, config)),
    ]
