"""What a page says about a run, a sweep, a few-shot study or a data source, from the files in its folder.

Nothing is computed again and nothing heavy is imported: a report is as old as the files it was made from. The figures
of a sweep's trial are drawn when its report is asked for.
"""

import difflib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from loraft import pages, plots, studytables, sweeptables, tables
from loraft.bundled import bundled_backbones
from loraft.config import Config
from loraft.errors import RunError
from loraft.pages import Code, Document, Image, Part
from loraft.resolving import load_resolved
from loraft.runs import Run, write_text
from loraft.studies import FewshotStudy

PAGE = "report.html"
ENVIRONMENT = "environment.json"
MISTAKES = 20  # the most confident ones are shown
SENTENCE = "thầy giảng bài rất dễ hiểu"

FIGURES = {
    "learning_curve.png": "Loss in nats and validation scores over the training steps",
    "confusion_matrix.png": "Counts and row shares of the test split: reference by predicted label",
    "reliability.png": "Accuracy over confidence on the test split, with the number of rows in each bin",
    "fewshot.png": "Test scores over the number of demonstrations, beside the baselines",
    "sweep.png": "Test scores over the swept key",
}


def write_page(folder: Path, to: Path | None = None) -> Path:
    """Writes the report of a finished run, study or data source as one HTML file and returns its path.

    Args:
        folder: the directory, as `find` gives it.
        to: the file; by default `report.html` in the folder.

    Raises:
        RunError: nothing in the folder is finished, or the file cannot be written.
    """
    path = to if to is not None else folder / PAGE
    if path.is_dir():
        raise RunError(f"--to: is a folder (got {path}); name a file, for example {path / PAGE}")
    text = pages.page(document(folder))
    try:
        write_text(path, text)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); name another file with --to") from error
    return path


def markdown(folder: Path) -> str:
    """The report's tables and notes in Markdown, for papers and READMEs."""
    return pages.markdown(document(folder))


def document(folder: Path) -> Document:
    """The report of what lies in the folder.

    Raises:
        RunError: nothing finished lies there.
    """
    for file, make in KINDS.items():
        if (folder / file).is_file():
            return make(folder)
    again = "the same command goes on with the sweep, or name one of its runs"
    if not (folder / "sweep.yaml").is_file():
        again = "the same command with --resume finishes what was interrupted"
    raise RunError(f"{folder}: nothing finished to report (got none of {', '.join(KINDS)}); {again}")


def find(name_or_path: str | None, output: Path) -> Path:
    """The folder of that name inside `output`, or at that path; without a name the one that finished last.

    Raises:
        RunError: there is none; the message names the nearest.
    """
    for path in () if name_or_path is None else (output / name_or_path, Path(name_or_path).expanduser()):
        if path.is_dir():
            return path
    finished = {path.name: path for path in sorted(output.glob("[!.]*")) if _finished_at(path) is not None}
    if name_or_path is None and finished:
        return max(finished.values(), key=lambda path: _finished_at(path) or 0)
    close = difflib.get_close_matches(str(name_or_path), finished, n=1)
    there = f"there are {', '.join(finished)}" if finished else "loraft train, sweep, fewshot and data make some"
    hint = f"did you mean {close[0]}?" if close else there
    got = "nothing to report" if name_or_path is None else f"no such run or study (got {name_or_path!r})"
    raise RunError(f"{output}: {got}; {hint}")


def of_run(folder: Path) -> Document:
    """A finished run: results, plots, mistakes, how to use it, and what it was made from."""
    run = Run(folder)
    result, config = run.read_metrics(), load_resolved(run.config_path)
    after, before = result["after"], result.get("before")
    if not run.plots.is_dir():  # a trial of a sweep
        plots.of_run(run, after, result["labels"])
    low, high = after["intervals"]["macro_f1"]
    headline = (
        f"Macro F1 {after['macro_f1']:.3f} ({after['confidence']:.0%} interval {low:.3f} to {high:.3f}) and accuracy"
        f" {after['accuracy']:.3f} on {after['n']:,} test rows."
    )
    if before is not None:
        headline += f" The backbone without the adapter: {before['macro_f1']:.3f} and {before['accuracy']:.3f}."
    return Document(
        title=f"Run {run.name}",
        subtitle=_made_from(folder, "config.yaml", f"rank {config.lora.r}, {config.lora.alpha_policy}"),
        sections=[
            ("Results", [headline, tables.before_after(before, after)]),
            ("Labels", [tables.per_class(after), tables.confusion(after), *_figures(run, "confusion_matrix.png")]),
            ("Calibration", _calibration(run, after)),
            ("Most confident mistakes", _mistakes(run, after)),
            ("Training", [*_figures(run, "learning_curve.png"), _pairs(result["train"])]),
            ("How to use the adapter", _usage(run, config)),
            ("Data", [_sources(result["data"])]),
            ("Config", _config_and_environment(folder, "config.yaml")),
        ],
    )


def of_fewshot(folder: Path) -> Document:
    """A finished few-shot study."""
    study = FewshotStudy(folder)
    result = study.read_metrics()
    results: list[Part] = [result["verdict"], studytables.fewshot(result), *studytables.fewshot_notes(result)]
    nested = "A draw holds the same demonstrations in the same order for every number of shots, as far as it goes."
    return Document(
        title=f"Few-shot study {study.name}",
        subtitle=_made_from(folder, "fewshot.yaml", f"{result['selection']} demonstrations, decode {result['decode']}"),
        sections=[
            ("Results", [*results, *_images(study.plots)]),
            ("Draws", [nested, studytables.fewshot_draws(result)]),
            ("Data", [_sources(result["data"])]),
            ("Config", _config_and_environment(folder, "fewshot.yaml")),
        ],
    )


def of_sweep(folder: Path) -> Document:
    """A finished sweep."""
    result = _read(folder / "sweep.json")
    failed = [trial for trial in result["trials"] if trial["status"] == "failed"]
    errors = [Code(f"{trial['name']}\n{trial['error']}") for trial in failed]
    best = result["best"]
    usage: list[Part] = []
    if best is not None:
        path = shlex.quote(str(folder / best["name"]))  # the runs may have been moved since
        usage = [Code(f"loraft predict --run {path} '{SENTENCE}'\nloraft report {path}")]
    keys = ", ".join(map(sweeptables.key_word, result["keys"]))
    results: list[Part] = [*sweeptables.sweep_tables(result), *sweeptables.sweep_notes(result)]
    return Document(
        title=f"Sweep {folder.name}",
        subtitle=_made_from(folder, "sweep.yaml", f"{len(result['trials'])} trials over {keys}"),
        sections=[
            ("Results", [*results, *_images(folder / "plots")]),
            ("Failed trials", errors),
            ("How to use the best trial", usage),
            ("Config", _config_and_environment(folder, "sweep.yaml")),
        ],
    )


def of_data(folder: Path) -> Document:
    """A data source that `loraft data` looked at."""
    data = _read(folder / "data.json")
    others: list[Part] = ["One split: nothing can leak."]
    if data["leaks"]:
        others = [studytables.leaks(data), studytables.near_legend(data)]
    others += [studytables.near_copies(data)] if any(pair["examples"] for pair in data["leaks"]) else []
    others.append(studytables.conflict_total(data))
    others += [studytables.conflicts(data)] if data["conflicts"]["examples"] else []
    return Document(
        title=f"Data {data['source']}",
        subtitle=f"{data['rows']:,} rows, task {data['task']}, labels {', '.join(data['labels'])}",
        sections=[
            ("Rows", [studytables.shares(data), studytables.splits(data), *studytables.data_notes(data)]),
            ("Lengths", [studytables.lengths(data), *_images(folder / "plots"), studytables.longest(data)]),
            ("Leaks and conflicts", others),
        ],
    )


# The file whose existence says that a thing is finished, and the report of it.
KINDS: dict[str, Callable[[Path], Document]] = {
    "metrics.json": of_run,
    "sweep.json": of_sweep,
    "fewshot.json": of_fewshot,
    "data.json": of_data,
}


def _finished_at(path: Path) -> int | None:
    """When the run or study in a folder finished, in nanoseconds; None if nothing there is finished."""
    return next((file.stat().st_mtime_ns for name in KINDS if (file := path / name).is_file()), None)


def _made_from(folder: Path, config_file: str, settings: str) -> str:
    config = load_resolved(folder / config_file)
    quantised = f" ({config.quant.method})" if config.quant.method != "none" else ""
    made = _read(folder / ENVIRONMENT) if (folder / ENVIRONMENT).is_file() else {}
    version = (made.get("packages") or {}).get("loraft")
    parts = [f"backbone {config.model.name}{quantised}", f"data {config.data.source}", f"task {config.prompt.task}"]
    parts += [settings, f"seed {config.seed}", f"loraft {version}" if version else "", str(made.get("time") or "")]
    return " · ".join(filter(None, parts))


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _config_and_environment(folder: Path, config_file: str) -> list[Part]:
    files = {config_file: f"{config_file}, resolved", ENVIRONMENT: "Versions and machine"}
    return [
        Code((folder / file).read_text(encoding="utf-8"), summary)
        for file, summary in files.items()
        if (folder / file).is_file()
    ]


def _figures(run: Run, *names: str) -> list[Part]:
    return [Image(run.plots / name, FIGURES[name]) for name in names if (run.plots / name).is_file()]


def _images(folder: Path) -> list[Part]:
    return [
        Image(path, FIGURES.get(path.name, path.stem.replace("_", " ").capitalize()))
        for path in sorted(folder.glob("*.png"))
    ]


def _calibration(run: Run, after: Mapping[str, Any]) -> list[Part]:
    if after["expected_calibration_error"] is None:
        return ["Answers were generated, so there are no probabilities."]
    numbers = (
        f"Expected calibration error {after['expected_calibration_error']:.3f} (15 bins), log loss"
        f" {after['log_loss']:.3f} nats."
    )
    return [numbers, *_figures(run, "reliability.png")]


def _mistakes(run: Run, after: Mapping[str, Any]) -> list[Part]:
    wrong = [row for row in _predictions(run) if row["predicted"] != row["label"]]
    if not wrong:
        return ["None: every test row is right."]
    total = f"{len(wrong):,} of {after['n']:,} test rows are wrong"
    if "probs" not in wrong[0]:
        shown = wrong[:MISTAKES]
        answers = [(row["text"], row["label"], str(row.get("answer")), str(row["row"])) for row in shown]
        heads = ("sentence", "reference", "answer", "row")
        return [f"{total}; the first of them:", studytables.listing(heads, answers)]
    shown = sorted(wrong, key=lambda row: -row["probs"][row["predicted"]])[:MISTAKES]
    rows = [
        (row["text"], row["label"], row["predicted"], f"{row['probs'][row['predicted']]:.3f}", str(row["row"]))
        for row in shown
    ]
    made = studytables.listing(("sentence", "reference", "predicted", "probability", "row"), rows)
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


def _sources(data: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        (
            name,
            f"{split['rows']:,}",
            str(split["source"]),
            ", ".join(f"{n:,} {what}" for what, n in split["notes"].items()),
        )
        for name, split in data.items()
    ]
    return studytables.listing(("split", "rows", "source", "notes"), rows)


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
    return studytables.listing(("training", "value"), rows)
