"""The programme of a fine-tuning tutorial on one backbone: zero-shot, few-shot, LoRA, QLoRA and a sweep over ranks.

    python benchmarks/tutorial.py --model FOLDER_OR_GGUF [--data FOLDER] [--steps 60] [--test-rows 400] ...
    python benchmarks/tutorial.py --shape 1b [--data FOLDER] [--steps 5000] [--budget SECONDS]

Without --data the rows are the bundled ones. All runs in one process; the JSON is written after every case.

With --model it tells scores. A finished case is not run again: the same command goes on after an interruption. The
default limits suit a backbone of 135 million weights on two cores (docs/smollm2.md).

With --shape it tells where the time goes: the tutorial's zero-shot, 1, 2, 4 and 8 shots, and eight ranks of 5,000 steps
of 4 rows, with evaluations and test split, by loraft on random weights of that shape, with the bundled tokenizer. The
tutorial's own way is measured in parts, which are scaled to the whole. A training that the budget ends, or of fewer
--steps, is scaled to the whole programme, too. The tables on stdout are Markdown.
"""

import json
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import cases as backbones
import typer
from measuring import measure, write
from performance import time_table
from programme import Parts, recipe_time
from shapes import LLAMA_1B
from speed import SMALL_SHAPE
from transformers.utils import logging as transformers_logging

from loraft.cli.console import results_follow, say, start_command
from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.data.dataset import load_data
from loraft.errors import Note
from loraft.models.device import pick_device
from loraft.models.load import build
from loraft.runs.atomic_files import write_json
from loraft.runs.environment import environment
from loraft.runs.records import as_json
from loraft.studies.fewshot.study import fewshot
from loraft.studies.sweep.runner import sweep
from loraft.training.pipeline import train

STARTED = time.perf_counter()

RESULTS = Path(__file__).parent / "results"
RESULTS_FILES = {"fewshot": "fewshot.json", "train": "metrics.json", "sweep": "sweep.json"}
CONFIG_FILES = {"fewshot": "fewshot.yaml", "train": "config.yaml"}  # a sweep goes on without --resume


SHAPES = {"1b": LLAMA_1B, "tiny": SMALL_SHAPE}
STEPS, EVALUATE_EVERY = 5000, 500  # in the tutorial
TO_FINISH = 60  # seconds after the budget for what comes after a training
FOR_THE_RECIPE = 90.0  # seconds of the budget


class Shape(StrEnum):
    """Of random weights."""

    ONE = "1b"
    TINY = "tiny"


def run_case(command: str, folder: Path, overrides: list[str], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the results of one loraft command, which is run or continued if the folder does not hold them yet."""
    results = folder / RESULTS_FILES[command]
    if not results.exists():
        begun = command in CONFIG_FILES and (folder / CONFIG_FILES[command]).exists()
        config = resolve(overrides=overrides, flags={**flags, "output": str(folder.parent), "name": folder.name})
        start_command(config, verbose=False)
        results_follow()
        run_command(command, config, resume=begun)
    content: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    return content


def run_command(command: str, config: Config, *, resume: bool = False) -> None:
    """Does what the command does, but for what it prints."""
    if command == "fewshot":
        fewshot(config, resume=resume, tell=say)
    elif command == "train":
        train(config, resume=resume)
    else:
        sweep(config, tell=say)


def scored(name: str, report: dict[str, Any], seconds: float, trainable: int = 0) -> dict[str, Any]:
    """Returns one row of the table from an evaluation's report."""
    return {
        "name": name, "accuracy": report["accuracy"], "macro_f1": report["macro_f1"],
        "interval": report["intervals"]["accuracy"], "n": report["n"], "trainable": trainable, "seconds": seconds,
    }  # fmt: skip


def fewshot_rows(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for each baseline, and for each number of demonstrations."""
    names = {None: "baseline: {}", 0: "zero-shot"}
    return [
        scored(names.get(draw["shots"], "{1}-shot").format(draw["model"], draw["shots"]), draw, draw["seconds"])
        for draw in study["draws"]
    ]


def train_rows(name: str, run: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of a run before and after training."""
    train = run["train"]
    return [
        scored(f"{name}, before", run["before"], run["before"]["seconds"]),
        scored(f"{name}, after", run["after"], train["seconds"], train["parameters"]["trainable"]),
    ]


def sweep_rows(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for each rank."""
    return [
        scored(f"sweep, rank {trial['settings']['lora.r']}", trial, trial["seconds"], trial["trainable_parameters"])
        for trial in sweep["trials"]
        if trial["status"] == "finished"
    ]


def markdown(record: dict[str, Any]) -> str:
    """Returns the table of all finished cases."""
    lines = ["| | accuracy | 95 % interval | macro-F1 | trained weights | seconds |", "|---|---|---|---|---|---|"]
    for row in (row for case in record["cases"].values() for row in case["rows"]):
        low, high = row["interval"]
        weights = f"{row['trainable']:,}" if row["trainable"] else ""
        lines.append(
            f"| {row['name']} | {row['accuracy']:.3f} | {low:.3f} to {high:.3f} | {row['macro_f1']:.3f} | {weights} | "
            f"{row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def by_score(model: str, data: str, settings: list[str], out: Path | None, folder: Path, asked: dict[str, Any]) -> None:
    """Runs the cases that are missing, writes OUT after each, prints the table of scores."""
    name = asked["backbone"]
    out = out or RESULTS / f"tutorial-{name}.json"
    record: dict[str, Any] = {**asked, "environment": {}, "cases": {}}
    if out.exists():
        record = json.loads(out.read_text(encoding="utf-8"))
        changed = [key for key, value in asked.items() if record[key] != value]
        if changed:
            raise SystemExit(f"{out}: was begun with other values of {', '.join(changed)}; delete it, or give --out")
    flags = {"model.name": model, "data.source": data}
    shots, ranks = ([int(number) for number in asked[key].split(",")] for key in ("shots", "ranks"))
    trained = {**flags, "lora.r": asked["rank"]}
    rank = f"rank {asked['rank']}"
    todo: dict[str, tuple[str, dict[str, Any], Callable[[dict[str, Any]], list[dict[str, Any]]]]] = {
        "shots": ("fewshot", {**flags, "fewshot.shots": shots, "fewshot.repeats": 1}, fewshot_rows),
        "lora": ("train", trained, lambda run: train_rows(f"LoRA, {rank}", run)),
        "qlora": ("train", {**trained, "quant.method": "nf4"}, lambda run: train_rows(f"QLoRA, {rank}", run)),
        "ranks": ("sweep", {**flags, "sweep.ranks": ranks}, sweep_rows),
    }
    for case, (command, own_flags, rows_of) in todo.items():
        if case in record["cases"]:
            continue
        say(f"{case}: loraft {command}")
        result = run_case(command, folder / f"tutorial-{name}" / case, settings, own_flags)
        made_in = as_json(environment())
        record["environment"] = {key: value for key, value in made_in.items() if key != "command"}  # paths are private
        record["cases"][case] = {
            "date": datetime.now(UTC).date().isoformat(), "commit": made_in["git_commit"], "rows": rows_of(result),
        }  # fmt: skip
        write_json(out, record)
    print(markdown(record))


def by_time(shape: Shape, data: str, settings: list[str], out: Path | None, steps: int, budget: float) -> None:
    """Runs the programme on random weights, writes OUT after each case, prints where the time went."""
    out = out or RESULTS / f"tutorial-{shape}.json"
    transformers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=Note)
    flags = {"data.source": data, "fewshot.repeats": 1, "train.max_steps": steps,
             "train.eval_steps": min(EVALUATE_EVERY, steps)}  # fmt: skip
    with TemporaryDirectory() as root:
        bundled = resolve(overrides=settings, flags={**flags, "model.name": "loraft-vi-tiny"}, preset="tutorial")
        device = pick_device(bundled.model.device)
        made = backbones.random_llama(bundled, SHAPES[shape], device)
        made.base.save_pretrained(f"{root}/backbone")
        made.encoder.tokenizer.save_pretrained(f"{root}/backbone")
        del made
        flags = {**flags, "model.name": f"{root}/backbone", "output": f"{root}/runs"}
        config = resolve(overrides=settings, flags=flags, preset="tutorial")
        start_command(config, verbose=False)
        results_follow()
        shots, ranks = config.fewshot.shots, config.sweep.ranks
        parts = Parts(device)
        parts.deadline = STARTED + budget - FOR_THE_RECIPE

        def own(command: str) -> dict[str, Any]:
            with parts.watching():
                run_command(command, config)
            return {"command": command}

        def recipe() -> dict[str, Any]:
            encoder, base = build(config)
            bench = backbones.Bench(config, encoder, base, load_data(config, "train"), load_data(config, "test"))
            rows = len(load_data(config, "validation"))
            found = recipe_time(
                bench, rows, shots=shots, ranks=len(ranks), steps=STEPS, evaluations=STEPS // EVALUATE_EVERY
            )
            return {"recipe": found}

        def save(result: dict[str, Any]) -> None:
            whole = parts.whole(STEPS, STEPS // EVALUATE_EVERY)
            made = {"shape": shape, "steps": steps, "whole_steps": STEPS, "ranks": ranks, "shots": shots}
            write(
                out, made, data, device, {**result, "parts": dict(parts.seconds), "whole": whole,
                "calls": parts.calls, "trainings": parts.trainings}, smoke=shape is Shape.TINY,
            )  # fmt: skip

        spent = time.perf_counter() - STARTED
        limits = {"shots": 150.0, "ranks": budget + TO_FINISH, "recipe": FOR_THE_RECIPE}
        measure(
            {"shots": lambda: own("fewshot"), "ranks": lambda: own("sweep"), "recipe": recipe},
            budget + TO_FINISH - spent, save, limits,
        )  # fmt: skip
    print("\n".join(time_table(json.loads(out.read_text(encoding="utf-8")))))


def main(
    model: Annotated[str | None, typer.Option(help="Bundled name, folder or GGUF file.")] = None,
    shape: Annotated[Shape | None, typer.Option(help="Random weights of this shape, to see where time goes.")] = None,
    data: Annotated[str, typer.Option(help="Bundled name, folder or file.")] = "feedback",
    shots: Annotated[str, typer.Option(help="With --model, as are ranks, rank and rows.")] = "1,2,4,8",
    ranks: str = "2,8,32",
    rank: Annotated[int, typer.Option(help="Of the LoRA and the QLoRA case.")] = 16,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of each training: with --model 60 of 16 rows, with --shape 5000 of 4.")
    ] = None,
    eval_rows: Annotated[int, typer.Option(help="Of the validation split, scored twice in each training.")] = 100,
    test_rows: int = 400,
    budget: Annotated[
        float, typer.Option(help="With --shape: seconds from the start, after which a training ends and is scaled.")
    ] = 400,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="For every case.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the runs, with --model.")] = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Default: benchmarks/results/tutorial-NAME.json.")] = None,
) -> None:
    """Run the programme, write OUT after every case, print the table."""
    if (model is None) == (shape is None):
        raise SystemExit("tutorial.py: which backbone? give --model NAME, or --shape 1b")
    if shape is not None:
        by_time(shape, data, sets or [], out, steps or STEPS, budget)
        return
    steps = steps or 60
    limits = {
        "data.max_test_rows": test_rows, "data.max_eval_rows": eval_rows, "train.max_steps": steps,
        "train.eval_steps": -(-steps // 2),
    }  # fmt: skip
    settings = [*(f"{key}={value}" for key, value in limits.items()), *(sets or [])]
    name = Path(str(model)).name.removesuffix(".gguf")
    asked = {"backbone": name, "data": Path(data).name, "settings": settings, "shots": shots, "ranks": ranks}
    by_score(str(model), data, settings, out, output, {**asked, "rank": rank})


if __name__ == "__main__":
    typer.run(main)
