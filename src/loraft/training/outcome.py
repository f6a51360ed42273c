"""What is told of a finished training: the baselines on its test rows, and what its scores hide."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.errors import listed, spared
from loraft.evaluation import advice, label_sets, training_advice
from loraft.evaluation.baselines import compared_with
from loraft.runs.environment import custom_code
from loraft.runs.predictions import PredictedRow, predicted_ids
from loraft.runs.run import Run
from loraft.training.learning_rate import rate_for
from loraft.training.results import RunResult, TrainReport


def with_baselines_and_warnings(
    result: RunResult, run: Run, config: Config, splits: Mapping[str, Split], rows: Sequence[PredictedRow]
) -> RunResult:
    """The result with the baselines on the same test rows, and with what its scores hide."""
    train, test = splits["train"], splits["test"]
    baselines, again = None, f"loraft eval --run {shlex.quote(str(run.path))}"
    told: list[str] = []
    if config.prompt.kind == "multilabel":
        with spared("the baselines, and warnings about the scores", again):
            baselines, told = label_sets.beside(config, result.after, rows, train, test, "adapter")
    else:
        predictions_N = predicted_ids(rows, result.labels)
        with spared("the warnings about the scores", again):
            told = advice.of_evaluation(config, result.after, test, predictions_N, train)
        with spared("the baselines", again):
            baselines = compared_with(config, train, test, predictions_N, "adapter")
    told += training_advice.of_outcome(config, result.before, result.after) if result.before is not None else ()
    with spared("the warnings about the training", f"loraft report {shlex.quote(str(run.path))}, with its curve,"):
        told += warnings_of_training(run, config, result.train, len(splits["validation"]))
    return replace(result, baselines=baselines, warnings=tuple(told))


def warnings_of_training(run: Run, config: Config, train: TrainReport, rows: int) -> list[str]:
    """Warnings about how the training of a finished run went, which was chosen on that many validation rows."""
    usual = rate_for(train.parameters.all - train.parameters.trainable)
    told = training_advice.of_training(run.read_log(), config, rows, train.learning_rate, usual)
    return [*of_code_that_ran(config), *told]


def of_code_that_ran(config: Config) -> list[str]:
    """A warning where Python code of the backbone ran, which names its files; none where none did."""
    if not (code := custom_code(config.model)):
        return []
    named = listed((f"{file} {value[:12]}" for file, value in code.items()), 3)
    return [f"model.trust_remote_code: Python code of {config.model.name} ran here ({named}); see environment.json"]
