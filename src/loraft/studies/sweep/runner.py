"""The sweep: trials one after the other in one process, over one backbone.

    runs/<sweep>/  sweep.yaml  environment.json  <trial>/  <trial>/ ...  plots/  sweep.json

Each trial is an ordinary run, a pure function of its own config, so a finished one is kept, an interrupted one goes on,
and a sweep that is asked for more ranks trains only those. `sweep.json` is written last.
"""

import gc
import shutil
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.config.yaml_io import dump_yaml
from loraft.errors import BackboneError, ConfigError, LoraftError
from loraft.evaluation.figures import draw_run_figures
from loraft.evaluation.metrics import SCORES
from loraft.models.adapter import MOVING_INITS, count_trainable
from loraft.models.backbone import without_weights
from loraft.runs.environment import environment
from loraft.runs.files import write_json, write_text
from loraft.runs.folders import Sweep
from loraft.runs.predictions import Answers, read_answers
from loraft.runs.run import Run
from loraft.studies.sweep import figures, joint_pass
from loraft.studies.sweep.grid import Trial, expand, is_finished, run_of, sweep_name
from loraft.studies.sweep.ranking import rank_settings
from loraft.studies.sweep.shared_backbone import Tell, Workbench, key_of
from loraft.training.pipeline import train

ERRORS = "errors"  # folder of the tracebacks of failed trials: a trial that failed early has no folder of its own


def sweep(
    config: Config, *, force: bool = False, quiet: bool = False, tell: Tell = lambda message: None
) -> dict[str, Any]:
    """Runs the trials of `config.sweep`, those that are not finished yet, and compares all of them.

    Args:
        config: its `sweep` section says which trials; see `sweeping.expand`.
        force: run finished trials again.
        quiet: draw no progress bars.
        tell: takes a line for each trial.

    Returns:
        `trials`, one record each with `status` finished or failed, and its scores or its error; `settings`,
        `best_setting` and `best` as `standings.rank_settings` gives them; what was swept over which backbone, data and
        task.

    Raises:
        LoraftError: a mistake in the config or data, before anything is trained. A trial that fails raises nothing.
    """
    trials = expand(config)
    waiting: list[Trial] = []
    errors: dict[str, str] = {}
    for trial in trials:
        try:
            waiting += [trial] if force or not is_finished(trial) else []
        except ConfigError as error:
            errors[trial.name] = _damaged(run_of(trial), error)
    bench = Workbench(tell)
    for trial in waiting:
        bench.splits(trial.config)
    folder = Sweep(Sweep.create(Path(config.output), sweep_name(config)).path)
    figure = folder.plots / "sweep.png"
    for old in (folder.metrics_path, figure):
        old.unlink(missing_ok=True)
    write_text(folder.config_path, dump_yaml(_without_unused_ranks(config, trials)))
    write_json(folder.environment_path, environment())
    if finished := len(trials) - len(waiting) - len(errors):
        tell(f"{finished} of {len(trials)} trials are finished already")
    errors |= _run(waiting, folder, bench, config.sweep.joint, force=force, quiet=quiet)
    result = _conclude(folder, config, trials, errors)
    if result["best"] is not None:
        try:
            figures.sweep_curve(result, figure)
            best = Run(Path(result["best"]["run"]))
            metrics = best.read_metrics()
            draw_run_figures(best, metrics["after"], metrics["labels"])
        except Exception as error:  # hours of training are not lost to a picture
            tell(f"the figure cannot be drawn ({type(error).__name__}: {error})")
    folder.finish(result)
    return result


def count_parameters(trials: Sequence[Trial], tell: Tell) -> list[int | None]:
    """How many weights each trial trains, counted on backbones without weights; None where that cannot be done."""
    bases: dict[str, PreTrainedModel | None] = {}
    counts: list[int | None] = []
    for trial in trials:
        key = key_of(trial.config, "model")
        try:
            if key not in bases:
                bases[key] = None
                bases[key] = without_weights(trial.config.model)
            base = bases[key]
            counts.append(None if base is None else count_trainable(base, trial.config.lora))
        except (OSError, ValueError, LoraftError) as error:
            if not error.__cause__ and isinstance(error, BackboneError):
                raise  # there is no such backbone, now or later
            tell(f"{trial.name}: parameters cannot be counted: {str(error).strip().splitlines()[0]}")
            counts.append(None)
    return counts


def _run(
    waiting: Sequence[Trial], folder: Sweep, bench: Workbench, joint: str, *, force: bool, quiet: bool
) -> dict[str, str]:
    """Runs the trials; returns the errors of those that failed, by name."""
    tell = bench.tell
    errors: dict[str, str] = {}
    if force:
        joint_pass.clear(folder.path)
    if joint != "off":
        joint_pass.train_what_can(waiting, folder.path, bench, forced=joint == "on", quiet=quiet)
        bench.check()
    # Trials of one backbone follow each other, in the order in which they were asked for.
    for number, trial in enumerate(sorted(waiting, key=lambda t: key_of(t.config, "model", "quant")), start=1):
        tell(f"trial {number} of {len(waiting)}: {trial.name}")
        run = run_of(trial)
        error_path = run.path.parent / ERRORS / f"{run.name}.txt"
        failure = None
        try:
            result = train(
                trial.config,
                force=force,
                resume=not force,
                quiet=quiet,
                built=bench.built(trial.config),
                splits=bench.splits(trial.config),
                before=bench.before(trial.config),
                fitted=None if joint == "off" else joint_pass.fitted(folder.path, trial),
                figures=False,  # they take longer than a small trial; the best one's are drawn at the end
            )
        except Exception as error:  # whatever it is, the other trials are worth having
            failure = _in_words(error)
            write_text(error_path, traceback.format_exc())
        if not bench.check() and failure is None and trial.config.lora.init_lora_weights not in MOVING_INITS:
            failure = "the training changed the frozen backbone, so its scores are of no backbone that can be loaded"
            _undo(run)
        if failure is not None:
            errors[trial.name] = failure
            tell(f"{trial.name} failed: {failure}")
        else:
            error_path.unlink(missing_ok=True)
            bench.keep_before(trial.config, result["before"])
            tell(f"{trial.name}: macro-F1 {result['after']['macro_f1']:.4f}, {result['train']['seconds']:.1f} s")
    gc.unfreeze()
    if not errors:
        joint_pass.clear(folder.path)
    return errors


def _undo(run: Run) -> None:
    """Takes the finish mark from a run, and the checkpoints, so that the same command trains it from the start."""
    run.metrics_path.unlink(missing_ok=True)
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def _conclude(folder: Sweep, config: Config, trials: Sequence[Trial], errors: Mapping[str, str]) -> dict[str, Any]:
    records: list[dict[str, Any]] = []
    answers: dict[str, Answers] = {}
    for trial in trials:
        run = run_of(trial)
        record = {
            "name": trial.name,
            "run": str(run.path),
            "settings": trial.settings,
            "alpha_policy": trial.config.lora.alpha_policy,
        }
        failure = errors.get(trial.name)
        if failure is None:
            try:
                measured = _measured(run)
                answers[trial.name] = read_answers(run)
            except Exception as error:  # a damaged folder, in as many ways as there are files
                failure = _damaged(run, error)
        records.append(
            {**record, "status": "finished", **measured}
            if failure is None
            else {**record, "status": "failed", "error": failure}
        )
    return {
        "kind": "sweep",
        "path": str(folder.path),
        "backbone": config.model.name,
        "quant": config.quant.method,
        "data": config.data.source,
        "task": config.prompt.task,
        "labels": config.prompt.labels,
        "keys": list(trials[0].settings),
        "alpha_policies": list(dict.fromkeys(trial.config.lora.alpha_policy for trial in trials)),
        "confidence": config.eval.confidence,
        "trials": records,
        **rank_settings(records, answers, config.eval.confidence),
    }


def _measured(run: Run) -> dict[str, Any]:
    """What the run of a finished trial measured, as far as the sweep reports it."""
    metrics = run.read_metrics()
    after, train = metrics["after"], metrics["train"]
    return {
        **{key: after[key] for key in (*SCORES, "intervals", "n")},
        "trainable_parameters": train["parameters"]["trainable"],
        **{key: train[key] for key in ("validation_macro_f1", "seconds", "resumed_from_step", "steps")},
        "peak_memory_mib": train["peak_memory_mib"],
        "joint": train.get("joint") is not None,
    }


def _damaged(run: Run, error: Exception) -> str:
    return f"{run.path}: is damaged ({_in_words(error)}); delete the folder and give the same command again"


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, LoraftError) else f"{type(error).__name__}: {error}"


def _without_unused_ranks(config: Config, trials: Sequence[Trial]) -> Config:
    # Written out, the default ranks would count as asked for when the file is given to --config.
    used = "lora.r" in trials[0].settings and "lora.r" not in config.sweep.grid
    section = config.sweep if used else config.sweep.model_copy(update={"ranks": []})
    return config.model_copy(update={"sweep": section})
