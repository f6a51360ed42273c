"""The commands `fewshot`, `data` and `report`; the work is done by plain functions, imported late."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loraft.errors import ConfigError
from loraft.options import (
    ConfigFile,
    Data,
    Json,
    Model,
    Output,
    Preset,
    Quant,
    Seed,
    Sets,
    Task,
    Verbose,
    dotted,
)
from loraft.progressions import expand_integers
from loraft.talking import begin, say

if TYPE_CHECKING:
    from loraft.config import Config

# What may differ from the run whose adapter joins the table; the rest is fixed by its training.
FREE = ("data.", "eval.", "fewshot.", "model.device", "model.cache_dir", "name", "output", "prompt.max_length", "seed")


def fewshot(
    shots: Annotated[
        str | None, typer.Option(help="Demonstrations in the prompt, as in 1,2,4,8 or 1,2,...,8; 0 is always measured.")
    ] = None,
    repeats: Annotated[str | None, typer.Option(metavar="INTEGER", help="Draws of each number of shots.")] = None,
    selection: Annotated[str | None, typer.Option(help="random, balanced or nearest.")] = None,
    decode: Annotated[str | None, typer.Option(help="score (exact) or generate (the tutorial's way).")] = None,
    run: Annotated[str | None, typer.Option("--run", help="A run whose adapter joins the table.")] = None,
    adapter_shots: Annotated[
        bool, typer.Option("--adapter-shots", help="Put demonstrations before the adapter too.")
    ] = False,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    quant: Quant = None,
    output: Output = None,
    seed: Seed = None,
    force: Annotated[bool, typer.Option("--force", help="Delete an earlier study of the same name.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a study, also with more shots or draws than it was begun with.")
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Judge the backbone with examples in the prompt, several draws, beside baselines and a tuned adapter.

    Without --run nothing has to be trained: the table tells what prompting reaches, with its spread over draws.
    """
    from loraft import runs, studytables, tables
    from loraft.resolving import resolve

    if force and resume:
        raise ConfigError("--force and --resume: one deletes what the other continues; give one of them")
    if adapter_shots and run is None:
        raise ConfigError("--adapter-shots: no adapter to put them before; give --run")
    numbers = None if shots is None else expand_integers(shots, "--shots")
    own = {"fewshot.shots": numbers, "fewshot.repeats": repeats, "fewshot.selection": selection}
    flags: dict[str, Any] = {**dotted(data=data, output=output, seed=seed, decode=decode), **own}
    path = None
    if run is None:
        flags |= dotted(model=model, task=task, quant=quant)
        resolved = resolve(preset=preset, config_file=config, overrides=sets or (), flags=flags)
    else:
        fixed = {"--preset": preset, "--config": config, "--model": model, "--task": task, "--quant": quant}
        taken = [flag for flag, value in fixed.items() if value is not None]
        path, resolved = _beside(run, output, sets or [], flags, taken)
    begin(resolved, verbose, adapter=path)

    from loraft import fewshots

    study = fewshots.fewshot(
        resolved, run=path, adapter_shots=adapter_shots, force=force, resume=resume, quiet=json, tell=say
    )
    if json:
        print(runs.to_json(study))
    else:
        tables.show([studytables.fewshot(study)])
        print("\n".join([*studytables.fewshot_notes(study), "", study["verdict"]]))
    say(f"study: {study['path']}")
    say(f"next: loraft report {shlex.quote(study['path'])}")


def data(
    by: Annotated[str | None, typer.Option(help="Second column; else another task's, if the rows have it.")] = None,
    tokens: Annotated[bool, typer.Option(help="Measure lengths with the backbone's tokenizer.")] = True,
    near: Annotated[bool, typer.Option(help="Look for near-duplicates between splits.")] = True,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """Look at a data source: splits, label shares, lengths, duplicates, leaks, conflicting labels."""
    from loraft import runs, studytables, tables
    from loraft.resolving import resolve

    flags = dotted(model=model, data=data, task=task, output=output)
    resolved = resolve(preset=preset, config_file=config, overrides=sets or (), flags=flags)
    begin(resolved, verbose=False)

    from loraft import datastats

    found = datastats.describe(resolved, by=by, tokens=tokens, near=near)
    if json:
        print(runs.to_json(found))
    else:
        tables.show(studytables.data_tables(found))
        legend = [studytables.near_legend(found)] if found["leaks"] else []
        print("\n".join([*legend, studytables.conflict_total(found), *studytables.data_notes(found)]))
    say(f"figures and numbers: {found['path']}")
    say(f"next: loraft report {shlex.quote(found['path'])}")


def report(
    what: Annotated[
        str | None, typer.Argument(metavar="[RUN|SWEEP|FEWSHOT|DATA]", help="Name or path; else the newest.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="The page; else report.html inside.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print tables and notes in Markdown instead.")] = False,
    output: Output = None,
) -> None:
    """Write one self-contained HTML page about a run, a sweep or a study, and print its path."""
    from loraft import reports

    if markdown and to is not None:
        raise ConfigError("--markdown and --to: Markdown goes to stdout; leave --to out and redirect it")
    folder = reports.find(what, Path(output or "runs"))
    if markdown:
        print(reports.markdown(folder), end="")
    else:
        print(reports.write_page(folder, to))


def _beside(
    name: str, output: str | None, sets: list[str], flags: Mapping[str, Any], fixed: list[str]
) -> "tuple[Path, Config]":
    """The run that joins a study, and the study's config: the run's own but for what its training does not fix."""
    from loraft import runs
    from loraft.resolving import load_resolved, resolve

    fixed += [f"--set {item}" for item in sets if not item.strip().startswith(FREE)]
    if fixed:
        raise ConfigError(f"{', '.join(fixed)}: fixed by the run's training; leave it out, or leave --run out")
    run = runs.find_run(name, Path(output or "runs"))
    trained = load_resolved(run.config_path)
    resolved = resolve(config_file=run.config_path, overrides=sets, flags=flags)
    # The run's own name would be the study's folder.
    own_name = None if resolved.name == trained.name else resolved.name
    return run.path, resolved.model_copy(update={"name": own_name})
