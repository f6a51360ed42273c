"""The rows that a finished run knows: read again from its data, which other rows are compared with."""

from loraft.data.dataset import Split, training_splits
from loraft.errors import RunError
from loraft.runs.bundle import config_of
from loraft.runs.run import Bundle, Run


def rows_of(run: Run) -> dict[str, Split]:
    """The splits that a run was trained and measured on, as its data is now.

    Raises:
        RunError: it is a bundle, which may be a stranger's: no data that it names is opened.
        LoraftError: its config or its data cannot be read any more.
    """
    if isinstance(run, Bundle):
        raise RunError(f"{run.path}: the data that a bundle names is not opened")
    return training_splits(config_of(run))
