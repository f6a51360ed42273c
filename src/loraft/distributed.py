"""Which of several training processes this one is, what they share out and exchange, and which of them has ended.

The environment variables are those that torchrun sets, which accelerate launch starts too. Exchanges happen inside
`together`; a process without a launcher is alone, and gets back what it gives.
"""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

FSDP = "ACCELERATE_USE_FSDP"
VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK")
GRACE = 10.0  # seconds in which the main process tells an error that all processes have, before another one does
# Seconds until a process whose connections are closed has ended: with several machines, and where all are on this one.
# Python's end closes them, and then takes seconds on a busy machine.
LOOKED_FOR = (2.0, 30.0)
Value = TypeVar("Value")


@dataclass(frozen=True)
class Member:
    """One of the processes that work together; `process` is its id on the machine `host`."""

    rank: int
    host: str
    process: int

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.process} on {self.host})"


_members: tuple[Member, ...] = ()  # the processes, while they work together
_exchange: Any = None  # the group of torch's through which they then exchange objects and small numbers


def is_distributed() -> bool:
    """Whether a launcher started more than one process."""
    return processes() > 1


def is_main_process() -> bool:
    """Whether this process writes files and prints results; always true without a launcher."""
    return rank() == 0


def processes() -> int:
    """How many processes the launcher started, on all machines; 1 without one."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """The index of this process among all; 0 without a launcher."""
    # RANK without WORLD_SIZE is another program's variable.
    return _number("RANK", 0) if is_distributed() else 0


def local_rank() -> int:
    """The index of this process on its machine, which is also the index of its GPU."""
    return _number("LOCAL_RANK", 0)


def is_sharded() -> bool:
    """Whether the processes share the weights of one backbone (FSDP), as `accelerate launch` says.

    Each of them must then call the model as often as the others: a layer's weights come from all processes.
    """
    return is_distributed() and os.environ.get(FSDP, "false").lower() == "true"


def wrong_variable() -> str | None:
    """The first of a launcher's variables that is no whole number from 0 on, None if there is none."""
    return next((name for name in VARIABLES if not _is_whole(name)), None)


@contextmanager
def together(*, on_cpu: bool) -> Iterator[None]:
    """Lets the processes of a launcher exchange objects during the block; waits until each of them has come here."""
    global _members, _exchange
    if not is_distributed():
        yield
        return
    import torch.distributed as dist
    from accelerate import PartialState

    PartialState(cpu=on_cpu)  # makes the group of the training, which the trainer goes on with
    _exchange = dist.new_group(backend="gloo")  # of the CPUs: an exchange does not wait for a card
    _members = tuple(_all_of(Member(rank(), socket.gethostname(), os.getpid())))
    yield
    part()  # not after an error: the members say which process has ended
    dist.destroy_process_group()  # waits for the others, which after an error may never come here


def shared_out(rows: Sequence[Any], work: Callable[[Any], Any]) -> Any:
    """Returns what `work` makes of each row, in the rows' order; each process works on every n-th row.

    All processes must call this, with the same rows, and each gets all results. Where the processes share the weights
    of one model, each works on all rows.

    Args:
        rows: N of them; a process may get none.
        work: returns a sequence with one result for each row that it is given, which can be pickled.
    """
    if not _members or is_sharded():
        return work(rows)
    found: list[Any] = [None] * len(rows)
    for first, share in enumerate(_all_of(work(rows[rank() :: processes()]))):
        found[first :: processes()] = share
    return found


def from_main(value: Value) -> Value:
    """The main process's value, in all processes."""
    return _all_of(value)[0]


def sums(*numbers: int) -> list[int]:
    """Each number's sum over the processes."""
    return [sum(column) for column in zip(*_all_of(numbers), strict=True)]


def largest(number: int) -> int:
    """The largest of the processes' numbers."""
    return max(_all_of(number))


def part() -> None:
    """Ends the common work where all processes have agreed to: none of those that end now counts as lost."""
    global _members, _exchange
    _members, _exchange = (), None


def lost(error: BaseException | None = None) -> Member | None:
    """The first other process on this machine that has ended while processes work together; None if none has.

    Args:
        error: of an exchange. A process that ends closes its connections first: one that has told its error counts as
            ended; others are waited for, but no longer than `LOOKED_FOR` seconds.
    """
    if not _members or (error is not None and not _of_an_exchange(error)):
        return None
    until = time.monotonic() + (0.0 if error is None else LOOKED_FOR[len(_here()) == len(_members)])
    while True:
        gone = next((one for one in _here() if not _runs(one) or (error is not None and _has_told(one))), None)
        if gone is not None or time.monotonic() >= until:
            return gone
        time.sleep(0.05)


def connection_lost(error: BaseException) -> bool:
    """Whether an error says that another process cannot be reached any more, while processes work together."""
    return bool(_members) and _of_an_exchange(error)


def speaks() -> bool:
    """Whether this process tells what ended all of them: the first one on its machine that runs, or told its error."""
    if not _members:
        return is_main_process()
    return next(one.rank for one in _here() if _runs(one) or _has_told(one)) == rank()


def error_told() -> None:
    """Lets the other processes know that this one has said why it ends."""
    if _members:
        with suppress(Exception):  # the store lies in the launcher, or in a process that has ended
            _store().set(f"loraft/told/{rank()}", "1")


def wait_for_main() -> None:
    """Gives the main process time to tell the error that it has, too: the launcher then ends this one."""
    if not is_main_process():
        time.sleep(GRACE)


def _all_of(value: Value) -> list[Value]:
    """The processes' values, by rank."""
    if _exchange is None:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * processes()
    dist.all_gather_object(values, value, group=_exchange)
    return values


def _here() -> list[Member]:
    """The processes on this machine, by rank."""
    return [one for one in _members if one.host == socket.gethostname()]


def _runs(member: Member) -> bool:
    import psutil

    try:
        return bool(psutil.Process(member.process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _has_told(member: Member) -> bool:
    try:
        return bool(_store().check([f"loraft/told/{member.rank}"]))
    except Exception:  # as in `error_told`
        return False


def _store() -> Any:
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()


def _of_an_exchange(error: BaseException) -> bool:
    """Whether an error comes from an exchange with other processes: gloo's are plain RuntimeErrors."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _is_whole(name: str) -> bool:
    return re.fullmatch("[0-9]{0,9}", os.environ.get(name, "")) is not None


def _number(name: str, default: int) -> int:
    value = os.environ.get(name)
    return int(value) if value and _is_whole(name) else default
