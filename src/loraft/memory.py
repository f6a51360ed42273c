"""How much memory a training took at most."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch


def reset_peak(device: torch.device) -> None:
    """Starts the peak anew, so that a trial does not report an earlier one's; on a CPU only Linux can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # man 5 proc: the peak becomes what is in use


def peak_mib(device: torch.device) -> int:
    """Returns the most memory in use since the reset: of the GPU if the device is one, else of this process, in MiB."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device) / 2**20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (2**20 if sys.platform == "darwin" else 2**10))
