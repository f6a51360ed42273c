"""What the commands say on stderr while they work; stdout is for results."""

import logging
import os
import sys
import warnings
from pathlib import Path

from loraft.config import Config
from loraft.errors import LoraftError


def say(message: str) -> None:
    """Prints a line on stderr."""
    print(message, file=sys.stderr, flush=True)


def begin(config: Config, verbose: bool, *, adapter: Path | None = None, source: str | None = None) -> None:
    """Says what will be loaded; keeps the libraries' warnings, which are not about the user's work, off the screen."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise LoraftError("several processes are not supported (got WORLD_SIZE above 1); start it without a launcher")
    quantised = f" ({config.quant.method})" if config.quant.method != "none" else ""
    with_adapter = f", adapter {adapter}" if adapter is not None else ""
    say(f"backbone {config.model.name}{quantised}{with_adapter}, data {source or config.data.source}")
    # TRL refuses several cards in one process, and one is what a run needs.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    if not verbose:
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells everybody about an optional package
        warnings.filterwarnings("ignore")
        warnings.filterwarnings("default", module="loraft")
        warnings.formatwarning = lambda message, *rest, **named: f"warning: {message}\n"
