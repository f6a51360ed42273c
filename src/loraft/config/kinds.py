"""Which commands work with which kind of task."""

import shlex

from loraft.config.schema import Config
from loraft.errors import ConfigError


def refuse_label_sets(config: Config, command: str) -> None:
    """Refuses a task with any number of labels a row, for a command that counts one label a row.

    Raises:
        ConfigError: `prompt.kind` is multilabel.
    """
    if config.prompt.kind == "multilabel":
        train = ["loraft", "train", "--task", config.prompt.task, "--data", config.data.source]
        raise ConfigError(
            f"loraft {command}: counts one label a row (got prompt.kind=multilabel); loraft train, eval, predict and"
            f" report take any number: {shlex.join(train)}"
        )
