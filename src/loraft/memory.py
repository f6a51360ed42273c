"""How much memory a training took at most."""

import ctypes
import gc
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


class Peak:
    """The most memory in use since it was made: of the GPU if the device is one, else of this process.

    A process's peak only rises. Linux can start it anew (man 5 proc_pid_clear_refs), where the machine permits that;
    elsewhere the peak is known only if it rose in the meantime, for else it is an earlier training's.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._above = -1  # KiB; a peak that is no higher says nothing
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        _give_freed_memory_back()
        try:
            CLEAR.write_text("5", encoding="ascii")  # the peak becomes what is in use
        except OSError:
            self._above = _process_peak()

    def mib(self) -> int | None:
        """The peak in MiB; None where it is not known."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device) / 2**20)
        peak = _process_peak()
        return peak // 2**10 if peak > self._above else None


def _give_freed_memory_back() -> None:
    """Lets the system have what earlier trainings freed, which glibc would keep and the peak would count."""
    gc.collect()
    with suppress(AttributeError, OSError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)


def _process_peak() -> int:
    """The most memory that this process ever had, or since it was last started anew; in KiB."""
    if STATUS.exists():  # `ru_maxrss` would count what the parent had when it started us, and is never lower again
        found = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
        if found is not None:  # some sandboxes leave it out
            return int(found[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (2**10 if sys.platform == "darwin" else 1))
