"""Builds the report of a finished run from its files: results, figures, mistakes, and how to use its adapter."""

import shlex
from pathlib import Path

from loraft.config.resolve import load_config
from loraft.config.schema import Config
from loraft.display.page import Code, Document, Part
from loraft.display.table import listing
from loraft.evaluation import tables
from loraft.evaluation.choosing import Metric
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.figures import draw_run_figures
from loraft.models.peft_code import peft_code
from loraft.runs.predictions import read_rows
from loraft.runs.records import as_json
from loraft.runs.run import Run
from loraft.studies.report_sections import config_and_environment, figure, made_from, sources
from loraft.training.model_card import SENTENCE, beside, calibration, headline, pairs
from loraft.training.results import RunResult

MISTAKES = 20  # wrong rows that are shown


def of_run(folder: Path) -> Document:
    """The report of a finished run.

    Figures that are missing, as in the trials of a sweep, are drawn.

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
    metric = Metric.of(config)
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
            ("Training", [*figure(run.learning_curve_path), pairs(as_json(result.train))]),
            ("How to use the adapter", _usage(run, config)),
            ("Data", [sources(result.data)]),
            ("Config", config_and_environment(run)),
        ],
    )


def _mistakes(run: Run, after: EvaluationReport) -> list[Part]:
    """The wrong rows with the highest probability of their wrong label; the first ones where answers were generated.

    Where a row has any number of labels, those with the most wrong ones.
    """
    rows = read_rows(run) if run.predictions_path.exists() else []
    wrong = [row for row in rows if row.predicted != row.label]
    if not wrong:
        return ["None: every test row is right."]
    total = f"{len(wrong):,} of {after.n:,} test rows are wrong"
    total += "" if wrong[0].text else " (their sentences are not kept: output.texts=false)"
    if wrong[0].probs is None:
        answers = [(row.text, str(row.label), str(row.answer), str(row.row)) for row in wrong[:MISTAKES]]
        return [f"{total}; the first of them:", listing(("sentence", "reference", "answer", "row"), answers)]
    if after.thresholds is not None:
        sets = [(row, set(row.label), set(row.predicted or ())) for row in wrong]
        sets.sort(key=lambda one: -len(one[1] ^ one[2]))
        shown = [(row.text, *(", ".join(sorted(one)) or "-" for one in both), str(row.row)) for row, *both in sets]
        made = listing(("sentence", "reference", "predicted", "row"), shown[:MISTAKES])
        return [f"{total}; those with the most wrong labels:", made]
    confident = [(row, (row.probs or {}).get(str(row.predicted), 0.0)) for row in wrong]
    confident.sort(key=lambda pair: -pair[1])
    cells = [
        (row.text, str(row.label), str(row.predicted), f"{prob:.3f}", str(row.row))
        for row, prob in confident[:MISTAKES]
    ]
    made = listing(("sentence", "reference", "predicted", "probability", "row"), cells)
    return [f"{total}; those with the highest probability of the wrong label:", made]


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
