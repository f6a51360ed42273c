"""Which of several training processes this one is, from the environment variables that torchrun sets."""

import os
import re

FSDP = "ACCELERATE_USE_FSDP"
VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK")


def is_distributed() -> bool:
    """Whether a launcher started more than one process."""
    return _number("WORLD_SIZE", 1) > 1


def is_main_process() -> bool:
    """Whether this process writes files and prints results; always true without a launcher."""
    # RANK without WORLD_SIZE is another program's variable.
    return not is_distributed() or _number("RANK", 0) == 0


def local_rank() -> int:
    """The index of this process on its machine, which is also the index of its GPU."""
    return _number("LOCAL_RANK", 0)


def wrong_variable() -> str | None:
    """The first of a launcher's variables that is no whole number from 0 on, None if there is none."""
    return next((name for name in VARIABLES if not _is_whole(name)), None)


def _is_whole(name: str) -> bool:
    return re.fullmatch("[0-9]{0,9}", os.environ.get(name, "")) is not None


def _number(name: str, default: int) -> int:
    value = os.environ.get(name)
    return int(value) if value and _is_whole(name) else default


def is_sharded() -> bool:
    """Whether the processes share the weights of one backbone (FSDP), as `accelerate launch` says.

    Each of them must then call the model as often as the others: a layer's weights come from all processes.
    """
    return is_distributed() and os.environ.get(FSDP, "false").lower() == "true"
