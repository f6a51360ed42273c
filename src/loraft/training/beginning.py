"""What a run directory holds from the beginning of a training on: the config, the rows, and where it was made."""

from collections.abc import Mapping

from loraft import distributed
from loraft.config.schema import Config
from loraft.config.yaml_io import dump_config
from loraft.data.dataset import Split
from loraft.runs.atomic_files import write_text
from loraft.runs.environment import Environment, keep_environment
from loraft.runs.records import write_record
from loraft.runs.resume import OUTPUT_KEYS, STUDY_SECTIONS, check_same_config, check_same_rows
from loraft.runs.run import Run
from loraft.training.processes import begun_by, free_keys


def begin(run: Run, config: Config, splits: Mapping[str, Split], *, resume: bool) -> tuple[dict[str, str], Environment]:
    """Writes config, rows and environment; returns the fingerprints of the splits, and the environment.

    Raises:
        RunError: with `resume`, the run was begun with another config, or on other rows.
    """
    fingerprints = {name: split.fingerprint for name, split in splits.items()}
    if resume and run.config_path.exists():
        hint = f"{run.how_to_resume} continues it as it was begun, --force begins again"
        check_same_config(
            run.config_path, config, free=(*OUTPUT_KEYS, *STUDY_SECTIONS, *free_keys(run, config)), hint=hint
        )
        hint = "put its data back as they were to go on, or --force begins again"
        check_same_rows(run.rows_path, fingerprints, hint=hint)
    # The number of processes belongs to the config: without a checkpoint nothing else says how many rows a step has.
    # All of them have read it before it is written.
    anew = distributed.from_main(
        begun_by(run) != distributed.processes() and not [*run.checkpoints.glob("checkpoint-*")]
    )
    write_text(run.config_path, dump_config(config))
    write_record(run.rows_path, fingerprints)
    return fingerprints, keep_environment(run.environment_path, config, anew=anew)
