"""Runs cases one after the other, each within its time, and writes after each what there is."""

import gc
import json
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from targets import LORAFT
from timing import OutOfTime, limited, machine, ratios

from loraft.cli.console import say
from loraft.runs.environment import environment
from loraft.runs.records import as_json

FRAMES = 8  # of a traceback, the innermost


def measure(
    chosen: Mapping[str, Callable[[], dict[str, Any]]],
    budget: float,
    save: Callable[[dict[str, Any]], None],
    limits: Mapping[str, float] | None = None,
) -> None:
    """Runs cases and saves after each what there is; the error of one that fails is its record, and others go on.

    Args:
        chosen: cases by name; the most important first.
        budget: seconds after which no further case begins; the names of all that are not done are in `not_measured`.
        save: takes what there is.
        limits: seconds after which a case fails, by name; none of these goes on beyond the budget.

    Raises:
        SystemExit: some case failed; after all others.
    """
    started, left = time.perf_counter(), list(chosen)
    done: dict[str, dict[str, Any]] = {}
    failed: list[str] = []
    for name, case in chosen.items():
        spent = time.perf_counter() - started
        if spent >= budget:
            break
        say(f"{spent:6.0f} s  {name}")
        gc.collect()  # what earlier cases held
        try:
            with nullcontext() if limits is None else limited(min(limits[name], budget - spent)):
                record = case()
        except (Exception, SystemExit, OutOfTime) as error:  # the other cases are worth having
            record = _failure(error)
        if "error" in record:
            failed.append(f"{name}: {record['error']}")
            done[name] = record
            save({"cases": done, "not_measured": left})
            continue
        if "seconds" in record:
            record["ratios"] = ratios(record["seconds"])
            said = [f"{statistics.median(times):.4g} s {tool}" for tool, times in record["seconds"].items()]
            said += [f"{ratio['median']:.2f}x {baseline}" for baseline, ratio in record["ratios"].items()]
            say("          " + ", ".join(said))
        if "loraft_operations" in record and "flop_per_second" in done.get("peak", {}):
            speed = record["loraft_operations"] / statistics.median(record["seconds"][LORAFT])
            record["share_of_peak"] = speed / done["peak"]["flop_per_second"]
        done[name] = record | {"case_seconds": round(time.perf_counter() - started - spent, 1)}
        left.remove(name)
        save({"cases": done, "not_measured": left})
    say(f"{time.perf_counter() - started:6.0f} s  done" + (f", but for {', '.join(left)}" if left else ""))
    if failed:
        raise SystemExit("\n".join(failed))


def _failure(error: BaseException) -> dict[str, Any]:
    """The record of a case that failed; the whole traceback, with paths of this machine, is only printed."""
    say("".join(traceback.format_exception(error)))
    frames = [f"{Path(at.filename).name}:{at.lineno}, {at.name}" for at in traceback.extract_tb(error.__traceback__)]
    return {"error": f"{type(error).__name__}: {error}", "where": frames[-FRAMES:]}


def write(
    out: Path, sizes: dict[str, Any], data: str, device: torch.device, result: dict[str, Any], *, smoke: bool
) -> None:
    """Writes the record of a suite; no path of this machine goes in.

    Args:
        sizes: how much of everything was measured.
        data: name or folder.
        result: what `measure` gives.
    """
    record = {
        "environment": {key: value for key, value in as_json(environment()).items() if key != "command"},
        "machine": machine(device),
        "data": Path(data).name,
        "smoke": smoke,
        "sizes": sizes,
        **result,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
