"""`loraft.sweep`: runs the trials of a sweep, several in one training where that pays, and compares them.

Each trial is an ordinary run whose result depends on its own config alone. So the same sweep can be started again at
any time: finished trials are kept, interrupted ones are resumed, and only new ones are trained from the beginning.
"""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.config.yaml_io import dump_config
from loraft.data.dataset import warn_of_notes
from loraft.display.progress import shown
from loraft.errors import BackboneError, ConfigError, LoraftError, NewerFileError, RunError, first_line
from loraft.evaluation.figures import draw_run_figures
from loraft.models.adapter import count_trainable
from loraft.models.backbone import without_weights
from loraft.runs.atomic_files import write_text
from loraft.runs.environment import keep_environment
from loraft.runs.lock import locked, refuse_locked
from loraft.runs.resume import check_same_rows, of_its_version
from loraft.runs.run import Run
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep import figures, joint_pass
from loraft.studies.sweep.conclusion import conclude, damaged
from loraft.studies.sweep.grid import expand, sweep_name
from loraft.studies.sweep.local_engine import run_trials
from loraft.studies.sweep.ray_engine import on_cluster, run_on_ray
from loraft.studies.sweep.records import SweepResult
from loraft.studies.sweep.search import search
from loraft.studies.sweep.shared_backbone import SharedBackbone, Tell, key_of
from loraft.studies.sweep.trials import Trial, is_finished, run_of
from loraft.training.results import RunResult
from loraft.training.starting_point import refuse_start


def sweep(
    config: Config, *, force: bool = False, quiet: bool = False, tell: Tell = lambda message: None
) -> SweepResult:
    """Runs the trials of `config.sweep` that are not finished yet, and compares all of them.

    With `sweep.search`, Optuna proposes them: see `search.search`.

    Args:
        config: its `sweep` section lists what is swept; see `grid.expand`.
        force: run finished trials again.
        quiet: show no progress.
        tell: called with each line for the user, for example at the start and end of each trial.

    Returns:
        A record of each trial with its scores, as fractions, or its error; the settings, each with the means over its
        seeds; the best setting and its best trial, chosen on the validation split.

    Raises:
        LoraftError: a mistake in the config or data, before anything is trained. An error inside a trial is recorded,
            and the other trials go on.

    Examples:
        >>> import loraft
        >>> config = loraft.resolve(overrides=["sweep.ranks=[1, 2]", "train.max_steps=2", "data.max_train_rows=32",
        ...     "data.max_eval_rows=8", "data.max_test_rows=8", f"output={folder}"])
        >>> result = loraft.sweep(config, quiet=True)
        >>> [(trial.name, trial.status) for trial in result.trials]
        [('r1', 'finished'), ('r2', 'finished')]
    """
    if config.sweep.search:
        return search(config, force=force, quiet=quiet, tell=tell)
    folder, config, trials = trials_of(config, force=force)
    with locked(folder.path, force=force), shown(quiet=quiet):
        return _sweep(folder, config, trials, force=force, quiet=quiet, tell=tell)


def _sweep(
    folder: SweepFolder, config: Config, trials: Sequence[Trial], *, force: bool, quiet: bool, tell: Tell
) -> SweepResult:
    """As `sweep`, in a locked directory."""
    waiting, errors = (list(trials), {}) if force else unfinished_and_damaged(trials)
    shared = SharedBackbone(tell)
    check_rows(trials, waiting, shared)
    for task in folder.array_tasks_begun().values() if waiting else ():
        refuse_locked(task, force=force)
    on_ray = config.sweep.engine == "ray" and waiting  # nothing is written where there is no cluster
    with on_cluster(config.sweep, tell) if on_ray else nullcontext() as needed:
        begin(config, trials, force=force)
        if waiting and folder.slurm_script.exists():
            tell(f"{len(waiting)} trials are not finished; {folder.how_to_resume} --emit slurm lets SLURM train them")
        if waiting:  # else the results are replaced when the new ones are written
            folder.results_path.unlink(missing_ok=True)
        if finished := len(trials) - len(waiting) - len(errors):
            tell(f"{finished} of {len(trials)} trials are finished already")
        if force:
            joint_pass.clear(folder, anew=waiting)
        if needed is not None:
            errors |= run_on_ray(waiting, folder, shared, config.sweep.joint, needed, force=force)
        else:
            errors |= run_trials(waiting, folder, shared, config.sweep.joint, force=force, quiet=quiet)
        joint_pass.clear(folder)
    result = conclude(folder, config, trials, errors)
    folder.figure_path.unlink(missing_ok=True)
    if result.best is not None:
        try:
            figures.sweep_curve(result, folder.figure_path)
            best = Run(Path(result.best.run))
            draw_run_figures(best, RunResult.of(best).after, best.read_labels())
        except Exception as error:  # the results of hours of training are written also without the figure
            tell(f"the figure cannot be drawn ({type(error).__name__}: {error})")
    folder.finish(result)
    for sentence in result.warnings:
        warnings.warn(sentence, stacklevel=2)
    return result


def trials_of(config: Config, *, force: bool = False) -> tuple[SweepFolder, Config, list[Trial]]:
    """The folder of a sweep, the config with which it goes on or begins, and its trials.

    Raises:
        ConfigError: a key or a value cannot be swept.
    """
    folder = SweepFolder(Path(config.output.folder) / sweep_name(config))
    if not force:  # new trials have the validation rows of those that are there
        config = of_its_version(config, folder.config_path)
    trials = expand(config)
    for trial in trials:
        refuse_start(trial.config, "loraft sweep")
    return folder, config, trials


def check_rows(trials: Sequence[Trial], waiting: Sequence[Trial], shared: SharedBackbone) -> None:
    """Reads the rows of the trials that wait, and warns of what was found in them.

    Raises:
        DataError: rows cannot be read.
        RunError: a trial with which they will be compared was trained on other rows than its data now hold.
    """
    for trial in waiting:
        warn_of_notes(shared.splits(trial.config).values())
    for trial in trials if waiting else ():
        rows = run_of(trial).rows_path
        if trial not in waiting and rows.exists():
            hint = "put its data back as they were, or --force trains all trials again"
            check_same_rows(rows, shared.fingerprints(trial.config), hint=hint)


def begin(config: Config, trials: Sequence[Trial], *, force: bool = False) -> None:
    """Makes the sweep's folder, with its config and environment; the caller holds its lock."""
    folder = SweepFolder.create(Path(config.output.folder), sweep_name(config))
    write_text(folder.config_path, as_saved(config, trials))
    keep_environment(folder.environment_path, config, anew=force)


def count_parameters(trials: Sequence[Trial], tell: Tell) -> list[int | None]:
    """Number of weights that each trial trains, counted on backbones without weights (on torch's meta device).

    Args:
        trials: of the sweep.
        tell: called with a line for each trial that cannot be counted.

    Returns:
        One count for each trial; None where it cannot be counted.

    Raises:
        BackboneError: there is no such backbone.
    """
    bases: dict[str, PreTrainedModel | None] = {}
    counts: list[int | None] = []
    for trial in trials:
        key = key_of(trial.config, "model")
        try:
            if key not in bases:
                bases[key] = None  # stays None if loading fails: a backbone is tried once
                bases[key] = without_weights(trial.config.model)
            base = bases[key]
            counts.append(None if base is None else count_trainable(base, trial.config.lora))
        except (OSError, ValueError, LoraftError) as error:
            # Without a cause it is our own check: the name is no backbone. With one, a file or the network failed.
            if not error.__cause__ and isinstance(error, BackboneError):
                raise
            tell(f"{trial.name}: parameters cannot be counted: {first_line(error)}")
            counts.append(None)
    return counts


def unfinished_and_damaged(trials: Sequence[Trial]) -> tuple[list[Trial], dict[str, str]]:
    """The trials that have to be run, and the error messages of those whose run is damaged, by name.

    Raises:
        RunError: a run was begun with another config, or its results were written by a later version of loraft.
    """
    waiting: list[Trial] = []
    errors: dict[str, str] = {}
    for trial in trials:
        run = run_of(trial)
        try:
            finished = is_finished(trial)
        except ConfigError as error:
            errors[trial.name] = damaged(run, error)
            continue
        if not finished:
            waiting.append(trial)
            continue
        try:
            RunResult.of(run)
        except NewerFileError:
            raise
        except RunError as error:
            errors[trial.name] = damaged(run, error)
    return waiting, errors


def as_saved(config: Config, trials: Sequence[Trial]) -> str:
    """The text of sweep.yaml. Default ranks that are not swept are left out: `--config sweep.yaml` would sweep them."""
    used = "lora.r" in trials[0].settings and "lora.r" not in config.sweep.grid
    section = config.sweep if used else config.sweep.model_copy(update={"ranks": []})
    return dump_config(config.model_copy(update={"sweep": section}))
