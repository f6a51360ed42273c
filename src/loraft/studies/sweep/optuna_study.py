"""The study of a search in Optuna: where it lies, how it draws, and when it ends a trial."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loraft.config.schema import Config
from loraft.errors import LoraftError, RunError, first_line
from loraft.evaluation.choosing import Metric
from loraft.evaluation.metrics import LOWER_IS_BETTER
from loraft.runs.atomic_files import replacing
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep.grid import MOST_TRIALS
from loraft.studies.sweep.space import Axis

STUDY = "loraft"  # its name in the journal
# A learning rate that wins in the end may be behind at first: no trial ends before this percentage of its training.
FIRST_RUNG = 25


def draw(trial: Any, axis: Axis) -> Any:
    """What Optuna draws for a key, or has drawn; `settings_of` makes the value of it."""
    if axis.drawn == "list" and axis.in_order:
        return trial.suggest_int(axis.key, 0, len(axis.values) - 1)
    if axis.drawn == "list":
        return trial.suggest_categorical(axis.key, axis.values)
    low, high = axis.values
    suggest = trial.suggest_int if isinstance(low, int) else trial.suggest_float
    return suggest(axis.key, low, high, log=axis.drawn == "log")


def is_of(trial: Any, axes: Sequence[Axis]) -> bool:
    """Whether what is drawn of a trial was drawn from this space."""
    by_key = {axis.key: axis for axis in axes}
    for key, drawn in trial.distributions.items():
        if (axis := by_key.get(key)) is None:
            return False
        values = (0, len(axis.values) - 1) if axis.drawn == "list" and axis.in_order else axis.values
        if tuple(getattr(drawn, "choices", None) or (drawn.low, drawn.high)) != values:
            return False
    return not trial.state.is_finished() or len(trial.distributions) == len(axes)


def sampler(seed: int, number: int) -> Any:
    """The sampler of one trial."""
    import optuna

    return optuna.samplers.TPESampler(seed=(seed * MOST_TRIALS + number) % 2**32)


def opened(folder: SweepFolder, config: Config) -> Any:
    """The study in a folder, new or begun.

    Raises:
        RunError: its journal is damaged.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    journal = folder.journal_path
    if journal.exists():  # a killed process may leave half a line, and its lock
        written = journal.read_bytes()
        whole = written[: written.rfind(b"\n") + 1]
        if whole != written:
            with replacing(journal) as temporary:
                temporary.write_bytes(whole)
    Path(f"{journal}.lock").unlink(missing_ok=True)
    lower = Metric.of(config).key in LOWER_IS_BETTER
    try:
        backend = JournalFileBackend(str(journal), JournalFileOpenLock(str(journal)))
        return optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name=STUDY,
            load_if_exists=True,
            direction="minimize" if lower else "maximize",
            # Of the trials that came so far, the better half goes on. In percent of the training.
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=FIRST_RUNG, reduction_factor=2),
        )
    except Exception as error:
        raise RunError(f"{journal}: cannot be read ({first_line(error)}); --force begins again") from error


def check_installed() -> None:
    """Raises an error without optuna.

    Raises:
        LoraftError: it cannot be imported.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise LoraftError(f"sweep --search: needs optuna (got {error}); pip install 'loraft[search]'") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna says nothing: what it would say is told in words of our own, or is of no use to the user."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="optuna")
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)
