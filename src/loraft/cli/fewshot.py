"""The commands `fewshot`, `data` and `report`; the work is done by plain functions, imported late."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loraft.cli.console import begin, say
from loraft.cli.options import ConfigFile, Data, Json, Model, Output, Preset, Quant, Seed, Sets, Task, Verbose, dotted
from loraft.errors import ConfigError
from loraft.studies.sweep.progression import expand_integers

if TYPE_CHECKING:
    from loraft.config.schema import Config


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
    from loraft.config.resolve import resolve
    from loraft.display import table
    from loraft.runs.files import to_json
    from loraft.studies.fewshot import tables

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

    from loraft.studies.fewshot import study as fewshot_study

    study = fewshot_study.fewshot(
        resolved, run=path, adapter_shots=adapter_shots, force=force, resume=resume, quiet=json, tell=say
    )
    if json:
        print(to_json(study))
    else:
        table.show([tables.fewshot(study)])
        print("\n".join([*tables.fewshot_notes(study), "", study["verdict"]]))
    say(f"study: {study['path']}")
    say(f"next: loraft report {shlex.quote(study['path'])}")


def _beside(
    name: str, output: str | None, sets: list[str], flags: Mapping[str, Any], fixed: list[str]
) -> "tuple[Path, Config]":
    """The run that joins a study, and the study's config: the run's own but for what its training does not fix."""
    from loraft.config.resolve import load_resolved, resolve
    from loraft.runs.run import find_run

    fixed += [f"--set {item}" for item in sets if not item.strip().startswith(FREE)]
    if fixed:
        raise ConfigError(f"{', '.join(fixed)}: fixed by the run's training; leave it out, or leave --run out")
    run = find_run(name, Path(output or "runs"))
    trained = load_resolved(run.config_path)
    resolved = resolve(config_file=run.config_path, overrides=sets, flags=flags)
    # The run's own name would be the study's folder.
    own_name = None if resolved.name == trained.name else resolved.name
    return run.path, resolved.model_copy(update={"name": own_name})
