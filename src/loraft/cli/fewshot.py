"""`loraft fewshot`: parses the flags and prints the table; `studies.fewshot.study` does the work."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loraft.cli.console import print_json, results_follow, say, start_command
from loraft.cli.finished_run import CHANGEABLE
from loraft.cli.options import (
    ConfigFlags,
    Decode,
    Json,
    Verbose,
    complete_run,
    in_its_folder,
    of_key,
    with_config_flags,
)
from loraft.errors import ConfigError, RunError
from loraft.studies.sweep.progression import expand_integers

if TYPE_CHECKING:
    from loraft.config.schema import Config

# With --run, the keys that may differ from the run's config; the others are fixed by its training.
FREE = (*CHANGEABLE, "fewshot.", "name", "prompt.max_length")


@with_config_flags(without=("rank",))
def fewshot(
    given: ConfigFlags,
    shots: Annotated[
        str | None,
        of_key(
            "fewshot.shots",
            metavar="1,2,4,8",
            help="Demonstrations in the prompt, as in 1,2,4,8 or 1,2,...,8; 0 is always measured.",
        ),
    ] = None,
    repeats: Annotated[str | None, of_key("fewshot.repeats", help="Draws for each number of shots.")] = None,
    selection: Annotated[
        str | None, of_key("fewshot.selection", help="How demonstrations are chosen; nearest: most similar to the row.")
    ] = None,
    decode: Decode = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="Finished run whose adapter is measured too.",
            show_default="none",
            autocompletion=complete_run,
        ),
    ] = None,
    adapter_shots: Annotated[
        bool, typer.Option("--adapter-shots", help="Measure the adapter with demonstrations too.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete an earlier study of the same name.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a study; shots and draws may be added.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure the backbone with examples in the prompt.

    Beside baselines and, with --run, a trained adapter; without it no training is needed. Each number of examples
    (shots) is measured with several draws.

    Examples:
        loraft fewshot --shots 1,2,4 --repeats 3
        loraft fewshot --selection nearest --decode generate
    """
    from loraft.runs.folders import refuse_force_and_resume
    from loraft.runs.resume import refuse_cut_off
    from loraft.runs.study_folders import FewshotFolder

    refuse_force_and_resume(force=force, resume=resume)
    if adapter_shots and run is None:
        raise ConfigError("--adapter-shots: no adapter to measure (got no --run); give --run NAME")
    flags: dict[str, Any] = {
        **given.keys(decode=decode),
        "fewshot.shots": None if shots is None else expand_integers(shots, "--shots"),
        "fewshot.repeats": repeats,
        "fewshot.selection": selection,
    }
    path = None
    if run is None:
        resolved = given.resolve(flags=flags)
        refuse_cut_off(given.config, FewshotFolder)
        if force or resume:
            resolved = in_its_folder(resolved, given.resolve, flags, given.config, FewshotFolder, _usual)
    else:
        taken = given.given("preset", "config", "model", "task", "quant")
        path, resolved = _with_run(run, given.output, given.sets or [], flags, taken)
    start_command(resolved, verbose, adapter=path)

    from loraft.display import table
    from loraft.studies.fewshot import study as fewshot_study
    from loraft.studies.fewshot import tables

    study = fewshot_study.fewshot(resolved, run=path, adapter_shots=adapter_shots, force=force, resume=resume, tell=say)
    results_follow()
    if json:
        print_json(study)
    else:
        notes = tables.fewshot_notes(study, table.show([tables.fewshot(study)]))
        table.show_lines([*notes, "", study.verdict])
    say(f"study: {study.path}")
    say(f"next: loraft report {shlex.quote(study.path)}")


def _usual(saved: "Config") -> Path:
    from loraft.studies.fewshot.study import folder_of

    return folder_of(saved, None).path


def _with_run(
    name: str, output: str | None, sets: list[str], flags: Mapping[str, Any], taken: list[str]
) -> "tuple[Path, Config]":
    """The directory of the run, and the study's config: that of the run with the changes that `FREE` allows.

    Args:
        name: name or path of the run.
        output: the folder that holds the runs, None for the default.
        sets: values of `--set`.
        flags: config keys and values from other flags.
        taken: flags that were given and are not allowed with `--run`.

    Raises:
        ConfigError: something is given that the run's training fixes.
        RunError: there is no such run.
    """
    from loraft.config.resolve import resolve
    from loraft.runs.bundle import config_of
    from loraft.runs.run import Bundle, find_run

    fixed = [*taken, *(f"--set {item}" for item in sets if not item.strip().startswith(FREE))]
    if fixed:
        raise ConfigError(f"{', '.join(fixed)}: fixed by the run's training; leave it out, or leave --run out")
    run = find_run(name, Path(output or "runs"))
    if isinstance(run, Bundle):
        raise RunError(
            f"{run.path}: a study compares the adapter of a run with its backbone (got a bundle); name the run, or give"
            " merged weights as --model"
        )
    trained = config_of(run)
    resolved = resolve(base=trained, overrides=sets, flags=flags)
    # The name in the run's config is that of the run, not of the study.
    own_name = None if resolved.name == trained.name else resolved.name
    return run.path, resolved.model_copy(update={"name": own_name})
