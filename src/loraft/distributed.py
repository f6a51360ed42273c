"""Several processes of one training, as torchrun starts them: the first writes, the others work with it."""

import os


def several() -> bool:
    """Whether a launcher started more than this process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this is the process that writes and talks; alone it always is."""
    return not several() or int(os.environ.get("RANK", "0")) == 0


def place() -> int:
    """The number of this process on its machine, and with it of its card."""
    return int(os.environ.get("LOCAL_RANK", "0"))
