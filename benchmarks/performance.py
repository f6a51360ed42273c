"""Writes docs/performance.md and its plots from what speed.py and gpu.py measured; no figure is written by hand.

python benchmarks/performance.py [RESULT.json ...] [--docs docs]
"""

import json
import statistics
from pathlib import Path
from typing import Annotated, Any

import typer
from targets import HARNESS, LORAFT, RECIPE, TARGETS, TRL, TRL_BEST, WHAT

from loraft.display.figure import drawing

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"
LINES = {RECIPE: ("s--", "0.45"), TRL: ("^:", "0.25"), HARNESS: ("D-.", "0.25"), LORAFT: ("o-", "0.0")}
CURVES = {
    "evaluation_rows": ("evaluation", "test rows"),
    "evaluation_prompt": ("evaluation", "tokens of the prompt"),
    "step_batch": ("training step", "rows of the batch"),
    "step_prompt": ("training step", "tokens of the prompt"),
    "sweep_ranks": ("sweep, end to end", "ranks"),
}
HEAD = """# Speed

Made by `python benchmarks/performance.py` from the JSON files in `benchmarks/results/`; `make bench` measures on this
machine and writes this page again.

A ratio says how many times as long as loraft a baseline took for the same work. Cases take turns in one process, on
the same frozen weights and the same rows, and each ratio is taken inside one round; the table gives the median over the
rounds, and the lowest and highest. `benchmarks/baselines.py` has the baselines in full:

- **tutorial's recipe**: right-padded batches, full LM head, a bare training loop; evaluation by `generate` of 16 tokens
  in batches of 8 (16 with demonstrations); in a sweep, one adapter after the other, each over a freshly loaded
  backbone. Random weights never end an answer early, so there all 16 tokens are generated.
- **TRL defaults**: TRL's SFTTrainer on prompt-completion rows, activation checkpointing and bf16 autocast on, as they
  are by default. **TRL at its best**: both off.
- **log-likelihood loop**: as in lm-evaluation-harness; full sequences, longest first, and one forward for all labels of
  a row where they differ in their last token only.

A training step is collating, forward, backward, clipping and the optimizer's step, for loraft and TRL inside their own
`train()`; all have the tutorial's LoRA (rank 8, alpha 32) without dropout. Where a baseline would take minutes it does
a part in each round, another one in the next, and its time is scaled: one of eight ranks in a sweep, on a CPU 8 of the
rows in an evaluation of the large shape, on a GPU one row in 32 (generation) or in 8 (the loop), and of 1,000
predictions as many as the JSON says. The Llama shapes have random weights, and their token ids come from the bundled
tokenizer. oneDNN, which on a CPU generates code for every new shape of a product, may keep 4,096 pieces of it here
instead of 1,024: as much for four tools in one process as each has alone. On a GPU the batches of a training step come
again, as sizes do in a long training, and loraft has captured and compiled what it captures and compiles before a round
counts; in a sweep all of that counts. There the memory of one tool includes what the others of the case hold: adapters,
optimizers, CUDA graphs.

What several GPUs would take is not measured here: [What scale costs](scaling.md) estimates it.
"""


def page(records: list[dict[str, Any]], plots: list[str]) -> str:
    """The page: a section for each machine."""
    parts = [HEAD]
    for record, plot in zip(records, plots, strict=True):
        parts += [_section(record), *([f"![ratios and scaling]({plot})\n"] if plot else [])]
    return "\n".join(parts)


def _section(record: dict[str, Any]) -> str:
    device, environment = record["machine"], record["environment"]
    cores = f", {device['threads']} threads" if device["device"] == "cpu" else ""
    packages = environment["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "transformers", "peft", "trl"))
    script = "gpu" if device["device"] == "cuda" else "speed"
    shape = " --shape 8b" if any("-8b-" in name for name in record["cases"]) else ""
    where = shape + ("" if record["data"] == "feedback" else " --data FOLDER")
    card = f"driver {device['driver']}, " if "driver" in device else ""
    lines = [
        f"## {device['name']}{cores}", "",
        f"`python benchmarks/{script}.py{where}`, rows of {record['data']}, commit {environment['git_commit']}, "
        f"{environment['time'][:10]}, {card}{versions}.", "",
        "| what | backbone | against | target | measured | lowest to highest | rounds |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    targets = TARGETS[device["device"]]
    for name, case in record["cases"].items():
        for baseline, ratio in case.get("ratios", {}).items():
            target = targets.get(name, {}).get(baseline)
            missed = " (missed)" if target is not None and ratio["median"] < target else ""
            lines.append(
                f"| {WHAT[name]} | {case['backbone']} | {baseline} | {f'{target:g}x{missed}' if target else ''} "
                f"| **{ratio['median']:.2f}x** | {ratio['low']:.2f}x to {ratio['high']:.2f}x "
                f"| {len(case['seconds'][LORAFT])} |"
            )
    lines += ["", *_seconds(record), *_work(record), *_peak(record), *_launches(record), *_memory(record)]
    missing = []
    for name in record["not_measured"]:
        error = record["cases"].get(name, {}).get("error")
        missing.append(name if error is None else f"{name} ({error})")
    if missing:
        lines += [f"Not measured: {', '.join(missing)}.", ""]
    return "\n".join(lines)


def _seconds(record: dict[str, Any]) -> list[str]:
    cases = {name: case for name, case in record["cases"].items() if "seconds" in case}
    names = [name for name in (LORAFT, RECIPE, TRL, TRL_BEST, HARNESS) if any(name in c["seconds"] for c in cases.values())]  # noqa: E501  # fmt: skip
    lines = ["Median seconds, and on a GPU the most memory in use:", "",
             f"| what | work | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]  # fmt: skip
    for name, case in cases.items():
        cells = []
        for tool in names:
            times, memory = case["seconds"].get(tool), case["peak_memory_mib"].get(tool)
            text = "" if times is None else f"{statistics.median(times):.3g}"
            cells.append(text + (f" ({memory:,} MiB)" if memory else ""))
        work = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in case["work"].items() if isinstance(value, int))  # noqa: E501  # fmt: skip
        lines.append(f"| {WHAT[name]}, {case['backbone']} | {work} | {' | '.join(cells)} |")
    return [*lines, ""]


def _work(record: dict[str, Any]) -> list[str]:
    """What shows that the tools did the same work."""
    lines = []
    for name, case in record["cases"].items():
        what = f"- {WHAT.get(name)}, {case.get('backbone')}: "
        if "first_losses" in case:
            losses = ", ".join(f"{baseline} {loss:.4f}" for baseline, loss in case["first_losses"].items())
            lines.append(f"{what}loss of the first step in nats a token: {losses}.")
        elif "largest_difference_nats" in case:
            lines.append(
                f"{what}label log-probabilities differ from the loop's by at most {case['largest_difference_nats']:.4f}"
                f" nats in {case['dtype']}; same label in {case['same_label_as_loop']:.1%} of the rows, the generated "
                f"one in {case['same_label_as_generated']:.1%} ({case['generated_no_label']:.1%} of the generated "
                "answers are no label)."
            )
    return ["The same work, checked:", "", *lines, ""] if lines else []


def _peak(record: dict[str, Any]) -> list[str]:
    peak = record["cases"].get("peak")
    shares = {name: case for name, case in record["cases"].items() if "share_of_peak" in case}
    if not peak or not shares:
        return []
    counted = "operations that PyTorch's `FlopCounterMode` counts in a step, without those of fused attention"
    if record["machine"]["device"] == "cuda":
        counted = "arithmetic of a step, 4 operations for each weight of the layers and each token"
    lines = [
        f"The machine's matrix-product peak, the best of some bf16 products of {peak['size']} x {peak['size']}, is "
        f"{peak['flop_per_second'] / 1e9:,.0f} GFLOP/s. Share of it that loraft's training steps reach, from the "
        f"{counted}:", "",
    ]  # fmt: skip
    for name, case in shares.items():
        lines.append(
            f"- {WHAT[name]}, {case['backbone']} in {case['dtype']}: {case['loraft_operations'] / 1e9:,.1f} GFLOP, "
            f"{case['share_of_peak']:.1%}."
        )
    return [*lines, ""]


def _launches(record: dict[str, Any]) -> list[str]:
    case = next((case for case in record["cases"].values() if "launches" in case), None)
    if case is None:
        return []
    lines = [
        f"One training step in PyTorch's profiler, {case['backbone']}:", "",
        "| tool | batch | kernel launches | graph launches | kernels that run | the GPU computes, ms |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for tool, batches in case["launches"].items():
        for batch, counted in batches.items():
            numbers = [f"{counted[key]:,}" for key in ("kernel_launches", "graph_launches", "kernels")]
            lines.append(f"| {tool} | {batch} | {' | '.join(numbers)} | {counted['busy_seconds'] * 1e3:.1f} |")
    return [*lines, ""]


def _memory(record: dict[str, Any]) -> list[str]:
    lines = []
    for name, case in record["cases"].items():
        if "expected_memory_mib" in case:
            parts = ", ".join(f"{key.replace('_', ' ')} {size:,}" for key, size in case["expected_memory_mib"].items())
            total, peak = sum(case["expected_memory_mib"].values()), case["peak_memory_mib"].get(LORAFT)
            lines.append(f"- {WHAT[name]}: expected {total:,} MiB ({parts}), measured {peak:,} MiB." if peak else "")
    return ["Memory, before anything runs and measured:", "", *filter(None, lines), ""] if any(lines) else []


def time_table(record: dict[str, Any]) -> list[str]:
    """The parts of the tutorial's programme beside the recipe's, and how these were measured."""
    parts = record["cases"].get("recipe", {}).get("recipe", [])
    recipe = {part["part"]: part["seconds"] * part["times"] for part in parts}
    measured, whole = record["parts"], record["whole"]
    lines = ["| part | loraft, s | whole programme, s | the recipe, s | times as long |", "|---|---|---|---|---|"]

    def line(name: str, seconds: float, scaled: float, theirs: float) -> str:
        cells = (f"{theirs:,.1f}", f"{theirs / scaled:.1f}x") if theirs and scaled else ("", "")
        return f"| {name} | {seconds:.1f} | {scaled:.1f} | {' | '.join(cells)} |"

    lines += [line(name, measured[name], whole[name], recipe.get(name, 0)) for name in whole]
    total = line("**together**", sum(measured.values()), sum(whole.values()), sum(recipe.values()))
    lines += [total, ""]
    for training in record["trainings"]:
        done = f"{training['steps']:,} of {record['sizes']['whole_steps']:,} steps"
        lines.append(f"- Measured training: {done}, the later ones at {training['step_seconds'] * 1e3:.1f} ms.")
    for part in parts:
        measured = f"{part['measured']}, {part['seconds']:.3g} s, {part['times']:,.10g} times"
        lines.append(f"- Of the recipe, {part['part']}: {measured}.")
    return lines


def programme_section(record: dict[str, Any]) -> str:
    """The section of tutorial-1b.json."""
    sizes, environment, device = record["sizes"], record["environment"], record["machine"]
    where, measured = "" if record["data"] == "feedback" else " --data FOLDER", "recipe" in record["cases"]
    return "\n".join([
        f"## The tutorial's programme at the {sizes['shape']} shape, {device['name']}", "",
        f"`python benchmarks/tutorial.py --shape {sizes['shape']}{where}`, rows of {record['data']}, commit "
        f"{environment['git_commit']}, {environment['time'][:10]}, torch {environment['packages']['torch']}. "
        f"Zero-shot, {', '.join(map(str, sizes['shots']))} shots, and ranks {', '.join(map(str, sizes['ranks']))} of "
        f"{sizes['whole_steps']:,} steps each, evaluated every 500 steps and on the test split, in one process. The "
        "second column is what was measured; the third is the whole programme, where a training ended before its last "
        "step. "
        + ("The recipe was measured in parts, which are scaled." if measured else "The recipe was not measured here."),
        "", *time_table(record), "",
    ])  # fmt: skip


def draw(record: dict[str, Any], path: Path) -> None:
    """Ratios with their spread and the targets; below, where it was measured, how time grows."""
    curves = record["cases"].get("scaling", {}).get("curves", {})
    rows = [(name, baseline, ratio) for name, case in record["cases"].items() if "ratios" in case
            for baseline, ratio in case["ratios"].items()]  # fmt: skip
    targets = TARGETS[record["machine"]["device"]]
    below = -(-len(curves) // 2)
    with drawing(path, (7.2, 0.9 + 0.24 * len(rows) + 2.6 * below)) as figure:
        grid = figure.add_gridspec(1 + below, 2, height_ratios=[max(1, 0.1 * len(rows))] + [1] * below)
        axes = figure.add_subplot(grid[0, :])
        for place, (name, baseline, ratio) in enumerate(rows):
            axes.barh(place, ratio["median"], color="0.75" if baseline == RECIPE else "0.5", height=0.7)
            axes.plot([ratio["low"], ratio["high"]], [place, place], "-", color="0.0", linewidth=1)
            if target := targets.get(name, {}).get(baseline):
                axes.plot(target, place, "|", color="0.0", markersize=11, markeredgewidth=2)
        axes.set_yticks(range(len(rows)), [f"{WHAT[n]}, {record['cases'][n]['backbone']}\nagainst {r}" for n, r, _ in rows], fontsize=5)  # noqa: E501  # fmt: skip
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xscale("log")
        axes.set_xlabel("times as long as loraft (median; thin line: lowest to highest; tick: target)")
        axes.axvline(1, color="0.0", linewidth=0.8)
        axes.set_title(f"Time of the baselines over loraft's, {record['machine']['name']}")
        for number, (name, curve) in enumerate(curves.items()):
            axes = figure.add_subplot(grid[1 + number // 2, number % 2])
            for tool, seconds in curve["seconds"].items():
                mark, shade = LINES[tool]
                axes.plot(curve["x"], seconds, mark, color=shade, markersize=4, label=tool)
            what, over = CURVES[name]
            axes.set(xlabel=over, ylabel=f"{what} (s)", ylim=(0, None))
            axes.legend(fontsize=6)


def main(
    results: Annotated[
        list[Path] | None, typer.Argument(help="speed.json, gpu.json and gpu-8b.json, if there.")
    ] = None,
    docs: Annotated[Path, typer.Option(help="Folder of the page and its plots.")] = DOCS,
    programme: Annotated[Path | None, typer.Option(help="Of tutorial.py --shape.")] = RESULTS / "tutorial-1b.json",
) -> None:
    """Write performance.md and a PNG for each machine."""
    paths = results or [path for name in ("speed", "gpu", "gpu-8b") if (path := RESULTS / f"{name}.json").exists()]
    if not paths:
        raise SystemExit(f"{RESULTS}: nothing is measured yet (no speed.json); python benchmarks/speed.py measures")
    records, plots = [], []
    for path in paths:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["smoke"]:
            raise SystemExit(f"{path}: was made with --smoke, whose figures mean nothing; measure without it")
        measured = any("ratios" in case for case in record["cases"].values())
        plots.append(f"performance-{path.stem}.png" if measured else "")
        if measured:
            draw(record, docs / plots[-1])
        records.append(record)
    text = page(records, plots)
    if programme is not None and programme.exists():
        record = json.loads(programme.read_text(encoding="utf-8"))
        if record["smoke"]:
            raise SystemExit(f"{programme}: was made with --shape tiny, whose figures mean nothing; measure --shape 1b")
        text += "\n" + programme_section(record)
    (docs / "performance.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
