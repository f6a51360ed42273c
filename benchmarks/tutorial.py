"""The programme of a fine-tuning tutorial on one backbone: zero-shot, few-shot, LoRA, QLoRA and a sweep over ranks.

    python benchmarks/tutorial.py --model FOLDER_OR_GGUF [--data FOLDER] [--steps 60] [--test-rows 400] ...

Without --data the rows are the bundled ones. Each case is a process of its own. The JSON is written after every case,
and a finished case is not run again: the same command goes on after an interruption. The default limits suit a backbone
of 135 million weights on two cores (docs/smollm2.md). The table on stdout is Markdown.
"""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from loraft.runs.atomic_files import write_json
from loraft.runs.environment import environment
from loraft.runs.records import as_json

RESULTS = Path(__file__).parent / "results"
RESULTS_FILES = {"fewshot": "fewshot.json", "train": "metrics.json", "sweep": "sweep.json"}
CONFIG_FILES = {"fewshot": "fewshot.yaml", "train": "config.yaml"}  # a sweep goes on without --resume


def run_case(command: str, folder: Path, flags: list[str]) -> dict[str, Any]:
    """Returns the results of one loraft command, which is run or continued if the folder does not hold them yet."""
    results = folder / RESULTS_FILES[command]
    if not results.exists():
        begun = command in CONFIG_FILES and (folder / CONFIG_FILES[command]).exists()
        words = [sys.executable, "-m", "loraft", command, *flags, "--output", str(folder.parent)]
        words += ["--set", f"name={folder.name}", *(["--resume"] if begun else [])]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    content: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    return content


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


def main(
    model: Annotated[str, typer.Option(help="Bundled name, folder or GGUF file.")],
    data: Annotated[str, typer.Option(help="Bundled name, folder or file.")] = "feedback",
    shots: str = "1,2,4,8",
    ranks: str = "2,8,32",
    rank: Annotated[int, typer.Option(help="Of the LoRA and the QLoRA case.")] = 16,
    steps: Annotated[int, typer.Option(help="Of each training; 16 rows a step.")] = 60,
    eval_rows: Annotated[int, typer.Option(help="Of the validation split, scored twice in each training.")] = 100,
    test_rows: int = 400,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="For every case.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Default: benchmarks/results/tutorial-NAME.json.")] = None,
) -> None:
    """Run what is missing, write OUT after every case, print the table."""
    name = Path(model).name.removesuffix(".gguf")
    out, folder = out or RESULTS / f"tutorial-{name}.json", output / f"tutorial-{name}"
    limits = {
        "data.max_test_rows": test_rows, "data.max_eval_rows": eval_rows, "train.max_steps": steps,
        "train.eval_steps": -(-steps // 2),
    }  # fmt: skip
    settings = [*(f"{key}={value}" for key, value in limits.items()), *(sets or [])]
    asked = {"backbone": name, "data": Path(data).name, "settings": settings, "shots": shots, "ranks": ranks}
    record: dict[str, Any] = {**asked, "rank": rank, "environment": {}, "cases": {}}
    if out.exists():
        record = json.loads(out.read_text(encoding="utf-8"))
        changed = [key for key, value in {**asked, "rank": rank}.items() if record[key] != value]
        if changed:
            raise SystemExit(f"{out}: was begun with other values of {', '.join(changed)}; delete it, or give --out")
    flags = ["--model", model, "--data", data, *(word for setting in settings for word in ("--set", setting))]
    cases = {
        "shots": ("fewshot", [*flags, "--shots", shots, "--repeats", "1"], fewshot_rows),
        "lora": ("train", [*flags, "--rank", str(rank)], lambda run: train_rows(f"LoRA, rank {rank}", run)),
        "qlora": (
            "train", [*flags, "--rank", str(rank), "--quant", "nf4"],
            lambda run: train_rows(f"QLoRA, rank {rank}", run),
        ),
        "ranks": ("sweep", [*flags, "--ranks", ranks], sweep_rows),
    }  # fmt: skip
    for case, (command, words, rows_of) in cases.items():
        if case in record["cases"]:
            continue
        print(f"{case}: loraft {command}", file=sys.stderr)
        result = run_case(command, folder / case, words)
        made_in = as_json(environment())
        record["environment"] = {key: value for key, value in made_in.items() if key != "command"}  # paths are private
        record["cases"][case] = {
            "date": datetime.now(UTC).date().isoformat(), "commit": made_in["git_commit"], "rows": rows_of(result),
        }  # fmt: skip
        write_json(out, record)
    print(markdown(record))


if __name__ == "__main__":
    typer.run(main)
