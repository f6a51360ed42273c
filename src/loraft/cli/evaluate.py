"""The command line. Each command checks and prints; the work is a plain function in `loraft.api`, imported late.

Help and completion need names and words only, so config, runs and tables are imported where a command begins.

Results go to stdout, everything else to stderr. Exit codes: 0, 1 for what went wrong, 2 for usage and config, 130
for an interrupt; `LORAFT_DEBUG=1` shows the traceback.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loraft.cli.console import begin
from loraft.cli.options import (
    ConfigFile,
    Data,
    Json,
    Model,
    Output,
    Preset,
    Quant,
    RunName,
    Seed,
    Sets,
    Task,
    Verbose,
    dotted,
)
from loraft.errors import ConfigError

if TYPE_CHECKING:
    from loraft.config.schema import Config


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
    from loraft.config.resolve import resolve
    from loraft.display import table
    from loraft.evaluation import tables
    from loraft.runs.files import to_json

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
        path, resolved = finished_run(run, output, sets or (), flags)
    begin(resolved, verbose, adapter=path, source=split if Path(split).is_file() else None)

    from loraft.evaluation import evaluate as evaluation

    result = evaluation.evaluate(config=resolved, run=path, split=split, zero_shot=zero_shot)
    if json:
        print(to_json({key: value for key, value in result.items() if key != "rows"}))
    else:
        table.show([tables.summary(result), tables.per_class(result), tables.confusion(result)])


def finished_run(
    name: str | None, output: str | None, sets: Sequence[str], flags: dict[str, str | None]
) -> "tuple[Path, Config]":
    """The run that is meant, and its config with what may be changed about a finished run."""
    from loraft.config.resolve import load_resolved, resolve
    from loraft.runs.run import find_run, newest_finished

    changeable = ("data.", "eval.", "model.device", "model.cache_dir", "seed", "output")
    _refuse([f"--set {item}" for item in sets if not item.strip().startswith(changeable)])
    folder = Path(output or "runs")
    run = newest_finished(folder) if name is None else find_run(name, folder)
    if not sets and not any(flags.values()):
        return run.path, load_resolved(run.config_path)
    return run.path, resolve(config_file=run.config_path, overrides=sets, flags=flags)


def _refuse(fixed: Sequence[str]) -> None:
    if fixed:
        raise ConfigError(
            f"{', '.join(fixed)}: fixed by the run, which was trained with its own; leave it out, or judge a bare "
            "backbone with loraft eval --zero-shot"
        )
