"""What fused layers save beside upstream's own, in turns over the same batches: forward and backward, and scoring.

    python benchmarks/layers.py [--data FOLDER] [--rounds 60] [--profile]

Upstream's layers train with `prefix_attention`, and score padded batches of 8,192 tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import cases
import torch
import typer
from speed import FLAGS
from targets import LORAFT
from timing import in_turns, ratios
from torch.profiler import ProfilerActivity, profile
from transformers.utils import logging as transformers_logging

from loraft.cli.console import results_follow, say, start_command
from loraft.config.resolve import resolve
from loraft.engine import fused_layer, lora_linear, prefix_attention, scorer
from loraft.engine.collator import make_rows, pack
from loraft.engine.loss import BatchMethod, answer_loss_sum
from loraft.models.adapter import add_adapter

UPSTREAM = "upstream's layers"


def passes(bench: cases.Bench, batch: int, rounds: int, profiled: bool) -> dict[str, Any]:
    """Seconds of a forward and a backward pass of a training batch, by round; or where loraft's time goes."""
    drawn = cases.some_rows(bench.train, batch * rounds, bench.config.seed)
    prompts = [prompt.ids for prompt in bench.encoder.encode(drawn.texts)]
    rows = make_rows(prompts, drawn.labels.tolist(), bench.encoder.completions_K, "none")
    batches = [pack(rows[i * batch : (i + 1) * batch]) for i in range(rounds)]
    model = add_adapter(cases.sharing_weights(bench.base), bench.config.lora, seed=bench.config.seed).train()

    def run(method: BatchMethod, number: int) -> None:
        model.zero_grad()
        answer_loss_sum(model, batches[number], bench.base.dtype, method=method).backward()

    with prefix_attention.enabled(model.get_base_model()), lora_linear.enabled(model), fused_layer.enabled(model):
        made = {UPSTREAM: lambda n: run(BatchMethod.ATTENTION, n), LORAFT: lambda n: run(BatchMethod.FUSED, n)}
        in_turns(made, 3, bench.device)
        if profiled:
            with profile(activities=[ProfilerActivity.CPU]) as found:
                in_turns({LORAFT: made[LORAFT]}, rounds, bench.device)
            return shares(found)
        return in_turns(made, rounds, bench.device)[0]


def shares(found: profile) -> dict[str, float]:
    """Milliseconds that a profile spent in matrix products, in other operations on tensors, and between them."""
    spent = {"matrix products": 0.0, "other operations": 0.0, "calls between them": 0.0}
    for event in found.key_averages():
        product = event.key.removesuffix("_").removeprefix("aten::") in ("mm", "addmm", "bmm", "baddbmm")
        kind = "matrix products" if product else "other operations" if "aten::" in event.key else "calls between them"
        spent[kind] += event.self_cpu_time_total / 1000
    return spent


@contextmanager
def without() -> Iterator[None]:
    """Scoring by upstream's layers inside the block."""
    own = fused_layer.supports
    fused_layer.supports = lambda model: False
    try:
        yield
    finally:
        fused_layer.supports = own


def scores(bench: cases.Bench, rows: int, shots: int, rounds: int) -> dict[str, Any]:
    """Scores of test rows, by round."""
    texts = cases.some_rows(bench.test, rows, bench.config.seed).texts
    shown = cases.demonstrations(bench, shots) if shots else ()
    ids = [prompt.ids for prompt in bench.encoder.encode(texts, shown)]
    completions_K = bench.encoder.completions_K

    def upstream(number: int) -> Any:
        with without():
            return scorer.score(bench.base, ids, completions_K, batch_tokens=8192)

    made = {UPSTREAM: upstream, LORAFT: lambda number: scorer.score(bench.base, ids, completions_K)}
    in_turns(made, 1, bench.device)
    return in_turns(made, rounds, bench.device)[0]


def main(
    data: Annotated[
        str, typer.Option(help="feedback, or a folder with train, validation and test.jsonl.")
    ] = "feedback",
    rounds: Annotated[int, typer.Option(min=1)] = 60,
    profiled: Annotated[bool, typer.Option("--profile", help="Say where the time of a pass goes instead.")] = False,
) -> None:
    """Measure and print."""
    transformers_logging.set_verbosity_error()
    config = resolve(flags={**FLAGS, "data.source": data, "model.device": "cpu"})
    start_command(config, verbose=False)
    results_follow()
    bench = cases.bundled(config)
    if profiled:
        for batch in (4, 16):
            spent = passes(bench, batch, rounds, True)
            each = ", ".join(f"{name} {time / rounds:.1f} ms" for name, time in spent.items())
            say(f"a pass of batch {batch}, in PyTorch's profiler: {each}")
        return
    measured = {f"forward and backward, batch {batch}": passes(bench, batch, rounds, False) for batch in (4, 16)}
    measured["96 rows, zero-shot"] = scores(bench, 96, 0, max(5, rounds // 6))
    measured["64 rows, 8 shots"] = scores(bench, 64, 8, max(5, rounds // 6))
    for what, seconds in measured.items():
        ratio = ratios(seconds)[UPSTREAM]
        median = {name: f"{torch.tensor(times).median():.3f} s" for name, times in seconds.items()}
        say(f"{what}: {ratio['median']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f}); {median}")


if __name__ == "__main__":
    typer.run(main)
