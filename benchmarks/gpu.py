"""The cases of speed.py on a CUDA card, at the Llama-3.2-1B shape, in bf16 and NF4. About ten minutes.

    python benchmarks/gpu.py [--data FOLDER] [--only step-1b-4,sweep-1b] [--budget SECONDS] [--smoke]

The random backbone is saved once with the bundled tokenizer into a temporary folder (2.5 GB), from which all
tools load it, as they would load a real one. `performance.py` adds gpu.json to docs/performance.md.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import cases
import torch
import typer
from speed import FLAGS, SMALL_SHAPE, SMOKE, Sizes, Suite, measure, write
from transformers.utils import logging as transformers_logging

from loraft.cli.console import start_command
from loraft.config.resolve import resolve
from loraft.errors import Note

OUT = Path(__file__).parent / "results" / "gpu.json"
SIZES = Sizes(step_rounds=(10, 10), rows=256, shot_rows=128, sweep_batch=4, sweep_steps=20, sweep_rows=64, peak=8192)


def all_cases(plain: Suite, nf4: Suite) -> dict[str, Callable[[], dict[str, Any]]]:
    """All cases by name; of each suite, what it calls the bundled backbone is the saved one."""
    sizes = plain.sizes
    steps_4, steps_16 = sizes.step_rounds
    return {
        "peak": plain.peak,
        "step-1b-4": lambda: plain.step("bundled", 4, both_trl=True, rounds=steps_4),
        "step-1b-16": lambda: plain.step("bundled", 16, both_trl=True, rounds=steps_16),
        "zero-shot-1b": lambda: plain.evaluation("bundled", sizes.rows),
        "few-shot-1b": lambda: plain.evaluation("bundled", sizes.shot_rows, shots=8),
        "step-1b-nf4-4": lambda: nf4.step("bundled", 4, both_trl=True, rounds=steps_4),
        "step-1b-nf4-16": lambda: nf4.step("bundled", 16, both_trl=True, rounds=steps_16),
        "sweep-1b": plain.sweep,
    }


def main(
    data: Annotated[
        str, typer.Option(help="feedback, or a folder with train, validation and test.jsonl.")
    ] = "feedback",
    only: Annotated[str, typer.Option(help="Cases, comma-separated; all by default.")] = "",
    budget: Annotated[float, typer.Option(help="Seconds after which no further case begins.")] = 480,
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny sizes, on the CPU where there is no card.")] = False,
    out: Annotated[Path, typer.Option()] = OUT,
) -> None:
    """Measure, and write OUT."""
    if not smoke and not torch.cuda.is_available():
        raise SystemExit("gpu.py: no CUDA device is visible; benchmarks/speed.py measures on the CPU")
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    transformers_logging.set_verbosity_error()
    flags = {**FLAGS, "data.source": data, "model.device": device.type}
    config = resolve(flags=flags)
    start_command(config, verbose=False)
    warnings.filterwarnings("ignore", category=Note)
    with TemporaryDirectory() as folder:
        made = cases.random_llama(config, SMALL_SHAPE if smoke else cases.LLAMA_1B, device)
        made.base.save_pretrained(folder)
        made.encoder.tokenizer.save_pretrained(folder)
        del made
        sizes = SMOKE if smoke else SIZES
        plain, nf4 = (
            Suite(resolve(flags={**flags, "model.name": folder, "quant.method": quant}), sizes, device)
            for quant in ("none", "nf4")
        )
        known = all_cases(plain, nf4)
        chosen = only.split(",") if only else list(known)
        if unknown := [name for name in chosen if name not in known]:
            raise SystemExit(f"--only: no such case (got {', '.join(unknown)}); there are {', '.join(known)}")
        picked = {name: known[name] for name in known if name in chosen}
        measure(picked, budget, lambda result: write(out, plain, result))


if __name__ == "__main__":
    typer.run(main)
