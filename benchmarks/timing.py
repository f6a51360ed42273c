"""Timing in turns, ratios, the machine's matrix-product peak, and what a piece of work computes and launches."""

import json
import platform
import re
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from targets import LORAFT
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

RING_AGAIN = 20.0  # seconds: for a piece of code that catches everything


class OutOfTime(BaseException):
    """The time of a piece of work is over; no `except Exception` on the way takes it for an error of its own."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises `OutOfTime` where the block is after so many seconds; a call outside Python is waited for."""

    def ring(*given: Any) -> None:
        raise OutOfTime(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, RING_AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def clock(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds that a call took, and what it returned; work queued on a GPU is waited for."""
    _wait(device)
    started = time.perf_counter()
    result = call()
    _wait(device)
    return time.perf_counter() - started, result


def in_turns(
    tools: Mapping[str, Callable[[int], Any]], rounds: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, list[Any]], dict[str, int]]:
    """Seconds and results of each tool in each round, and on a GPU the most memory that it used, in MiB.

    All tools do the work of a round before the next one starts, so that a machine that slows down slows all of
    them; the order is turned by one each round, so that nobody always follows the same neighbour.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    results: dict[str, list[Any]] = {name: [] for name in tools}
    memory = dict.fromkeys(tools, 0) if device.type == "cuda" else {}  # a process's peak tells of all of them
    names = list(tools)
    for number in range(rounds):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            if memory:
                torch.cuda.reset_peak_memory_stats(device)
            took, result = clock(partial(tools[name], number), device)
            seconds[name].append(took)
            results[name].append(result)
            if memory:
                memory[name] = max(memory[name], torch.cuda.max_memory_allocated(device) >> 20)
    return seconds, results, memory


def ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """How many times as long as loraft each baseline took: median, lowest and highest over the rounds."""
    out = {}
    for name, times in seconds.items():
        if name != LORAFT:
            quotients = [theirs / ours for theirs, ours in zip(times, seconds[LORAFT], strict=True)]
            out[name] = {"median": statistics.median(quotients), "low": min(quotients), "high": max(quotients)}
    return out


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int, tries: int = 5) -> float:
    """The most floating-point operations a second over some products of two square matrices, 2 n^3 each."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    clock(lambda: left @ right, device)
    best = min(clock(lambda: left @ right, device)[0] for _ in range(tries))
    return 2 * size**3 / best


def operations(call: Callable[[FlopCounterMode], Any]) -> int:
    """Floating-point operations of the matrix products that a call does inside the counter that it is given.

    PyTorch has no formula for attention's fused CPU kernel, so there this is a little below the truth.
    """
    counter = FlopCounterMode(display=False)
    call(counter)
    return int(counter.get_total_flops())


def launches(call: Callable[[profile], Any]) -> dict[str, Any]:
    """What the host launches and how long a GPU computes in the work that a call does inside the given profiler."""
    found = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    profiler = profile(activities=found, acc_events=True)
    call(profiler)
    with TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        return count_launches(json.loads(trace.read_text(encoding="utf-8"))["traceEvents"])


def count_launches(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Kernels and CUDA graphs that the host launches, kernels that run, and seconds in which any of them does.

    Args:
        events: of a trace in Chrome's format, times in microseconds.
    """
    events = list(events)
    calls = [event["name"] for event in events if event.get("cat") in ("cuda_runtime", "cuda_driver")]
    on_gpu = [event for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    busy, end = 0.0, float("-inf")
    for start, stop in sorted((event["ts"], event["ts"] + event["dur"]) for event in on_gpu):
        busy += max(0.0, stop - max(start, end))  # streams run side by side
        end = max(end, stop)
    return {
        "kernel_launches": sum(re.match(r"cu(da)?LaunchKernel", name) is not None for name in calls),
        "graph_launches": sum(re.match(r"cu(da)?GraphLaunch", name) is not None for name in calls),
        "kernels": sum(event["cat"] == "kernel" for event in on_gpu),
        "busy_seconds": busy / 1e6,
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What the times depend on: processor and threads, or card, memory and driver."""
    found = {"device": device.type, "name": _processor(), "threads": torch.get_num_threads()}
    if device.type != "cuda":
        return found
    card = torch.cuda.get_device_properties(device)
    return found | {
        "name": card.name, "memory_mib": card.total_memory >> 20, "multiprocessors": card.multi_processor_count,
        "driver": _driver(), "cuda": torch.version.cuda,
    }  # fmt: skip


def _driver() -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    words = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
    return lines[0].strip() if lines else None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
