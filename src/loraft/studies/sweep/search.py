"""`loraft sweep --search`: Optuna proposes the trials, one after another, from what those before scored on validation.

Each trial is trained as `loraft train` would with its config, but judged on the validation rows alone. The best one is
then judged on the test rows, once, and is a finished run; see docs/decisions/0013.

The study lies in `optuna.jsonl` in the folder of the search. A trial is drawn with a seed of its own, from `seed` and
its number, so that a search that was interrupted proposes the same trials as one that was not. A trial that failed is
not told to Optuna: the same command takes it up again, as one that was interrupted.
"""

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from loraft.config.schema import Config
from loraft.config.yaml_io import dump_config
from loraft.data.dataset import warn_of_notes
from loraft.display.progress import shown
from loraft.engine.probabilities import to_probs
from loraft.errors import ConfigError, NewerFileError, RunError, StorageError
from loraft.evaluation.choosing import Metric, report_for
from loraft.evaluation.figures import draw_run_figures
from loraft.models.backbone import without_weights
from loraft.progress import each
from loraft.runs.atomic_files import write_text
from loraft.runs.environment import keep_environment
from loraft.runs.lock import locked
from loraft.runs.predictions import RunPredictions
from loraft.runs.resume import OUTPUT_KEYS, check_same_config, check_same_rows, of_its_version
from loraft.runs.run import Run
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep import optuna_study
from loraft.studies.sweep.conclusion import compare, damaged, measured, with_best
from loraft.studies.sweep.grid import sweep_name, trial_with
from loraft.studies.sweep.local_engine import Failure, attempt
from loraft.studies.sweep.records import SearchOutcome, SweepResult, TrialRecord, TrialScores
from loraft.studies.sweep.shared_backbone import SharedBackbone, Tell
from loraft.studies.sweep.space import Axis, settings_of, space
from loraft.studies.sweep.trials import Trial, is_finished, run_of
from loraft.training.on_validation import Validated, WatchedTraining, train_on_validation
from loraft.training.pipeline import run_training
from loraft.training.results import RunResult
from loraft.training.starting_point import refuse_start

NAME, ERROR, PRUNED_AT = "name", "error", "pruned at step"  # what the journal holds of a trial beside its values
ANEW = "--force begins again, --set name=NAME makes another search"
# More trials may be added; other keys would make the scores before another question.
FREE = (*OUTPUT_KEYS, "fewshot.", "sweep.trials", "sweep.joint")


def search(
    config: Config, *, force: bool = False, quiet: bool = False, tell: Tell = lambda message: None
) -> SweepResult:
    """Runs the trials that Optuna proposes until there are `sweep.trials`, and judges the best one on the test split.

    Args:
        config: its `sweep.search` says what is searched; see `space.space`.
        force: begin again.
        quiet: show no progress.
        tell: called with each line for the user.

    Returns:
        As `runner.sweep`, with scores on the validation split, and in `search` those of the best trial on test.

    Raises:
        LoraftError: optuna is missing, or a mistake in the config or data, before anything is trained; or the folder
            holds a search of another space. An error inside a trial is recorded, and the search goes on.
    """
    axes = space(config)
    refuse_start(config, "loraft sweep --search")
    optuna_study.check_installed()
    path = Path(config.output.folder) / sweep_name(config)
    config = config.model_copy(update={"sweep": config.sweep.model_copy(update={"ranks": []})})
    config = config if force else of_its_version(config, SweepFolder(path).config_path)
    with locked(path, force=force), shown(quiet=quiet):
        return _Search(config, axes, tell, quiet=quiet).run(force=force)


@dataclass
class _Search:
    """A search in its locked folder."""

    config: Config
    axes: Sequence[Axis]
    tell: Tell
    quiet: bool
    errors: dict[str, str] = field(default_factory=dict)  # of the trials that failed now, by name

    def run(self, *, force: bool) -> SweepResult:
        """As `search`."""
        config, output, name = self.config, Path(self.config.output.folder), sweep_name(self.config)
        if (there := SweepFolder(output / name)).begun and not force:
            check_same_config(there.config_path, config, free=FREE, hint=ANEW)
        self.shared = SharedBackbone(self.tell)
        warn_of_notes(self.shared.splits(config).values())
        for rows in () if force else sorted(there.path.glob("*/rows.json")):
            hint = "put its data back as they were, or --force begins again"
            check_same_rows(rows, self.shared.fingerprints(config), hint=hint)
        self.folder = SweepFolder.create(output, name, force=force)
        write_text(self.folder.config_path, dump_config(config))
        keep_environment(self.folder.environment_path, config, anew=force)
        with optuna_study.quiet():
            self.study = optuna_study.opened(self.folder, config)
            if not self.study.trials and any(self.folder.path.glob("*/config.yaml")):
                what = "is missing or empty, without which the trials beside it cannot be used"
                raise RunError(f"{self.folder.journal_path}: {what}; {ANEW}")
            if strange := [one.number + 1 for one in self.study.trials if not self._is_own(one)]:
                what = f"trial {strange[0]} is of another space than sweep.search"
                raise RunError(f"{self.folder.journal_path}: {what}; {ANEW}")
            begun = [one.number for one in self.study.trials if not one.state.is_finished()]
            numbers = [*begun, *range(len(self.study.trials), config.sweep.trials)]
            waiting = [*self._gone(), *(number for number in numbers if number < config.sweep.trials)]
            if waiting:
                self.folder.results_path.unlink(missing_ok=True)
                for name in next((axis.values for axis in self.axes if axis.key == "model.name"), ()):
                    without_weights(trial_with(config, {"model.name": name}, "--search model.name").config.model)
                if not any(axis.key.startswith(("model.", "quant.")) for axis in self.axes):
                    self.shared.backbone(config)  # one that cannot be loaded is no result of any trial
            if done := len(self.study.trials) - len(begun):
                self.tell(f"{done} of {max(done, config.sweep.trials)} trials are over already")
            for number in each(waiting, "trial"):
                self._trial(number)
            return self._conclude()

    def _is_own(self, one: Any) -> bool:
        """Whether a trial of the journal is of this search; a list may have changed and kept its length."""
        if not optuna_study.is_of(one, self.axes):
            return False
        name = one.user_attrs.get(NAME)
        if name is None:
            return ERROR in one.user_attrs or not one.state.is_finished()
        return bool(name == trial_with(self.config, settings_of(self.axes, one.params), "--search").name)

    def _gone(self) -> list[int]:
        """The numbers of trials that Optuna has a score of, and whose files somebody deleted."""
        from optuna.trial import TrialState

        scored = self.study.get_trials(states=[TrialState.COMPLETE])
        first = {one.user_attrs[NAME]: one.number for one in reversed(scored)}
        runs = {number: Run(self.folder.path / name) for name, number in first.items()}
        return sorted(n for n, run in runs.items() if not run.finished and not run.validated_path.exists())

    def _trial(self, number: int) -> None:
        """Draws a trial, or takes up one that was begun, and tells Optuna how it ended."""
        import optuna

        self.study.sampler = optuna_study.sampler(self.config.seed, number)
        told = number < len(self.study.trials) and self.study.trials[number].state.is_finished()
        if told:  # its files are gone: what Optuna holds of it stays, and is not changed by the following
            drawn = self.study.trials[number]
        elif number < len(self.study.trials):
            begun = self.study.trials[number]
            drawn = optuna.trial.Trial(self.study, begun._trial_id)
            for key, between in begun.distributions.items():  # so that the keys behind them draw as in one go
                self.study.sampler.sample_independent(self.study, begun, key, between)
        else:
            drawn = self.study.ask()
        values = settings_of(self.axes, {axis.key: optuna_study.draw(drawn, axis) for axis in self.axes})
        count = f"trial {number + 1} of {max(number + 1, self.config.sweep.trials)}"
        state = optuna.trial.TrialState
        try:
            trial = trial_with(self.config, values, "--search")
        except ConfigError as error:  # each value is valid, but not all together
            self.tell(f"{count}: failed: {error}")
            drawn.set_user_attr(ERROR, str(error))
            self.study.tell(drawn, state=state.FAIL)
            return
        drawn.set_user_attr(NAME, trial.name)
        before = next((one for one in self.study.trials[:number] if one.user_attrs.get(NAME) == trial.name), None)
        if before is not None:
            self.tell(f"{count}: {trial.name} again, as trial {before.number + 1}; it is not trained twice")
            for key in before.user_attrs:
                drawn.set_user_attr(key, before.user_attrs[key])
            ended = before.state if before.state.is_finished() else state.FAIL  # that one may be tried again
            self.study.tell(drawn, before.value if ended == state.COMPLETE else None, ended)
            return
        self.tell(f"{count}: {trial.name}")
        ended = self._ended(drawn, trial)
        if ended is not None and not told:
            self.study.tell(drawn, **ended)

    def _ended(self, drawn: Any, trial: Trial) -> dict[str, Any] | None:
        """Trains a trial; what Optuna shall be told of it: nothing where it failed, so that it is tried again."""
        from optuna.trial import TrialState

        metric = Metric.of(trial.config)
        watched = WatchedTraining(metric.key, partial(self._falls_behind, drawn))
        train = partial(train_on_validation, watched=watched, quiet=self.quiet)

        def known(run: Run) -> Validated | None:
            """Not trained again where only telling Optuna was interrupted, or `loraft train` finished it."""
            is_finished(trial)  # or of another config, which is refused
            return Validated.of(run)

        found = None
        if PRUNED_AT not in drawn.user_attrs:
            found = attempt(trial, self.folder, self.shared, train, fatal=(StorageError,), known=known)
        if isinstance(found, Failure):
            self.errors[trial.name] = found.message
            drawn.set_user_attr(ERROR, found.message)
            return None
        if found is None:
            shutil.rmtree(run_of(trial).checkpoints, ignore_errors=True)
            self.tell(f"{trial.name}: pruned after step {drawn.user_attrs[PRUNED_AT]}")
            return {"state": TrialState.PRUNED}
        score = found.train.validation_score
        self.tell(f"{trial.name}: {metric.word} {score:.4f} on validation, {found.train.seconds:.1f} s")
        return {"values": score}

    def _falls_behind(self, drawn: Any, percent: int, step: int, score: float) -> bool:
        """Reports an evaluation; whether successive halving ends the trial, which is noted before it is."""
        if percent not in self.study.trials[drawn.number].intermediate_values:  # one of before an interruption
            drawn.report(score, percent)
        behind = self.config.sweep.prune and drawn.should_prune()
        if behind:
            drawn.set_user_attr(PRUNED_AT, step)
        return behind

    def _conclude(self) -> SweepResult:
        """Compares the trials on their validation rows, and judges the best one on test."""
        import optuna

        states = optuna.trial.TrialState
        records: dict[str, TrialRecord] = {}
        answers: dict[str, RunPredictions] = {}
        trials: dict[str, Trial] = {}
        over = [one for one in self.study.trials if one.state.is_finished() or ERROR in one.user_attrs]
        for one in over:
            values = settings_of(self.axes, one.params)
            name = one.user_attrs.get(NAME) or f"trial {one.number + 1}"
            if name in records:
                continue
            kept = one.state in (states.COMPLETE, states.PRUNED)  # perhaps after it had failed before
            error, scores = None if kept else one.user_attrs.get(ERROR), None
            policy = self.config.lora.alpha_policy
            if NAME in one.user_attrs:
                trials[name] = trial = trial_with(self.config, values, "--search")
                values, policy = trial.settings, trial.config.lora.alpha_policy
                if one.state == states.COMPLETE:
                    try:
                        scores, answers[name] = _on_validation(trial)
                    except Exception as wrong:  # any file of the run may be damaged
                        error = self.errors.get(name) or damaged(run_of(trial), wrong)
            pruned = one.state == states.PRUNED
            records[name] = TrialRecord(
                name=name,
                run=str(self.folder.path / name),
                settings=values,
                alpha_policy=policy,
                status="finished" if scores is not None else "pruned" if pruned else "failed",
                measured=scores,
                error=error,
                pruned_at=one.user_attrs[PRUNED_AT] if pruned else None,
            )
        result = compare(self.folder, self.config, list(records.values()), answers)
        test = None
        if result.best is not None:
            best = self._judged_on_test(trials[result.best.name])
            result, test = with_best(result, best), measured(best.after, best.train)
        looks = len(list(self.folder.path.glob(f"*/{Run.results_file}")))
        outcome = SearchOutcome(proposed=len(over), repeated=len(over) - len(records), test=test, looks=looks)
        result = replace(result, search=outcome)
        self.folder.finish(result)
        for sentence in result.warnings:
            warnings.warn(sentence, stacklevel=2)
        return result

    def _judged_on_test(self, trial: Trial) -> RunResult:
        """The result of the best trial's run, which is finished with it; of one that was the best before, as it is."""
        run = run_of(trial)
        if run.finished:
            try:
                return RunResult.of(run)
            except NewerFileError:
                raise
            except RunError as wrong:
                raise RunError(damaged(run, wrong)) from None
        self.tell(f"judging {trial.name} on test")
        trained = Validated.of(run)
        assert trained is not None
        inputs = replace(self.shared.inputs(trial.config), trained=trained.train)
        with locked(run.path):
            result = run_training(run, inputs, resume=True, quiet=True, figures=False)
        try:
            draw_run_figures(run, result.after, result.labels)
        except Exception as error:  # the results of hours of training are written also without the figures
            self.tell(f"the figures cannot be drawn ({type(error).__name__}: {error})")
        return result


def _on_validation(trial: Trial) -> tuple[TrialScores, RunPredictions]:
    """Scores and predictions of a trained trial on the validation rows that chose its weights.

    Raises:
        RunError: they are missing or damaged.
    """
    run = run_of(trial)
    found = Validated.of(run)
    if found is None or found.train.validation_macro_f1 is None:
        raise RunError(f"no {run.validated_path.name}")
    scores, train = found.scores, found.train
    log_probs_NK, references_N = scores.arrays(set_aside=False)
    predictions_N = log_probs_NK.argmax(axis=1)  # as the evaluations of the training count them
    report = report_for(trial.config, references_N, to_probs(log_probs_NK), predictions_N, scores.labels)
    rows = tuple(row for row, aside in zip(scores.rows, scores.set_aside, strict=True) if not aside)
    answers = RunPredictions(run.path, scores.labels, rows, ("",) * len(rows), references_N, predictions_N)
    return measured(report, train), answers
