"""Messages on stderr: which backbone and data a command uses, progress, notes and warnings.

Results go to stdout and nowhere else. Libraries that print or warn are kept quiet unless `--verbose` is given. From
`start_command` until `results_follow` a library finds nothing on stdin, where the rows may be, and what it prints goes
to stderr.
"""

import atexit
import importlib.util
import io
import logging
import os
import re
import shutil
import stat
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from loraft import distributed, progress
from loraft.config.names import show
from loraft.errors import ConfigError, LoraftError, Note
from loraft.visible import visible

if TYPE_CHECKING:
    from loraft.config.schema import Config


_stdout: TextIO | None = None  # where results go, while libraries work
COMMAND = re.compile(r"(?:next: )?\bloraft [a-z][^;`)\n]*")  # in a message


@contextmanager
def own_streams() -> Iterator[None]:
    """Gives stdin, stdout and stderr back at the end of a command; what is printed to a closed one is dropped."""
    global _stdout
    given = sys.stdin, sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
        try:
            yield
        finally:
            (sys.stdin, sys.stdout, sys.stderr), _stdout = given, None


@contextmanager
def python_alone_on_stderr() -> Iterator[None]:
    """Drops what libraries in C++ print on stderr; messages of Python still reach it."""
    given = sys.stderr
    try:
        plain = given.fileno() == 2
    except (OSError, ValueError):  # no file at all
        plain = False
    if not plain:
        yield
        return
    given.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    sys.stderr = os.fdopen(os.dup(kept), "w", encoding=given.encoding, errors=given.errors, buffering=1)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.close()
        os.dup2(kept, 2)
        sys.stderr = given
        os.close(kept)
        os.close(nowhere)


def results_stream() -> TextIO:
    """Where a command prints its results, also while libraries work."""
    return _stdout or sys.stdout


def results_follow() -> None:
    """Gives stdout back to the command: the libraries have done their work."""
    global _stdout
    progress.remove()
    sys.stdout, _stdout = results_stream(), None


def results_on_screen() -> bool:
    """Whether results that are printed while a command works reach the terminal that shows its progress."""
    return sys.stderr.isatty() and results_stream().isatty()


def _results_in_pipe() -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(results_stream().fileno()).st_mode)
    except (OSError, ValueError):  # no file at all
        return False


def print_json(value: Any) -> None:
    """Prints records, in lists and mappings too, as JSON on stdout."""
    from loraft.runs.atomic_files import to_json
    from loraft.runs.records import as_json

    print(to_json(as_json(value)))


def say(message: str) -> None:
    """Prints a line on stderr; with several processes only the main one does."""
    if distributed.is_main_process():
        tell(message)


def tell(message: str) -> None:
    """Prints a line on stderr; where it cannot be written, as on a full disk, the command goes on without it."""
    with suppress(OSError):
        print(in_lines(visible(message)), file=sys.stderr, flush=True)


def in_lines(message: str) -> str:
    """The message, for a terminal broken at blanks; a command in it stays one line, so that it can be copied."""
    if sys.stderr is None or not sys.stderr.isatty():
        return message
    columns = 0
    with suppress(OSError, ValueError):  # stdout, which Python would ask, may be a file
        columns = int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size(sys.stderr.fileno()).columns
    wrapper = textwrap.TextWrapper(columns or 80, break_long_words=False, break_on_hyphens=False)
    lines = []
    for line in COMMAND.sub(lambda command: command[0].replace(" ", "\0"), message).splitlines():
        wrapper.subsequent_indent = line[: len(line) - len(line.lstrip(" "))]
        lines.append(wrapper.fill(line).replace("\0", " "))
    return "\n".join(lines)


@contextmanager
def warnings_said() -> Iterator[None]:
    """Says the warnings of the block as notes, where `start_command` has not set how they are shown."""
    with warnings.catch_warnings(record=True) as told:
        yield
    for note in told:
        say(f"note: {note.message}")


def refuse_wrong_variables() -> None:
    """Refuses variables of a launcher such as torchrun that are no numbers.

    Raises:
        ConfigError: one is none.
    """
    name = distributed.wrong_variable()
    if name is not None:
        raise ConfigError(f"{name}: not a whole number from 0 on (got {show(os.environ[name])}); leave it out")


def start_command(
    config: "Config",
    verbose: bool,
    *,
    adapter: Path | None = None,
    source: str | None = None,
    several: bool = False,
    prints: bool = False,
    one_gpu: bool = True,
) -> None:
    """Prints which backbone and data will be loaded, and sets up what stderr shows while the command works.

    Args:
        config: the resolved config.
        verbose: show the libraries' warnings too.
        adapter: of a run that is used.
        source: where the rows come from, if not from the config's data.
        several: whether the command may run in several processes.
        prints: whether it prints results while it works. A pipe that they go into may end at the terminal, where they
            would break bars.
        one_gpu: whether this process computes, on one GPU; else it hands all of them to other processes.

    Raises:
        LoraftError: it runs in several processes and must not.
    """
    if distributed.is_distributed() and not several:
        raise LoraftError(
            "several processes: only loraft train works with a launcher such as torchrun (got WORLD_SIZE above 1);"
            " start this command without it"
        )
    global _stdout
    _stdout = sys.stdout
    if not distributed.is_main_process():  # each process prints its errors; results and warnings are printed once
        _stdout = io.StringIO()
        warnings.filterwarnings("ignore")
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # as below
    quantised = f" ({config.quant.method})" if config.quant.method != "none" else ""
    with_adapter = f", adapter {adapter}" if adapter is not None else ""
    say(f"backbone {config.model.label}{quantised}{with_adapter}, data {source or config.data.source}")
    _move_caches()
    if one_gpu and not distributed.is_distributed() and config.model.device_map == "none":
        # TRL refuses several GPUs in one process, and one is what a run needs.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    if not verbose and distributed.is_main_process():
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it reports a missing optional package
        warnings.filterwarnings("ignore")
        warnings.filterwarnings("default", module="loraft")
        warnings.formatwarning = _one_line
    sys.stdin, sys.stdout = io.StringIO(), sys.stderr

    from loraft.display.progress import install

    install(plain=prints and _results_in_pipe())


def _move_caches() -> None:
    """Lets torch and triton keep compiled kernels in a temporary folder, where theirs cannot be written."""
    folders = {"TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR")}
    if importlib.util.find_spec("triton") is not None:
        folders["TRITON_CACHE_DIR"] = os.environ.get("TRITON_CACHE_DIR", os.path.expanduser("~/.triton/cache"))
    for name, folder in folders.items():
        if folder is None or _can_be_written(Path(folder)):
            continue
        os.environ[name] = tempfile.mkdtemp(prefix="loraft-")
        atexit.register(shutil.rmtree, os.environ[name], ignore_errors=True)
        say(f"note: {folder} cannot be written; {name} is a temporary folder for this command")


def _can_be_written(folder: Path) -> bool:
    """Whether a folder can be written to, or made below the nearest one that exists."""
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return True
    except OSError:
        return False


def _one_line(message: Warning | str, category: type[Warning], *rest: object, **named: object) -> str:
    return in_lines(visible(f"{'note' if issubclass(category, Note) else 'warning'}: {message}")) + "\n"
