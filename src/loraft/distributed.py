"""Which of several training processes this one is, from the environment variables that torchrun sets."""

import os


def is_distributed() -> bool:
    """Whether a launcher started more than one process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main_process() -> bool:
    """Whether this process writes files and prints results; always true without a launcher."""
    # RANK without WORLD_SIZE is another program's variable.
    return not is_distributed() or int(os.environ.get("RANK", "0")) == 0


def local_rank() -> int:
    """The index of this process on its machine, which is also the index of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))
