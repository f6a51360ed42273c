"""The command line. Each command checks and prints; the work is a plain function in `loraft.api`, imported late.

Help and completion need names and words only, so config, runs and tables are imported where a command begins.

Results go to stdout, everything else to stderr. Exit codes: 0, 1 for what went wrong, 2 for usage and config, 130
for an interrupt; `LORAFT_DEBUG=1` shows the traceback.
"""

import math
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loraft import cli_reports, cli_studies, processes
from loraft.bundled import bundled_backbones, bundled_data
from loraft.errors import ConfigError, LoraftError, RunError
from loraft.options import (
    ConfigFile,
    Data,
    Json,
    Model,
    Output,
    Preset,
    Quant,
    Rank,
    RunName,
    Seed,
    Sets,
    Task,
    Verbose,
    dotted,
)
from loraft.reading import BadRow, Example, Format, read_inputs, sentence
from loraft.talking import begin, say

if TYPE_CHECKING:
    from loraft.config import Config

WAIT = 0.1  # seconds that a line on stdin waits for others: `tail -f` is answered, and a full pipe fills groups

app = typer.Typer(
    name="loraft",
    help="Fine-tune a causal language model into a text classifier with LoRA or QLoRA, measure it, and use it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def train(
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    quant: Quant = None,
    rank: Rank = None,
    output: Output = None,
    seed: Seed = None,
    force: Annotated[bool, typer.Option("--force", help="Delete an earlier run of the same name.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Fine-tune an adapter; print the test split's numbers before and after."""
    from loraft import runs, tables
    from loraft.resolving import resolve

    if force and resume:
        raise ConfigError("--force and --resume: one deletes what the other continues; give one of them")
    flags = dotted(model=model, data=data, task=task, quant=quant, rank=rank, output=output, seed=seed)
    resolved = resolve(preset=preset, config_file=config, overrides=sets or (), flags=flags)
    run = runs.run_of(resolved)
    if resume and not run.config_path.is_file():
        raise RunError(
            f"--resume: no run was begun in {run.path}; leave --resume out, or name one with --config RUN/config.yaml"
        )
    if processes.is_first():
        run.check(force=force, resume=resume)
    begin(resolved, verbose, several=True)

    from loraft import api

    result = api.train(resolved, force=force, resume=resume)
    if json:
        print(runs.to_json(result))
    else:
        tables.show([tables.before_after(result["before"], result["after"])])
    say(f"run: {result['run']}")
    say(f"next: loraft predict --run {shlex.quote(str(result['run']))} 'thầy giảng bài rất dễ hiểu'")


@app.command("eval")
def evaluate(
    run: RunName = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="The bare backbone instead of a run.")] = False,
    split: Annotated[str, typer.Option(help="train, validation, test, or a labelled file.")] = "test",
    decode: Annotated[str | None, typer.Option(help="score (exact) or generate (free text, parsed).")] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    quant: Quant = None,
    output: Output = None,
    seed: Seed = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Judge a finished run, or with --zero-shot the bare backbone, on labelled rows."""
    from loraft import runs, tables
    from loraft.resolving import resolve

    flags = dotted(model=model, data=data, task=task, quant=quant, output=output, seed=seed, decode=decode)
    if zero_shot and run is not None:
        raise ConfigError(
            "--run and --zero-shot: one judges an adapter, the other a backbone; give one of them (a run's backbone: "
            "--zero-shot --config RUN/config.yaml)"
        )
    if zero_shot:
        path, resolved = None, resolve(preset=preset, config_file=config, overrides=sets or (), flags=flags)
    else:
        fixed = {"--preset": preset, "--config": config, "--model": model, "--task": task, "--quant": quant}
        _refuse([flag for flag, value in fixed.items() if value is not None])
        path, resolved = _finished_run(run, output, sets or (), flags)
    begin(resolved, verbose, adapter=path, source=split if Path(split).is_file() else None)

    from loraft import api

    result = api.evaluate(config=resolved, run=path, split=split, zero_shot=zero_shot)
    if json:
        print(runs.to_json({key: value for key, value in result.items() if key != "rows"}))
    else:
        tables.show([tables.summary(result), tables.per_class(result), tables.confusion(result)])


@app.command()
def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Sentences; - or none reads stdin.")] = None,
    run: RunName = None,
    file: Annotated[Path | None, typer.Option(help="Lines, JSONL, CSV, TSV or Parquet.")] = None,
    format: Annotated[str, typer.Option(help="auto, lines, jsonl, csv or tsv.")] = "auto",
    text_column: Annotated[str | None, typer.Option(help="Column of the sentence; else as in training.")] = None,
    min_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave a row undecided below this probability.")
    ] = None,
    sets: Sets = None,
    output: Output = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a row, with probabilities.")] = False,
    verbose: Verbose = False,
) -> None:
    """Print one label a line, in the order of the rows.

    A row that is undecided or unreadable is an empty line. Unreadable rows are reported on stderr, the others go on,
    and the exit code is 1 at the end.
    """
    from loraft import runs

    if min_confidence is not None and math.isnan(min_confidence):  # passes every comparison with a bound
        raise ConfigError("--min-confidence: is no number (got nan); allowed is 0 to 1")
    path, resolved = _finished_run(run, output, sets or (), {})
    rows, source = _inputs(texts or [], file, format, text_column or resolved.data.text_column)
    begin(resolved, verbose, adapter=path, source=source)

    from loraft import api

    bad = 0
    wait = WAIT if source == "stdin" else None
    for row in api.predict(rows, run=path, min_confidence=min_confidence, config=resolved, wait=wait):
        if row.error is not None:
            bad += 1
            say(f"{source} row {row.row}: {row.error}")
        if json:
            print(runs.to_json(_as_json(row), indent=None), flush=True)
        else:
            print(row.label or "", flush=True)
    if bad:
        say(f"{bad} {'row' if bad == 1 else 'rows'} could not be read")
        raise typer.Exit(1)


for study in (cli_reports.fewshot, cli_studies.sweep, cli_studies.compare, cli_reports.data, cli_reports.report):
    app.command()(study)


@app.command("models")
def list_bundled(json: Json = False) -> None:
    """List what ships with loraft: backbones and data with their licences, tasks, presets."""
    from loraft import runs, tables
    from loraft.resolving import presets, task_names

    folders = [("backbone", *item) for item in bundled_backbones().items()]
    folders += [("data", *item) for item in bundled_data().items()]
    rows = [{"name": name, "kind": kind, "licence": _licence(path), "path": str(path)} for kind, name, path in folders]
    rows += [{"name": name, "kind": "task", "licence": "Apache-2.0", "path": ""} for name in task_names()]
    rows += [{"name": n, "kind": "preset", "licence": "Apache-2.0", "path": str(p)} for n, p in presets().items()]
    if json:
        print(runs.to_json(rows))
    else:
        tables.show([tables.listing(["name", "kind", "licence", "path"], [list(row.values()) for row in rows])])


@app.command("config")
def show_config(
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    quant: Quant = None,
    rank: Rank = None,
    output: Output = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Print the resolved config, ready to be edited and given to --config."""
    from loraft import runs
    from loraft.resolving import dump_yaml, resolve

    flags = dotted(model=model, data=data, task=task, quant=quant, rank=rank, output=output, seed=seed)
    resolved = resolve(preset=preset, config_file=config, overrides=sets or (), flags=flags)
    print(runs.to_json(resolved.model_dump()) if json else dump_yaml(resolved), end="\n" if json else "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits; the one place where errors become messages and exit codes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in notebooks
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        app(arguments, prog_name="loraft")
    except LoraftError as error:
        if os.environ.get("LORAFT_DEBUG") == "1":
            raise
        separator = "\n  " if "\n" in str(error) else " "
        # not `say`: a process that is not the first must tell its own mistake as well
        print(f"error:{separator}" + str(error).replace("\n", "\n  "), file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


def _finished_run(
    name: str | None, output: str | None, sets: Sequence[str], flags: dict[str, str | None]
) -> "tuple[Path, Config]":
    """The run that is meant, and its config with what may be changed about a finished run."""
    from loraft import runs
    from loraft.resolving import load_resolved, resolve

    changeable = ("data.", "eval.", "model.device", "model.cache_dir", "seed", "output")
    _refuse([f"--set {item}" for item in sets if not item.strip().startswith(changeable)])
    folder = Path(output or "runs")
    run = runs.newest_finished(folder) if name is None else runs.find_run(name, folder)
    if not sets and not any(flags.values()):
        return run.path, load_resolved(run.config_path)
    return run.path, resolve(config_file=run.config_path, overrides=sets, flags=flags)


def _refuse(fixed: Sequence[str]) -> None:
    if fixed:
        raise ConfigError(
            f"{', '.join(fixed)}: fixed by the run, which was trained with its own; leave it out, or judge a bare "
            "backbone with loraft eval --zero-shot"
        )


def _inputs(
    texts: list[str], file: Path | None, format: str, text_column: str
) -> tuple[Iterable[Example | BadRow], str]:
    formats: tuple[Format, ...] = ("auto", "lines", "jsonl", "csv", "tsv")
    known = next((one for one in formats if one == format), None)
    if known is None:
        raise ConfigError(f"--format: unknown (got {format!r}); allowed: {', '.join(formats)}")
    if texts and file is not None:
        raise ConfigError(f"--file and sentences: two sources (got {file} and {texts[0]!r}); give one of them")
    if "-" in texts and len(texts) > 1:
        raise ConfigError("-: stdin and sentences are two sources (got both); give one of them")
    if texts and texts != ["-"]:
        return _arguments(texts), f"{len(texts)} {'sentence' if len(texts) == 1 else 'sentences'}"
    if file is not None:
        rows = read_inputs(file, known, text_column)
        # The first row is read now: a missing file or column is told before a backbone is loaded.
        return chain(list(islice(rows, 1)), rows), str(file)
    if sys.stdin is None or (not texts and sys.stdin.isatty()):
        raise ConfigError("predict: nothing to label; loraft predict 'câu phản hồi', --file FILE, or lines on stdin")
    return read_inputs(sys.stdin, known, text_column), "stdin"


def _arguments(texts: Sequence[str]) -> Iterator[Example | BadRow]:
    for row, given in enumerate(texts, start=1):
        text, reason = sentence({"text": given}, "text")
        yield Example(text, None, row) if text else BadRow(row, reason or "no text")


def _as_json(row: Any) -> dict[str, Any]:
    if row.error is not None:
        return {"row": row.row, "label": None, "error": row.error}
    extra = {"extra": row.extra} if row.extra else {}
    confidence = max(row.probs.values())
    return {"row": row.row, "text": row.text, "label": row.label, "confidence": confidence, "probs": row.probs, **extra}


def _licence(folder: Path) -> str:
    """What the card's front matter says, as the hub reads it."""
    import yaml

    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    front = text.split("---")[1] if text.startswith("---") else ""
    return str((yaml.safe_load(front) or {}).get("license", "see its folder"))
