"""Messages on stderr: which backbone and data a command uses, progress lines, notes and warnings.

Results go to stdout and nowhere else. Libraries that print or warn are kept quiet unless `--verbose` is given.
"""

import io
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from loraft import distributed
from loraft.errors import ConfigError, LoraftError, Note

if TYPE_CHECKING:
    from loraft.config.schema import Config


def say(message: str) -> None:
    """Prints a line on stderr; with several processes only the main one does."""
    if distributed.is_main_process():
        print(message, file=sys.stderr, flush=True)


def refuse_wrong_variables() -> None:
    """Refuses variables of a launcher such as torchrun that are no numbers.

    Raises:
        ConfigError: one is none.
    """
    name = distributed.wrong_variable()
    if name is not None:
        raise ConfigError(f"{name}: not a whole number from 0 on (got {os.environ[name][:60]!r}); leave it out")


def start_command(
    config: "Config", verbose: bool, *, adapter: Path | None = None, source: str | None = None, several: bool = False
) -> None:
    """Prints which backbone and data will be loaded, and sets up what stderr shows while the command works.

    Args:
        config: the resolved config.
        verbose: show the libraries' warnings too.
        adapter: of a run that is used.
        source: where the rows come from, if not from the config's data.
        several: whether the command may run in several processes.

    Raises:
        LoraftError: it runs in several processes and must not.
    """
    if distributed.is_distributed() and not several:
        raise LoraftError(
            "several processes: only loraft train works with a launcher such as torchrun (got WORLD_SIZE above 1);"
            " start this command without it"
        )
    if not distributed.is_main_process():  # each process prints its errors; results and warnings are printed once
        sys.stdout = io.StringIO()
        warnings.filterwarnings("ignore")
    quantised = f" ({config.quant.method})" if config.quant.method != "none" else ""
    with_adapter = f", adapter {adapter}" if adapter is not None else ""
    say(f"backbone {config.model.label}{quantised}{with_adapter}, data {source or config.data.source}")
    if not distributed.is_distributed():
        # TRL refuses several GPUs in one process, and one is what a run needs.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    if not verbose and distributed.is_main_process():
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it reports a missing optional package
        warnings.filterwarnings("ignore")
        warnings.filterwarnings("default", module="loraft")
        warnings.formatwarning = _one_line


def _one_line(message: Warning | str, category: type[Warning], *rest: object, **named: object) -> str:
    return f"{'note' if issubclass(category, Note) else 'warning'}: {message}\n"
