"""What a page says about a run, a sweep, a few-shot study or a data source, from the files in its folder.

Nothing is computed again and nothing heavy is imported: a report is as old as the files it was made from. The figures
of a sweep's trial are drawn when its report is asked for.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from loraft.bundled import bundled_backbones
from loraft.config.resolve import load_resolved
from loraft.config.schema import Config
from loraft.display.page import Code, Document, Part
from loraft.display.table import listing
from loraft.evaluation import tables
from loraft.evaluation.figures import draw_run_figures
from loraft.runs.run import Run
from loraft.studies.report_sections import SENTENCE, config_and_environment, figures_of, made_from, sources

MISTAKES = 20  # the most confident ones are shown


def of_run(folder: Path) -> Document:
    """A finished run: results, plots, mistakes, how to use it, and what it was made from."""
    run = Run(folder)
    result, config = run.read_metrics(), load_resolved(run.config_path)
    after, before = result["after"], result.get("before")
    if not run.plots.is_dir():  # a trial of a sweep
        draw_run_figures(run, after, result["labels"])
    low, high = after["intervals"]["macro_f1"]
    headline = (
        f"Macro F1 {after['macro_f1']:.3f} ({after['confidence']:.0%} interval {low:.3f} to {high:.3f}) and accuracy"
        f" {after['accuracy']:.3f} on {after['n']:,} test rows."
    )
    if before is not None:
        headline += f" The backbone without the adapter: {before['macro_f1']:.3f} and {before['accuracy']:.3f}."
    return Document(
        title=f"Run {run.name}",
        subtitle=made_from(folder, "config.yaml", f"rank {config.lora.r}, {config.lora.alpha_policy}"),
        sections=[
            ("Results", [headline, tables.before_after(before, after)]),
            ("Labels", [tables.per_class(after), tables.confusion(after), *figures_of(run, "confusion_matrix.png")]),
            ("Calibration", _calibration(run, after)),
            ("Most confident mistakes", _mistakes(run, after)),
            ("Training", [*figures_of(run, "learning_curve.png"), _pairs(result["train"])]),
            ("How to use the adapter", _usage(run, config)),
            ("Data", [sources(result["data"])]),
            ("Config", config_and_environment(folder, "config.yaml")),
        ],
    )


def _calibration(run: Run, after: Mapping[str, Any]) -> list[Part]:
    if after["expected_calibration_error"] is None:
        return ["Answers were generated, so there are no probabilities."]
    numbers = (
        f"Expected calibration error {after['expected_calibration_error']:.3f} (15 bins), log loss"
        f" {after['log_loss']:.3f} nats."
    )
    return [numbers, *figures_of(run, "reliability.png")]


def _mistakes(run: Run, after: Mapping[str, Any]) -> list[Part]:
    wrong = [row for row in _predictions(run) if row["predicted"] != row["label"]]
    if not wrong:
        return ["None: every test row is right."]
    total = f"{len(wrong):,} of {after['n']:,} test rows are wrong"
    if "probs" not in wrong[0]:
        shown = wrong[:MISTAKES]
        answers = [(row["text"], row["label"], str(row.get("answer")), str(row["row"])) for row in shown]
        heads = ("sentence", "reference", "answer", "row")
        return [f"{total}; the first of them:", listing(heads, answers)]
    shown = sorted(wrong, key=lambda row: -row["probs"][row["predicted"]])[:MISTAKES]
    rows = [
        (row["text"], row["label"], row["predicted"], f"{row['probs'][row['predicted']]:.3f}", str(row["row"]))
        for row in shown
    ]
    made = listing(("sentence", "reference", "predicted", "probability", "row"), rows)
    return [f"{total}; those with the highest probability of the wrong label:", made]


def _predictions(run: Run) -> Iterator[dict[str, Any]]:
    if run.predictions_path.is_file():
        for line in run.predictions_path.read_text(encoding="utf-8").split("\n"):
            if line:
                yield json.loads(line)


def _usage(run: Run, config: Config) -> list[Part]:
    path = shlex.quote(str(run.path))
    backbone = str(bundled_backbones().get(config.model.name, config.model.name))
    return [
        "On the command line, one sentence or a whole file:",
        Code(
            f"loraft predict --run {path} '{SENTENCE}'\n"
            f"loraft predict --run {path} --file feedback.csv --text-column {config.data.text_column} --json"
        ),
        "In Python:",
        Code(
            "from pathlib import Path\n\nimport loraft\nfrom loraft.data import Example\n\n"
            f'rows = [Example("{SENTENCE}", None, 1)]\n'
            f"for row in loraft.predict(rows, run=Path({str(run.path)!r})):\n    print(row.label, row.probs)"
        ),
        "The adapter is a plain PEFT directory; its prompt and its labels are in loraft.json beside it:",
        Code(
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
            f"base = AutoModelForCausalLM.from_pretrained({backbone!r})\n"
            f"model = PeftModel.from_pretrained(base, {str(run.adapter)!r})"
        ),
    ]


def _pairs(values: Mapping[str, Any]) -> Table:
    """Names and values of a flat mapping, and of the mappings in it; what is None did not happen or is not known."""
    rows = []
    for key, value in values.items():
        for name, item in value.items() if isinstance(value, Mapping) else [("", value)]:
            if item is None:
                continue
            shown = {True: "yes", False: "no"}[item] if isinstance(item, bool) else str(item)
            if isinstance(item, float):
                shown = f"{item:,.4g}" if abs(item) < 1000 else f"{item:,.0f}"
            elif isinstance(item, int) and not isinstance(item, bool):
                shown = f"{item:,}"
            rows.append((f"{key} {name}".replace("_", " ").replace(" mib", " MiB").strip(), shown))
    return listing(("training", "value"), rows)
