"""The command `loraft train`."""

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loraft import distributed
from loraft.cli.console import print_json, results_follow, say, start_command
from loraft.cli.finished_run import config_to_go_on, refuse_beside_from
from loraft.cli.options import ConfigFlags, Json, Verbose, complete_run, in_its_folder, with_config_flags
from loraft.errors import LoraftError, RunError

if TYPE_CHECKING:
    from loraft.config.schema import Config
    from loraft.training.results import RunResult

FEW_ROWS = 500  # training rows below which scores of all of them say more than those of a small test split


@with_config_flags()
def train(
    given: ConfigFlags,
    from_run: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Go on from its adapter, with its config.",
            show_default="none",
            autocompletion=complete_run,
        ),
    ] = None,
    add: Annotated[
        list[str] | None, typer.Option("--add", metavar="FILE", help="Further training rows; repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Delete an earlier run of the same name.")] = False,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=1000,
            metavar="K",
            help="Out-of-fold scores of all training rows, by K adapters.",
            show_default="off",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Fine-tune an adapter, and judge it before and after.

    Prints the scores of the test split. With --folds, which suits fewer than 500 rows, the same command goes on after
    an interruption. With --from, other flags change the run's config; --add keeps its rows, --data takes others in
    their place.

    Examples:
        loraft train --quant nf4 --rank 16
        loraft train --task topic --set train.num_train_epochs=1
    """
    from loraft.config.resolve import resolve
    from loraft.config.trackers import refuse_missing_trackers
    from loraft.runs.folders import refuse_force_and_resume
    from loraft.runs.resume import refuse_cut_off
    from loraft.runs.run import Run, run_of
    from loraft.runs.study_folders import FoldsFolder

    flags, config, again = given.keys(), given.config, given.resolve
    if from_run is not None:
        refuse_beside_from({"--preset": given.preset, "--config": config, "--folds": folds})
        again = partial(resolve, base=config_to_go_on(from_run, given.output), overrides=given.sets or ())
    resolved = again(flags=flags)
    if add:
        flags["data.extra_train"] = [*resolved.data.extra_train, *add]
        resolved = again(flags=flags)
    refuse_missing_trackers(resolved)
    if folds is not None:
        refuse_force_and_resume(force=force, resume=resume)

        def usual(saved: "Config") -> Path:
            path = run_of(saved).path
            return path if saved.name is not None else path.with_name(f"{path.name}-{folds}folds")

        resolved = in_its_folder(resolved, again, flags, config, FoldsFolder, usual)
        _train_folds(resolved, folds, force=force, resume=resume, json=json, verbose=verbose)
        return
    refuse_cut_off(config, Run)
    if force or resume or (config is not None and Run(config.parent).finished):
        resolved = in_its_folder(resolved, again, flags, config, Run, lambda saved: run_of(saved).path)
    run = run_of(resolved)
    if run.finished and not force:
        from loraft.training.earlier_result import earlier_result

        start_command(resolved, verbose, several=True)
        if (earlier := earlier_result(resolved)) is not None:
            _show(earlier, resolved, json=json)
            return
    if distributed.is_main_process():
        run.check(force=force, resume=resume)
    if resume and not run.begun:
        raise RunError(
            f"--resume: no run was begun in {run.path}; leave --resume out, or name one with --config RUN/config.yaml"
        )
    if resume:  # damage is told before anything loads
        from loraft.training.results import earlier_scores

        earlier_scores(run)
    start_command(resolved, verbose, several=True)

    from loraft.data.sources import NoSplitError
    from loraft.training import pipeline

    try:
        result = pipeline.train(resolved, force=force, resume=resume)
    except NoSplitError as error:
        if from_run is not None and given.data is not None:
            error.add_note(
                f"to add these rows to those of {from_run}: --add {shlex.quote(given.data)} in place of --data"
            )
        raise
    except KeyboardInterrupt as stop:
        if run.config_path.is_file():  # else nothing was begun
            how = ", behind a launcher, goes on" if distributed.is_distributed() else " goes on from there"
            stop.add_note(f"{run.how_to_resume}{how}")
        raise
    _show(result, resolved, json=json)


def _show(result: "RunResult", config: "Config", *, json: bool) -> None:
    """Prints the result of a training, and on stderr where it lies and what to do next."""
    from loraft.display import table
    from loraft.evaluation import tables
    from loraft.evaluation.choosing import Metric
    from loraft.runs.predictions import command_with_a_row
    from loraft.runs.run import Run

    results_follow()
    if json:
        print_json(result)
    else:
        metric = Metric.of(config)
        shown = tables.before_after(result.before, result.after, metric, result.before_is)
        table.show([shown, *tables.baselines({"": result.baselines}, metric=metric)])
        if result.baselines is not None:
            notes = tables.baselines_notes({"": result.baselines}, metric=metric)
            table.show_lines([*notes, result.baselines.verdict])
    say(f"run: {result.run}")
    say_changes(Path(result.run) / "environment.json")
    few = [s.rows for name, s in result.data.items() if name == "train" and s.rows < FEW_ROWS]
    by_folds = config.train.from_run is None and config.prompt.kind != "multilabel"
    if few and by_folds and config.data.max_train_rows is None:
        say(f"note: {few[0]} training rows are few; --folds 5 gives scores over all of them")
    say(f"next: {command_with_a_row(Run(Path(result.run)))}")


def say_changes(environment: Path) -> None:
    """Says that loraft's source differed from its commit, if a run's record of its environment says so."""
    from loraft.runs.environment import Environment
    from loraft.runs.records import read_record

    if environment.exists() and (said := read_record(environment, Environment, "train again with --force").changes):
        say(f"note: {said}")


def _train_folds(config: "Config", folds: int, *, force: bool, resume: bool, json: bool, verbose: bool) -> None:
    if distributed.is_distributed():
        got = f"--folds {folds}: trains in one process (got several, of a launcher such as torchrun)"
        raise LoraftError(f"{got}; start it without the launcher, or leave --folds out")
    start_command(config, verbose)

    from loraft.display import table
    from loraft.studies.sweep import fold_tables
    from loraft.studies.sweep.folds import folds_folder, train_folds

    folder = folds_folder(config, folds)
    if resume and not folder.begun:  # without --resume the same command goes on, too
        raise RunError(f"--resume: no training by folds was begun in {folder.path}; leave --resume out")
    try:
        result = train_folds(config, folds, force=force, tell=say)
    except KeyboardInterrupt as stop:
        stop.add_note("the same command goes on from there")
        raise
    results_follow()
    if json:
        print_json(result)
    else:
        table.show(fold_tables.folds_tables(result))
        table.show_lines(fold_tables.folds_notes(result))
    say(f"folds: {result.path}")
    say_changes(Path(result.path) / "environment.json")
    say(f"next: loraft report {shlex.quote(result.path)}, and loraft train without --folds for an adapter of all rows")
