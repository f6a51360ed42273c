"""What the commands say on stderr while they work; stdout is for results."""

import logging
import os
import sys
import warnings
from pathlib import Path

from loraft.config import Config


def say(message: str) -> None:
    """Prints a line on stderr, once also where torchrun or accelerate started several processes."""
    if is_main():
        print(message, file=sys.stderr, flush=True)


def is_main() -> bool:
    """Whether this is the process that talks and writes: the first one."""
    return os.environ.get("RANK", "0") == "0"


def begin(config: Config, verbose: bool, *, adapter: Path | None = None, source: str | None = None) -> None:
    """Says what will be loaded; keeps the libraries' warnings, which are not about the user's work, off the screen."""
    quantised = f" ({config.quant.method})" if config.quant.method != "none" else ""
    with_adapter = f", adapter {adapter}" if adapter is not None else ""
    say(f"backbone {config.model.name}{quantised}{with_adapter}, data {source or config.data.source}")
    if not verbose:
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells everybody about an optional package
        warnings.filterwarnings("ignore")
        warnings.filterwarnings("default", module="loraft")
        warnings.formatwarning = lambda message, *rest, **named: f"warning: {message}\n"
