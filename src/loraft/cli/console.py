"""What the commands say on stderr while they work; stdout is for results."""

import io
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from loraft import distributed
from loraft.errors import LoraftError

if TYPE_CHECKING:
    from loraft.config.schema import Config


def say(message: str) -> None:
    """Prints a line on stderr; of several processes the first does."""
    if distributed.is_first():
        print(message, file=sys.stderr, flush=True)


def begin(
    config: "Config", verbose: bool, *, adapter: Path | None = None, source: str | None = None, several: bool = False
) -> None:
    """Says what will be loaded; keeps the libraries' warnings, which are not about the user's work, off the screen."""
    if distributed.several() and not several:
        raise LoraftError(
            "several processes: loraft train alone works with a launcher (got WORLD_SIZE above 1); start this one "
            "without it"
        )
    if not distributed.is_first():  # results and warnings are told once; errors still are by everybody
        sys.stdout = io.StringIO()
        warnings.filterwarnings("ignore")
    quantised = f" ({config.quant.method})" if config.quant.method != "none" else ""
    with_adapter = f", adapter {adapter}" if adapter is not None else ""
    say(f"backbone {config.model.name}{quantised}{with_adapter}, data {source or config.data.source}")
    if not distributed.several():
        # TRL refuses several cards in one process, and one is what a run needs.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    if not verbose and distributed.is_first():
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells everybody about an optional package
        warnings.filterwarnings("ignore")
        warnings.filterwarnings("default", module="loraft")
        warnings.formatwarning = lambda message, *rest, **named: f"warning: {message}\n"
