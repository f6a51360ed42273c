"""From measured figures and assumptions to the units of work that `scaling.py` simulates, for backbones of 1B and 8B.

Nothing measured is written here: `measured` reads it from benchmarks/results. What is assumed is in `ASSUMPTIONS`.
"""

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cluster import Cluster, Unit
from shapes import LLAMA_1B, LLAMA_8B, all_weights, layer_weights
from targets import LORAFT

from loraft.cli.predict_ray import SHARD_ROWS
from loraft.config.resolve import resolve
from loraft.delivery import predict_worker
from loraft.studies.sweep import ray_pool
from loraft.studies.sweep.trials import Trial
from loraft.studies.sweep.units import units as units_of

RESULTS = Path(__file__).parent / "results"
RANKS, SEEDS = (1, 2, 4, 8, 16, 32, 64, 128), (1, 2, 3, 4, 5)
ROWS = 100_000_000
SHAPES = {"1B": LLAMA_1B, "8B": LLAMA_8B}
BYTES_A_WEIGHT = 2  # bfloat16
# Parts of a sweep that grow with its adapters, and those of each training; all other parts come once a process.
OF_ADAPTERS = ("evaluations during training", "test split", "saving", "adapters", "checks of the backbone")
OF_TRAINING = ("making the trainer", "check of the first batch")
RETRIES = {"sweep": ray_pool.RETRIES, "predictions": predict_worker.RETRIES}  # of a unit whose worker was killed
HOUR = 3600.0


@dataclass(frozen=True)
class Figure:
    """A measured figure: its unit, and the file and keys in benchmarks/results that it comes from."""

    what: str
    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Assumption:
    """What is not measured: the value that counts, the range that it may have, and why."""

    what: str
    value: float
    low: float
    high: float
    unit: str
    why: str


def growth(of: str) -> float:
    """How many times as many weights in layers, or layers, 8B has as 1B."""
    counts = [layer_weights(shape) if of == "weights" else shape["num_hidden_layers"] for shape in (LLAMA_1B, LLAMA_8B)]
    return float(counts[1] / counts[0])


def record(name: str) -> Any:
    """A record of benchmarks/results."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def python_rate(way: str, rows: int) -> float:
    """Rows a second of one process whose scoring is a stand-in, start-up included."""
    (found,) = (one for one in record("soak_predict.json") if (one["way"], one["rows"]) == (way, rows))
    return float(found["rows_per_second"])


ASSUMPTIONS = {
    "price": Assumption("price of a GPU, with its share of the machine", 3, 2, 4, "$ an hour",
                        "differs between providers and contracts; cost is proportional to it"),
    "gpu_watts": Assumption("power of a GPU that computes", 600, 350, 700, "W",
                            "NVIDIA's limit for an H100 SXM or H200 is 700 W; small steps stay below it"),
    "idle_watts": Assumption("power of a GPU that waits", 100, 60, 150, "W", "weights stay in its memory"),
    "node_watts": Assumption("power of the machine around it, for each GPU", 350, 150, 575, "W",
                             "NVIDIA's DGX H200 takes 10.2 kW at most: 575 W for each of eight GPUs beside its 700"),
    "pue": Assumption("power of the site over that of its machines (PUE)", 1.3, 1.1, 1.56, "",
                      "large sites 1.1; mean of the Uptime Institute's survey of 2024 1.56"),
    "failure_every": Assumption(
        "GPU-hours to a failure", round(16384 * 54 * 24 / 419), 10_000, 200_000, "h",
        "[Llama 3's report](https://arxiv.org/abs/2407.21783): 419 unexpected interruptions, 54 days, 16,384 H100s"),
    "spot_every": Assumption("the same where machines are taken back", 12, 4, 48, "h",
                             "differs between providers, places and days"),
    "sigma": Assumption("spread of a unit's seconds (sigma of a lognormal factor, median 1)", 0.1, 0, 0.3, "",
                        "other users of disk and network, clocks that throttle"),
    "start": Assumption("from an order to a worker that imports are done in", 60, 20, 300, "s",
                        "process, imports, Ray; more where machines are only then rented"),
    "restart": Assumption("from a failure to a worker in its place, beside that", 120, 30, 900, "s",
                          "until it is noticed, and until there is a machine"),
    "read": Assumption("reading a backbone, one worker", 1, 0.3, 5, "GB/s", "network disk to NVMe"),
    "read_all": Assumption("reading a backbone, all workers together", 10, 1, 100, "GB/s", "one shared file system"),
    "fixed": Assumption(
        "8B over 1B, part of a step that does not grow with its tokens", (growth("layers") + growth("weights")) / 2,
        growth("layers"), growth("weights"), "times",
        "grows as the layers do where launching limits it, as the weights do where memory limits it"),
    "host": Assumption(
        "rows that one process reads, encodes and writes", python_rate("output-file", 10**6),
        python_rate("output-file", 10**5), python_rate("pipe", 10**6), "rows/s",
        "measured, but with a stand-in for scoring and with start-up, on a CPU thread beside other work:"
        " `soak_predict.json`, output-file, 1,000,000 rows; low: 100,000 rows; high: the way pipe"),
    "shard": Assumption("rows of a shard", 100_000, SHARD_ROWS, 1_000_000, "rows",
                        "`--shard-rows`, by default the lower end; what a failed worker does again"),
    "row_in": Assumption("a row that is read", 100, 50, 1000, "bytes", "a sentence"),
    "row_out": Assumption("a row that is written", 200, 100, 1500, "bytes", "with its text, label and probabilities"),
}  # fmt: skip
Values = Mapping[str, float]


def measured() -> dict[str, Figure]:
    """The figures that everything is computed from."""
    gpu, programme = record("gpu.json"), record("tutorial-1b.json")
    steps = {rows: gpu["cases"][f"step-1b-{rows}"] for rows in (4, 16, 64)}
    seconds = {rows: statistics.median(step["seconds"][LORAFT]) for rows, step in steps.items()}
    operations = [step["loraft_operations"] for step in steps.values()]
    slope, fixed = statistics.linear_regression(operations, list(seconds.values()))
    (training,), parts, whole = programme["trainings"], programme["parts"], programme["whole"]
    first_steps = parts["training steps"] - training["steps"] * training["step_seconds"]
    others = sum(parts[name] for name in ("training steps", *OF_ADAPTERS, *OF_TRAINING))
    tutorial = "tutorial-1b.json"
    made = {
        "step_1": (
            "a training step of one adapter, 4 rows", seconds[4], "s",
            "gpu.json: cases.step-1b-4.seconds.loraft, median",
        ),
        "step_8": (
            "a training step of eight adapters in one pass, 4 rows each", training["step_seconds"], "s",
            f"{tutorial}: trainings[0].step_seconds",
        ),
        "step_fixed": (
            "of a step, the part that does not grow with its operations", fixed, "s",
            "gpu.json: cases.step-1b-{4,16,64}, medians over loraft_operations, a straight line's intercept",
        ),
        "step_speed": (
            "speed of the part that does", 1 / slope / 1e12, "TFLOP/s", "the same line's slope, 1 over it"
        ),
        "steps": ("steps of a training", programme["sizes"]["whole_steps"], "", f"{tutorial}: sizes.whole_steps"),
        "of_adapters": (
            "evaluations, test split, saving, building and checking of eight adapters",
            sum(whole[name] for name in OF_ADAPTERS), "s", f"{tutorial}: whole, {', '.join(OF_ADAPTERS)}",
        ),
        "of_training": (
            "beginning of a training or joint pass: checking, capturing and compiling",
            sum(parts[name] for name in OF_TRAINING) + first_steps, "s",
            f"{tutorial}: parts, {', '.join(OF_TRAINING)}; training steps over steps x step_seconds",
        ),
        "once": (
            "rest of the sweep, once a process", programme["cases"]["ranks"]["case_seconds"] - others, "s",
            f"{tutorial}: cases.ranks.case_seconds less the parts above",
        ),
        "rows_per_second": (
            "rows that the card scores", gpu["cases"]["zero-shot-1b"]["rows_per_second"], "rows/s",
            "gpu.json: cases.zero-shot-1b.rows_per_second",
        ),
    }  # fmt: skip
    return {key: Figure(*figure) for key, figure in made.items()}


@dataclass(frozen=True)
class Model:
    """Seconds of work on one GPU for a backbone."""

    size: str
    figures: Mapping[str, Figure]
    values: Values

    @property
    def times(self) -> float:
        """Weights of the layers, as a multiple of the measured backbone's."""
        return 1.0 if self.size == "1B" else growth("weights")

    @property
    def gigabytes(self) -> float:
        """Of the backbone in bfloat16."""
        return all_weights(SHAPES[self.size]) * BYTES_A_WEIGHT / 1e9

    def loading(self, workers: int) -> float:
        """Seconds until each of so many workers has read the backbone, all at the same time."""
        return self.gigabytes / min(self.values["read"], self.values["read_all"] / workers)

    def step(self, adapters: int) -> float:
        """Seconds of a training step of so many adapters in one pass.

        Between one and eight adapters, which are measured at 1B, and beyond, it is a straight line. At 8B the part that
        does not grow with the operations is an assumption, and the rest grows as the weights do.
        """
        one, eight, fixed = (self.figures[key].value for key in ("step_1", "step_8", "step_fixed"))
        small = one + (eight - one) / 7 * (adapters - 1)
        if self.size == "1B":
            return small
        return fixed * self.values["fixed"] + (small - fixed) * self.times

    def training(self, name: str, adapters: int) -> Unit:
        """The unit of a joint pass of so many adapters, or of one trial."""
        steps = self.figures["steps"].value
        beside = self.figures["of_adapters"].value / 8 * adapters * self.times
        work = steps * self.step(adapters) + beside
        return Unit(name, self.figures["of_training"].value, work, work * checkpoint_steps() / steps)

    def card(self) -> float:
        """Seconds that the card needs for one row."""
        return self.times / self.figures["rows_per_second"].value

    def host(self) -> float:
        """Seconds that the Python process needs for one row."""
        return 1 / self.values["host"]

    def a_row(self, processes: int) -> float:
        """Seconds for one row of one GPU that so many processes share.

        A process takes turns between its own work and the card; several overlap until the card has no pause.
        """
        return max(self.card(), (self.card() + self.host()) / processes)

    def computing(self, processes: int) -> float:
        """The part of its time in which the card computes; in the rest it waits for so many processes."""
        return self.card() / self.a_row(processes)

    def filling(self) -> int:
        """The fewest processes that leave the card no pause."""
        return -int(-(self.card() + self.host()) // self.card())


@cache
def checkpoint_steps() -> int:
    """Steps between two checkpoints in the tutorial's preset, which the measured programme has."""
    return resolve(preset="tutorial").train.eval_steps


@cache
def trials() -> tuple[Trial, ...]:
    """Of the sweep; its configs differ in rank and seed."""
    return tuple(
        Trial(f"r{rank}-s{seed}", {}, resolve(preset="tutorial", flags={"lora.r": rank, "seed": seed}))
        for seed in SEEDS for rank in RANKS
    )  # fmt: skip


@cache
def plan_units(plan: str, workers: int) -> tuple[tuple[Trial, ...], ...]:
    """The trials of each unit, as `loraft.studies.sweep.units` divides them.

    Args:
        plan: one pass a seed; planned, which is what `--engine ray` does with so many workers; or one by one.
    """
    joint, hands = ("off" if plan == "one by one" else "auto"), (1 if plan == "one pass a seed" else workers)
    return tuple(units_of(trials(), joint, workers=hands))


def sweep_units(model: Model, plan: str, workers: int) -> list[Unit]:
    """The units of 8 ranks x 5 seeds."""
    made = plan_units(plan, workers)
    return [model.training("+".join(trial.name for trial in unit), len(unit)) for unit in made]


def prediction_units(model: Model, processes: int) -> list[Unit]:
    """All rows in what a GPU does at a stretch, which is a shard for each of its processes: it fails with all of them.

    The backbone is read when a worker starts, not here.
    """
    rows = int(model.values["shard"]) * processes
    sizes = [rows] * (ROWS // rows) + ([ROWS % rows] if ROWS % rows else [])
    return [Unit(f"shards {n}", 0.0, size * model.a_row(processes)) for n, size in enumerate(sizes)]


def cluster(model: Model, workers: int, what: str, units: int, *, spot: bool, processes: int = 1) -> Cluster:
    """So many GPUs with so many processes on each, on machines that stay or on those that are taken back.

    Each process keeps the backbone that it read, and in a sweep the encoded rows, from unit to unit. No more GPUs are
    started than there are units.
    """
    values = model.values
    ready = values["start"] + (model.figures["once"].value if what == "sweep" else 0.0)
    every = values["spot_every" if spot else "failure_every"] * HOUR
    restart = values["restart"] + ready + model.loading(processes)
    start = ready + model.loading(min(workers, units) * processes)
    return Cluster(workers, start, every, restart, values["sigma"], RETRIES[what])
