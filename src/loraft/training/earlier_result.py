"""The result of a training that is finished already, for a command that is given again. Read without torch."""

import warnings

from loraft.config.schema import Config
from loraft.data.dataset import training_splits
from loraft.distributed import is_main_process
from loraft.errors import Note, RunError
from loraft.runs.environment import Environment
from loraft.runs.lock import refuse_locked
from loraft.runs.peft_folder import refuse_changed
from loraft.runs.records import read_record
from loraft.runs.resume import OUTPUT_KEYS, STUDY_SECTIONS, check_same_config, check_same_rows, of_its_version
from loraft.runs.run import run_of
from loraft.training.results import RunResult

# `output.folder` may differ, as in a run that was moved; what is written there of the rows may not.
FREE = (*(key for key in OUTPUT_KEYS if key != "output."), "output.folder", *STUDY_SECTIONS)


def earlier_result(config: Config) -> RunResult | None:
    """The result of the finished run of this config, with a note and the warnings of then; nothing is written.

    The rows are read and compared. The backbone's weights are not: they would have to be loaded.

    Returns:
        None if there is no finished run of that name.

    Raises:
        RunError: it was trained with another config, or on other rows, or from another adapter, or did not record its
            rows, or its results or its adapter are missing or damaged, or another process works there.
        DataError: the rows cannot be read.
    """
    run = run_of(config)
    if not (run.begun and run.finished):
        return None
    if is_main_process():
        refuse_locked(run.path)
    ways = "--force trains anew in its place, --set name=NAME beside it"
    hint = f"the run is finished: {ways}"
    config = of_its_version(config, run.config_path)
    by_hash = config.train.from_run is not None and run.start_path.exists()  # which is compared below
    free = (*FREE, "train.from_run") if by_hash else FREE
    check_same_config(run.config_path, config, free=free, hint=hint)
    if not run.rows_path.exists():  # of an earlier version
        raise RunError(f"{run.path}: a finished run that did not record its rows is there; {ways}")
    rows = {name: split.fingerprint for name, split in training_splits(config).items()}
    check_same_rows(run.rows_path, rows, hint=hint)
    refuse_changed(run.adapter)
    if not run.predictions_path.is_file():
        raise RunError(f"{run.path}: its {run.predictions_path.name} is missing; {ways}")
    if run.environment_path.exists():  # what it says is told with the result
        read_record(run.environment_path, Environment, run.mend)
    result = RunResult.of(run)
    if result.started_from is not None:
        from loraft.training.starting_point import starting_point  # which reads the adapter, with torch

        start = starting_point(config)
        if start is None or start.record.adapter_sha256 != result.started_from.adapter_sha256:
            raise RunError(f"{run.path}: was begun from another adapter than {config.train.from_run} holds now; {hint}")
    warnings.warn(
        f"{run.path} is finished, with this config and these rows; --force trains anew (in Python: force=True)",
        Note,
        stacklevel=2,
    )
    for sentence in result.warnings:
        warnings.warn(sentence, stacklevel=2)
    return result
