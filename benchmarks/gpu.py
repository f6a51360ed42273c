"""The cases of speed.py on a CUDA card, at the shape of Llama-3.2-1B or Llama-3.1-8B. Ends in under eight minutes.

    python benchmarks/gpu.py [--shape 8b] [--data FOLDER] [--only step-1b-4,sweep-1b] [--budget SECONDS] [--smoke]

The most important cases come first, each ends or fails within a time of its own, and the JSON is written after each; a
case that fails has its error there. Weights are random, and made on the card. The 1B backbone is saved once with the
bundled tokenizer into a temporary folder (2.5 GB), from which all tools load it, as they would load a real one. At the
8B shape it is quantised where it is. `performance.py` adds gpu.json and gpu-8b.json to docs/performance.md.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import cases
import torch
import typer
from measuring import measure, write
from shapes import LLAMA_1B, LLAMA_8B
from speed import FLAGS, SMALL_SHAPE, SMOKE, Sizes, Suite
from targets import HARNESS, RECIPE, TRL_BEST
from transformers.utils import logging as transformers_logging

from loraft.cli.console import results_follow, start_command
from loraft.config.resolve import resolve
from loraft.config.schema import Config, TrainConfig
from loraft.errors import Note
from loraft.models.adapter import count_trainable
from loraft.models.quantization import check_nf4, keep_nf4_layout, no_compiler
from loraft.training import memory

STARTED = time.perf_counter()
RESULTS = Path(__file__).parent / "results"
SIZES = Sizes(
    rounds=3, step_rounds=(15, 15), rows=3166, shot_rows=3166, sweep_batch=4, sweep_steps=100, sweep_rows=128,
    peak=8192,
    distinct=5, passes=3,
)  # fmt: skip
SMALL = replace(SMOKE, distinct=1, passes=1, largest_batch=2)
# one row in so many: generation and the loop would take two minutes a round for all of them
SHARES = {RECIPE: 32, HARNESS: 8}
Case = tuple[float, Callable[[], dict[str, Any]]]  # seconds after which it fails, and what it does


class Shape(StrEnum):
    """Of the random backbone."""

    ONE = "1b"
    EIGHT = "8b"


def cases_1b(plain: Suite, nf4: Suite) -> dict[str, Case]:
    """Cases by name, the most important first; of each suite, what it calls the bundled backbone is the saved one."""
    sizes = plain.sizes
    shares = {name: share for name, share in SHARES.items() if sizes.rows > share}
    return {
        "peak": (20, plain.peak),
        **{f"step-1b-{batch}": (90, partial(beside_others, plain, "bundled", batch)) for batch in (4, 16, 64)},
        **{f"step-1b-nf4-{batch}": (80, partial(beside_others, nf4, "bundled", batch)) for batch in (4, 16)},
        "zero-shot-1b": (70, lambda: plain.evaluation("bundled", sizes.rows, shares=shares)),
        "few-shot-1b": (70, lambda: plain.evaluation("bundled", sizes.shot_rows, shots=8, shares=shares)),
        "sweep-1b": (110, lambda: plain.sweep(trl=TRL_BEST, rounds=1, warm_up_steps=2)),
        "launches-1b": (
            80,
            lambda: plain.launches("bundled", sorted({min(n, sizes.largest_batch) for n in (4, 16, 64)})),
        ),
    }


def cases_8b(suite: Suite) -> dict[str, Case]:
    """QLoRA alone, for its memory, then beside the others."""
    return {
        "peak": (20, suite.peak),
        **{f"memory-8b-nf4-{batch}": (120, partial(memory_of, suite, batch)) for batch in (4, 16)},
        **{f"step-8b-nf4-{batch}": (120, partial(beside_others, suite, "8b", batch)) for batch in (4, 16)},
    }


def beside_others(
    suite: Suite, backbone: str, batch: int, rivals: Sequence[str] = (RECIPE, TRL_BEST)
) -> dict[str, Any]:
    """Training steps of loraft and others."""
    size = min(batch, suite.sizes.largest_batch)
    return suite.step(backbone, size, rivals=rivals, rounds=suite.sizes.step_rounds[0])


def memory_of(suite: Suite, batch: int) -> dict[str, Any]:
    """Steps of loraft alone, and what `training/memory` expects of them before anything runs, in MiB."""
    bench = suite.bench("8b")
    record = beside_others(suite, "8b", batch, rivals=())
    size = record["work"]["batch"]
    _, rows = cases.training_rows(bench, size * (suite.sizes.distinct + 1))
    expected = {
        "weights": sum(tensor.nbytes for tensor in (*bench.base.parameters(), *bench.base.buffers())),
        "activations": memory._batch_bytes(bench.base, *memory._lengths(rows, size), size, packed=True),
        "adapter_and_optimizer": memory.OPTIMIZER_BYTES * count_trainable(bench.base, bench.config.lora),
    }
    return record | {"expected_memory_mib": {name: size >> 20 for name, size in expected.items()}}


def settings(data: str, device: torch.device) -> dict[str, Any]:
    """Of all configs. A training this short would not compile by itself; what is measured are steps of a long one."""
    compiled = {"train.compile": "on"} if "compile" in TrainConfig.model_fields and device.type == "cuda" else {}
    return {**FLAGS, **compiled, "data.source": data, "model.device": device.type}


def main(
    shape: Annotated[Shape, typer.Option(help="Of the backbone.")] = Shape.ONE,
    data: Annotated[
        str, typer.Option(help="feedback, or a folder with train, validation and test.jsonl.")
    ] = "feedback",
    only: Annotated[str, typer.Option(help="Cases, comma-separated; all by default.")] = "",
    budget: Annotated[float, typer.Option(help="Seconds from the start after which nothing goes on.")] = 460,
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny sizes, on the CPU where there is no card.")] = False,
    out: Annotated[Path | None, typer.Option(help="Default: benchmarks/results/gpu.json or gpu-8b.json.")] = None,
) -> None:
    """Measure, and write OUT."""
    if not smoke and not torch.cuda.is_available():
        raise SystemExit("gpu.py: no CUDA device is visible; benchmarks/speed.py measures on the CPU")
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    transformers_logging.set_verbosity_error()
    flags = settings(data, device)
    config = resolve(flags=flags)
    start_command(config, verbose=False)
    results_follow()
    warnings.filterwarnings("ignore", category=Note)
    large = {Shape.ONE: LLAMA_1B, Shape.EIGHT: LLAMA_8B}[shape]
    made = cases.random_llama(config, SMALL_SHAPE if smoke else large, device)
    with TemporaryDirectory() as folder:
        sizes = SMALL if smoke else SIZES
        if shape is Shape.ONE:
            known = cases_1b(*saved(made, Path(folder), flags, sizes))
        else:
            small = quantised(replace(made, config=resolve(flags={**flags, "quant.method": "nf4"})))
            sizes = sizes if smoke else replace(sizes, shape="Llama-3.1-8B shape")
            known = cases_8b(Suite(small.config, sizes, device, {"8b": small}))
        del made
        chosen = only.split(",") if only else list(known)
        if unknown := [name for name in chosen if name not in known]:
            raise SystemExit(f"--only: no such case (got {', '.join(unknown)}); there are {', '.join(known)}")
        picked = {name: known[name] for name in known if name in chosen}
        path = out or RESULTS / ("gpu.json" if shape is Shape.ONE else f"gpu-{shape.value}.json")
        measure(
            {name: case for name, (_, case) in picked.items()},
            budget - (time.perf_counter() - STARTED),
            lambda result: write(path, asdict(sizes), data, device, result, smoke=smoke),
            {name: limit for name, (limit, _) in picked.items()},
        )


def quantised(bench: cases.Bench) -> cases.Bench:
    """The bench with its decoder layers' matrices in NF4, double-quantised one by one on the device where they are."""
    with no_compiler():
        import bitsandbytes as bnb
    base, dtype = bench.base, bench.base.dtype
    for parent in list(base.get_decoder().layers.modules()):
        for name, plain in list(parent.named_children()):
            if isinstance(plain, torch.nn.Linear):
                layer = bnb.nn.Linear4bit(
                    plain.in_features, plain.out_features, bias=False, compute_dtype=dtype, quant_type="nf4",
                    device="meta",
                )  # fmt: skip
                weight = bnb.nn.Params4bit(plain.weight.data, requires_grad=False, quant_type="nf4")
                layer.weight = weight.to(bench.device)
                setattr(parent, name, layer)
    base.is_loaded_in_4bit = True  # peft looks there
    keep_nf4_layout(base)
    check_nf4(base, double_quant=True)
    return bench


def saved(made: cases.Bench, folder: Path, flags: dict[str, Any], sizes: Sizes) -> tuple[Suite, Suite]:
    """Saves the backbone with its tokenizer; returns a suite that loads it as it is, and one in NF4."""
    made.base.save_pretrained(folder)
    made.encoder.tokenizer.save_pretrained(folder)
    flags = {**flags, "model.name": str(folder)}
    configs: list[Config] = [resolve(flags={**flags, "quant.method": method}) for method in ("none", "nf4")]
    plain, nf4 = (Suite(config, sizes, made.device) for config in configs)
    return plain, nf4


if __name__ == "__main__":
    typer.run(main)
