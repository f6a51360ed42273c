"""Timing in turns, ratios, the machine's matrix-product peak, and what a piece of work computes."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from targets import LORAFT
from torch.utils.flop_counter import FlopCounterMode


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


def machine(device: torch.device) -> dict[str, Any]:
    """What the times depend on: processor or card, threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"device": device.type, "name": name, "threads": torch.get_num_threads()}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
