"""The finished run whose adapter a training goes on from (`train.from_run`), and that the two fit."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.data.examples import digest
from loraft.errors import ConfigError, LoraftError, RunError, first_line
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.evaluate import judge
from loraft.evaluation.known_rows import rows_of
from loraft.models import manifest
from loraft.models.adapter_files import check_weights
from loraft.models.encoder import Encoder
from loraft.models.prompts import Prompt
from loraft.runs.bundle import config_of
from loraft.runs.from_hub import HUB
from loraft.runs.peft_folder import refuse_changed
from loraft.runs.records import read_record, write_record
from loraft.runs.run import Bundle, Run, run_of
from loraft.training.results import StartedFrom

# Where the adapter's form may differ: dropout holds no weights, and alpha is compared by its value.
FREE = ("lora_dropout", "lora_alpha", "alpha_per_rank")


@dataclass(frozen=True)
class StartingPoint:
    """A finished run, to go on from.

    Attributes:
        run: it.
        config: of its training.
        content: its `loraft.json`.
        record: what the results say of it.
    """

    run: Run
    config: Config
    content: manifest.Manifest
    record: StartedFrom

    def begin(
        self,
        run: Run,
        config: Config,
        encoder: Encoder,
        base: PreTrainedModel,
        splits: Mapping[str, Split],
        *,
        resume: bool,
    ) -> None:
        """Checks that a training may go on from here, and keeps in its run's folder what it starts from.

        Raises:
            RunError: the backbone or prompt is another one; rows of the earlier training would be measured on; or a
                training is resumed that was begun from another adapter.
        """
        manifest.check(self.content, self.run.adapter, encoder, base)
        for name in ("validation", "test"):
            manifest.check_drawn(self.content, self.config, config, splits[name])
        now = self.record.adapter_sha256
        if resume and run.start_path.exists():
            then = read_record(run.start_path, StartedFrom, "begin again with --force").adapter_sha256
            if then != now:
                raise RunError(
                    f"{self.run.adapter}: is not the adapter that {run.path} was begun from (got {now[:12]}, then"
                    f" {then[:12]}); put it back, or begin again with --force"
                )
        write_record(run.start_path, self.record)

    def known_rows(self, config: Config, splits: Mapping[str, Split]) -> tuple[str, ...]:
        """Sentences about rows to be measured on that the earlier training had; none where its data is gone on with.

        Rows that stand in several splits of one data set are counted where that is read.
        """
        if config.data == self.config.data.model_copy(update={"extra_train": config.data.extra_train}):
            return ()
        try:
            known = {digest(text) for text in rows_of(self.run)["train"].texts}
        except LoraftError as error:
            why = first_line(error)
            return (f"whether {self.run.path} was trained on rows that are measured on now cannot be told ({why})",)
        counts = {name: sum(digest(text) in known for text in split.texts) for name, split in splits.items()}
        return tuple(
            f"{again:,} of {len(splits[name]):,} {name} rows are training rows of {self.run.path}, so that their scores"
            " are too good; measure on other rows"
            for name, again in counts.items()
            if again and name != "train"
        )

    def put_into(self, model: PeftModel) -> None:
        """Gives the fresh adapter the run's weights, in evaluation mode.

        Raises:
            BackboneError, RunError: the weights cannot be read, or do not belong to such an adapter.
        """
        check_weights(self.run.adapter)
        place = str(self.run.adapter.absolute())  # peft takes a relative path for a hub id
        missing, unexpected = model.load_adapter(place, model.active_adapter, is_trainable=True)
        own = [key for key in missing if ".lora_" in key or ".modules_to_save." in key]
        if own or unexpected:
            raise RunError(
                f"{self.run.adapter}: its weights are not those of this adapter (got {len(own)} missing,"
                f" {len(unexpected)} without a place); copy the folder again"
            )
        model.eval()  # what is judged next has no dropout

    def judged(
        self, model: PeftModel, encoder: Encoder, prompts: Sequence[Prompt], split: Split, config: Config
    ) -> EvaluationReport:
        """The scores of the adapter before the training, with the thresholds and the calibration that belong to it."""
        calibration = manifest.calibration(self.run.adapter, config)
        several = encoder.task.kind == "multilabel"
        thresholds = manifest.thresholds(self.run.adapter, len(encoder.task.labels), calibration) if several else ()
        report, _ = judge(model, encoder, prompts, split, config, thresholds, calibration)
        return report


def starting_point(config: Config) -> StartingPoint | None:
    """The run that a config starts from, checked as far as it can be before anything loads; None where there is none.

    Raises:
        ConfigError: it is the folder of the new run itself.
        RunError: there is no such finished run, its files were changed, it has no adapter, or its adapter has another
            form, or was trained over a backbone that is stored or whose code is otherwise.
    """
    given = config.train.from_run
    if given is None:
        return None
    if not given.startswith(HUB) and not os.path.isdir(given):
        raise RunError(
            f"train.from_run: no such run (got {given}); put its folder back there, or begin anew from another:"
            " loraft train --force --from RUN"
        )
    run = Run.open(given)
    if os.path.realpath(run.path) == os.path.realpath(run_of(config).path):
        raise ConfigError(
            f"train.from_run: is the new run's own folder (got {run.path}); give the new run another name"
        )
    if not run.finished:
        raise RunError(f"{run.path}: the run is not finished (no {run.results_file}); {run.way_on}")
    content = manifest.read(run.adapter)
    if content.merged is not None:
        raise RunError(
            f"{run.path}: holds merged weights, and no adapter to go on from; name the run they were made of"
        )
    refuse_changed(run.adapter)
    manifest.check_code(content, run.adapter, config.model)
    then = config_of(run)
    different = [f"{key} {old} then, {new} now" for key, old, new in _compared(then, config) if old != new]
    if different and not (isinstance(run, Bundle) and content.config is None):  # earlier versions did not write it
        raise RunError(
            f"{run.path}: training goes on with an adapter of the same form only (got {'; '.join(different)}); leave"
            " these keys as they were, or train without --from"
        )
    return StartingPoint(run, then, content, StartedFrom(given, manifest.adapter_hash(run.adapter, content) or ""))


def _compared(then: Config, now: Config) -> list[tuple[str, Any, Any]]:
    keys = [key for key in type(now.lora).model_fields if key not in FREE]
    found = [(f"lora.{key}", getattr(then.lora, key), getattr(now.lora, key)) for key in keys]
    found.append(("lora.lora_alpha", then.lora.alpha, now.lora.alpha))
    for key in ("method", "double_quant"):
        found.append((f"quant.{key}", getattr(then.quant, key), getattr(now.quant, key)))
    return found


def refuse_start(config: Config, what: str) -> None:
    """Refuses to train several adapters from one, whose training may have seen the rows that they are measured on.

    Raises:
        ConfigError: the config names a run to start from.
    """
    if config.train.from_run is not None:
        raise ConfigError(
            f"train.from_run: {what} trains fresh adapters (got {config.train.from_run}); leave it out, or go on from"
            " the run with loraft train --from"
        )
