"""How fast loraft is beside the tutorial's recipe, TRL's defaults and a log-likelihood loop.

    python benchmarks/speed.py [--data FOLDER] [--only step-1b-4,sweep] [--rounds 5] [--budget SECONDS] [--smoke]

Cases take turns in one process, on the same weights and rows; a ratio is taken inside a round, and its median,
lowest and highest value over the rounds are kept, with all raw times. Before its ratios count, a case checks that the
tools did the same work. `performance.py` makes docs/performance.md from the JSON. The last case
takes minutes a round and begins with `--budget 1200` only.
"""

import gc
import os
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cases
import torch
import typer
from cases import Bench
from measuring import measure, write
from shapes import LLAMA_1B
from targets import HARNESS, LORAFT, RECIPE, TRL, TRL_BEST
from timing import in_turns, launches, matmul_peak, operations
from transformers.utils import logging as transformers_logging

from loraft.bundled import bundled_backbones
from loraft.cli.console import results_follow, start_command
from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.data.dataset import load_data
from loraft.errors import Note

OUT = Path(__file__).parent / "results" / "speed.json"
RANKS = (1, 2, 4, 8, 16, 32, 64, 128)
# the tutorial's adapter; without dropout and warm-up, so that losses can be compared
FLAGS = {"lora.r": 8, "lora.lora_alpha": 32, "lora.target_modules": "default", "train.learning_rate": 2e-4,
         "train.warmup_steps": 0}  # fmt: skip
SMALL_SHAPE = {**LLAMA_1B, "vocab_size": 8192, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
               "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """How much of everything is measured; the defaults fit `make bench` into a quarter of an hour on two cores."""

    rounds: int = 5
    step_rounds: tuple[int, int] = (30, 12)  # of steps of 4 and of 16 rows, whose shapes have to come back
    rows: int = 96  # of an evaluation
    rows_1b: int = 16
    shot_rows: int = 64
    sweep_ranks: tuple[int, ...] = RANKS
    sweep_batch: int = 16
    sweep_steps: int = 10
    sweep_rows: int = 64
    one_by_one: int = 12  # sentences of a round, each a `generate`
    looped: int = 128
    peak: int = 4096  # of the square matrices
    scale_rounds: int = 2
    scale_rows: tuple[int, ...] = (8, 32, 128)
    scale_batches: tuple[int, ...] = (1, 4, 16)
    scale_shots: tuple[int, ...] = (0, 2, 8)
    scale_ranks: tuple[int, ...] = (1, 4)
    shape: str = "Llama-3.2-1B shape"
    # Of training steps on a GPU: so many batches come again and again, and loraft has seen all of them so many times
    # before a round counts, so that the time is that of a training's steps, without capturing and compiling.
    distinct: int = 0  # a new batch in every round
    passes: int = 0
    largest_batch: int = 64


SMOKE = Sizes(1, (1, 1), 4, 2, 2, (1, 2), 2, 1, 4, 1, 2, 128, 1, (2, 4), (1, 2), (0, 1), (1,), "tiny random Llama")


class Suite:
    """The cases over one device; a backbone is loaded when the first case asks for it."""

    def __init__(
        self, config: Config, sizes: Sizes, device: torch.device, benches: Mapping[str, Bench] | None = None
    ) -> None:
        self.config, self.sizes, self.device = config, sizes, device
        self._benches = dict(benches or {})

    def bench(self, name: str) -> Bench:
        """The bundled or the large backbone; only one of them is in memory."""
        if name not in self._benches:
            self._benches.clear()
            gc.collect()
            if name == "bundled":
                self._benches[name] = cases.bundled(self.config)
            else:
                shape = LLAMA_1B if self.sizes.shape == Sizes.shape else SMALL_SHAPE
                self._benches[name] = cases.random_llama(self.config, shape, self.device)
        return self._benches[name]

    def step(self, backbone: str, batch: int, *, rivals: Sequence[str], rounds: int) -> dict[str, Any]:
        """Training steps, their equal losses, and the operations that loraft's take."""
        bench, sizes = self.bench(backbone), self.sizes
        names, distinct = [*rivals, LORAFT], sizes.distinct or rounds
        with cases.steps(bench, batch, sizes.passes * distinct + rounds, names, distinct=distinct) as made:
            passes = {name: sizes.passes if name == LORAFT else min(1, sizes.passes) for name in names}
            before = {name: [made[name](number) for number in range(passes[name] * distinct)] for name in names}
            seconds, losses, memory = in_turns(made, rounds, bench.device)
            if sizes.passes:  # a step that is captured in a CUDA graph cannot be counted
                work = cases.step_arithmetic(bench, batch, distinct)
            else:
                work = {"operations": operations(lambda counter: made[LORAFT](rounds, around=counter))}
        first = {name: (before[name] or losses[name])[0] for name in names}
        limit = (1e-3 if bench.base.dtype == torch.float32 else 1e-2) * max(1.0, first[LORAFT])
        _same("loss of the first step", first, lambda loss: abs(loss - first[LORAFT]) <= limit)
        operations_of = {"loraft_operations": work.pop("operations")}
        return {
            "backbone": self.name_of(backbone), "dtype": str(bench.base.dtype).removeprefix("torch."),
            "work": {"batch": batch, **work}, "first_losses": first, "seconds": seconds, "peak_memory_mib": memory,
            **operations_of,
        }  # fmt: skip

    def launches(self, backbone: str, batches: Sequence[int]) -> dict[str, Any]:
        """What loraft and TRL at its best launch in a step, and how long the GPU computes in it."""
        bench, names, rounds = self.bench(backbone), [TRL_BEST, LORAFT], max(1, self.sizes.passes)
        found: dict[str, Any] = {}
        for batch in batches:
            with cases.steps(bench, batch, rounds, names, distinct=1) as made:
                for name in names:
                    for number in range(rounds):
                        made[name](number)
                    counted = launches(partial(made[name], rounds))
                    found.setdefault(name, {})[str(batch)] = counted
        return {"backbone": self.name_of(backbone), "work": {"batches": list(batches)}, "launches": found}

    def evaluation(
        self, backbone: str, rows: int, shots: int = 0, shares: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """Evaluation; the log-likelihoods must be loraft's, the generated answers are compared and told."""
        bench = self.bench(backbone)
        large = backbone == "1b"
        # full log-probabilities of a large vocabulary: on a CPU a small batch spares the loop memory traffic
        shares = shares or (dict.fromkeys((RECIPE, HARNESS), rows // 8) if large and rows > 8 else {})
        made = cases.evaluations(bench, rows, shots, harness_batch=8 if large else 16, shares=shares)
        if not large:
            in_turns(made, 1, bench.device)
        measured, results, memory = in_turns(made, self.sizes.rounds, bench.device)
        seconds = {name: [t * shares.get(name, 1) for t in times] for name, times in measured.items()}
        ours_NK, loop_NK = results[LORAFT][0], results[HARNESS][0]
        same_NK = ours_NK[cases.share_of(HARNESS, 0, shares)]
        limit = 1e-3 if bench.base.dtype == torch.float32 else 0.5  # the loop's log-softmax is in bf16 then
        difference = cases.largest_difference(same_NK, loop_NK)
        _same("log-probabilities of the labels", {HARNESS: difference}, lambda value: value <= limit)
        ours = ours_NK.argmax(1)
        generated = results[RECIPE][0]
        return {
            "backbone": self.name_of(backbone), "dtype": str(bench.base.dtype).removeprefix("torch."),
            "work": {"rows": rows, "shots": shots, "one_in_so_many_rows_in_a_round": shares},
            "rows_per_second": round(rows / statistics.median(seconds[LORAFT]), 1),
            "largest_difference_nats": difference,
            "same_label_as_loop": _share(same_NK.argmax(1).tolist(), loop_NK.argmax(1).tolist()),
            "same_label_as_generated": _share(ours[cases.share_of(RECIPE, 0, shares)].tolist(), generated),
            "generated_no_label": generated.count(None) / len(generated),
            "seconds": seconds, "peak_memory_mib": memory,
        }  # fmt: skip

    def sweep(self, *, trl: str = TRL, rounds: int | None = None, warm_up_steps: int | None = None) -> dict[str, Any]:
        """A sweep from nothing to the table, scaled down in steps and rows."""
        sizes, config = self.sizes, self.scaled_down()
        share = len(sizes.sweep_ranks)  # baselines run one rank a round
        with cases.sweeps_of(config, sizes.sweep_ranks, [RECIPE, trl, LORAFT], share, warm_up_steps) as made:
            measured, _, memory = in_turns(made, rounds or sizes.rounds, self.device)
        seconds = {name: [t * (1 if name == LORAFT else share) for t in times] for name, times in measured.items()}
        work = {"ranks": len(sizes.sweep_ranks), "steps": sizes.sweep_steps, "batch": sizes.sweep_batch,
                "rows": sizes.sweep_rows,
                "ranks_of_baselines_in_a_round": 1}  # fmt: skip
        return {"backbone": self.name_of("bundled"), "work": work, "seconds": seconds, "peak_memory_mib": memory}

    def predict(self) -> dict[str, Any]:
        """A thousand lines; each tool's time is scaled from as many as it answered."""
        sizes, texts = self.sizes, load_data(self.config, "test").texts
        answered = {RECIPE: sizes.one_by_one, HARNESS: sizes.looped, LORAFT: cases.LINES}
        with cases.predictions(self.scaled_down(), texts, one_by_one=sizes.one_by_one, looped=sizes.looped) as made:
            measured, _, memory = in_turns(made, sizes.rounds, self.device)
        seconds = {name: [1000 * t / answered[name] for t in times] for name, times in measured.items()}
        work = {"lines": 1000, "answered_in_a_round": answered}
        return {"backbone": self.name_of("bundled"), "work": work, "seconds": seconds, "peak_memory_mib": memory}

    def scaling(self) -> dict[str, Any]:
        """Median seconds over rows, batch, prompt length and number of ranks."""
        bench, sizes = self.bench("bundled"), self.sizes
        rounds, trio = sizes.scale_rounds, [RECIPE, TRL, LORAFT]
        names = ("evaluation_rows", "step_batch", "evaluation_prompt", "step_prompt", "sweep_ranks")
        curves: dict[str, Any] = {name: {"x": [], "seconds": {}} for name in names}

        def add(curve: str, x: float, made: cases.Cases, rounds: int) -> None:
            curves[curve]["x"].append(x)
            for name, times in in_turns(made, rounds, bench.device)[0].items():
                curves[curve]["seconds"].setdefault(name, []).append(statistics.median(times))

        for rows in sizes.scale_rows:
            add("evaluation_rows", rows, cases.evaluations(bench, rows), rounds)
        for batch in sizes.scale_batches:
            with cases.steps(bench, batch, rounds, trio) as made:
                add("step_batch", batch, made, rounds)
        for shots in sizes.scale_shots:
            text = bench.test.texts[0]
            tokens = len(bench.encoder.encode([text], cases.demonstrations(bench, shots) if shots else ())[0].ids)
            add("evaluation_prompt", tokens, cases.evaluations(bench, sizes.scale_rows[0], shots), rounds)
            with cases.steps(bench, 4, rounds, [RECIPE, LORAFT], shots) as made:
                add("step_prompt", tokens, made, rounds)
        for count in sizes.scale_ranks:
            with cases.sweeps_of(self.scaled_down(), RANKS[:count], [RECIPE, LORAFT]) as made:
                add("sweep_ranks", count, made, 1)
        work = {
            "prompt_rows": sizes.scale_rows[0],
            "prompt_batch": 4,
            "sweep_steps": sizes.sweep_steps,
            "sweep_batch": sizes.sweep_batch,
        }
        return {"backbone": self.name_of("bundled"), "work": work, "curves": curves}

    def peak(self) -> dict[str, Any]:
        """The machine's matrix-product peak, in the dtype that the training cases run in."""
        return {"flop_per_second": matmul_peak(self.device, torch.bfloat16, self.sizes.peak), "size": self.sizes.peak}

    def scaled_down(self) -> Config:
        """The config of a sweep's trials: few steps, few rows."""
        batch, steps, rows = self.sizes.sweep_batch, self.sizes.sweep_steps, self.sizes.sweep_rows
        train = {"per_device_train_batch_size": batch, "max_steps": steps, "eval_steps": steps}
        data = {"max_train_rows": batch * steps, "max_eval_rows": rows, "max_test_rows": rows}
        return self.config.model_copy(update={
            "train": self.config.train.model_copy(update=train), "data": self.config.data.model_copy(update=data),
            "eval": self.config.eval.model_copy(update={"bootstrap_samples": 100}),
        })  # fmt: skip

    def name_of(self, backbone: str) -> str:
        """The backbone in words."""
        own = backbone == "bundled" and self.config.model.name in bundled_backbones()
        return self.config.model.name if own else self.sizes.shape


def all_cases(suite: Suite) -> dict[str, Callable[[], dict[str, Any]]]:
    """All cases by name, in an order that loads each backbone once."""
    sizes = suite.sizes
    steps_4, steps_16 = (max(sizes.rounds, rounds) for rounds in sizes.step_rounds)
    return {
        "peak": suite.peak,
        "step-4": lambda: suite.step("bundled", 4, rivals=[RECIPE, TRL, TRL_BEST], rounds=steps_4),
        "step-16": lambda: suite.step("bundled", 16, rivals=[RECIPE, TRL, TRL_BEST], rounds=steps_16),
        "zero-shot": lambda: suite.evaluation("bundled", sizes.rows),
        "few-shot": lambda: suite.evaluation("bundled", sizes.shot_rows, shots=8),
        "predict": suite.predict,
        "sweep": suite.sweep,
        "scaling": suite.scaling,
        "step-1b-4": lambda: suite.step("1b", 4, rivals=[RECIPE, TRL], rounds=sizes.rounds),
        "zero-shot-1b": lambda: suite.evaluation("1b", sizes.rows_1b),
        "step-1b-16": lambda: suite.step("1b", 16, rivals=[RECIPE, TRL], rounds=sizes.rounds),
    }


def _same(what: str, values: dict[str, float], accepted: Callable[[float], bool]) -> None:
    if not all(map(accepted, values.values())):
        raise SystemExit(f"{what}: the tools do not do the same work (got {values})")


def _share(left: list[Any], right: list[Any]) -> float:
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(left)


def main(
    data: Annotated[
        str, typer.Option(help="feedback, or a folder with train, validation and test.jsonl.")
    ] = "feedback",
    only: Annotated[str, typer.Option(help="Cases, comma-separated; all by default.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of every case, at least 5 for a published figure.")] = 5,
    budget: Annotated[float, typer.Option(help="Seconds after which no further case begins.")] = 660,
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny sizes: only to see that all of it runs.")] = False,
    out: Annotated[Path, typer.Option()] = OUT,
) -> None:
    """Measure, and write OUT."""
    # for four tools in one process as much as each has by itself; read at the first product
    os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = str(4 * 1024)
    transformers_logging.set_verbosity_error()
    config = resolve(flags={**FLAGS, "data.source": data, "model.device": "cpu"})
    start_command(config, verbose=False)
    results_follow()
    warnings.filterwarnings("ignore", category=Note)
    suite = Suite(config, SMOKE if smoke else Sizes(rounds=rounds), torch.device("cpu"))
    known = all_cases(suite)
    chosen = only.split(",") if only else list(known)
    if unknown := [name for name in chosen if name not in known]:
        raise SystemExit(f"--only: no such case (got {', '.join(unknown)}); there are {', '.join(known)}")
    picked = {name: known[name] for name in known if name in chosen}
    measure(picked, budget, lambda result: write(out, asdict(suite.sizes), data, suite.device, result, smoke=smoke))


if __name__ == "__main__":
    typer.run(main)
