"""LoRA and QLoRA of the bundled backbone on UIT-VSFC, beside other ways to the same end, on the official test split.

    python benchmarks/vsfc.py FOLDER [--seeds 42,43,44] [--qlora-seeds 42] [--other-seeds 42] [--reuse]
        [--model BACKBONE] [--out FILE]

The others are TF-IDF with a linear SVM, a classification head with the same LoRA, and full fine-tuning (vsfc_others.py
says how). FOLDER holds train.jsonl, validation.jsonl and test.jsonl (`sentence, sentiment, topic`). Each training is a
process of its own, so that its time and peak memory are its own; the runs are kept under runs/vsfc, and `--reuse` takes
finished ones. The JSON tells commit, versions and machine; the table on stdout is made from it.
"""

import json
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from loraft.config.data_section import DataConfig
from loraft.data.dataset import load_split
from loraft.evaluation.baselines import linear_svm
from loraft.evaluation.metrics import core
from loraft.runs.environment import environment
from loraft.runs.records import as_json

CONFIG = Path(__file__).with_name("vsfc.yaml")
BUNDLED = "loraft-vi-tiny"
METRICS = ("accuracy", "macro_f1")
OTHERS = {"head": "head + LoRA r=16", "full": "full fine-tuning"}


def baseline(folder: Path) -> dict[str, float]:
    """Returns the test metrics of word and bigram TF-IDF with a linear SVM trained on the train split."""
    data, labels = DataConfig(source=str(folder)), ["negative", "neutral", "positive"]
    train, test = (load_split(data, split, labels=labels, label_column="sentiment") for split in ("train", "test"))
    return core(test.labels, linear_svm(train, test), len(labels))


def trained(folder: Path, quant: str, seed: int, model: str, *, reuse: bool) -> dict[str, Any]:
    """Returns the metrics.json of one run, with the commit that it was trained at.

    `reuse` takes a finished run as it is: of the same data, config and weights only if you did not change them.
    """
    output = Path("runs/vsfc")
    name = f"{quant}-s{seed}" if model == BUNDLED else f"{Path(model).name}-{quant}-s{seed}"
    command = [sys.executable, "-m", "loraft", "train", "--config", str(CONFIG), "--data", str(folder)]
    command += ["--quant", quant, "--model", model]
    command += ["--seed", str(seed), "--output", str(output), "--set", f"name={name}", "--force"]
    if not (reuse and (output / name / "metrics.json").exists()):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    result: dict[str, Any] = json.loads((output / name / "metrics.json").read_text(encoding="utf-8"))
    made_in = json.loads((output / name / "environment.json").read_text(encoding="utf-8"))
    return {**result, "commit": made_in["git_commit"]}


def trained_otherwise(folder: Path, way: str, seed: int, model: str, *, reuse: bool) -> dict[str, Any]:
    """Returns what `vsfc_others.py` wrote of one training; `reuse` as in `trained`."""
    name = f"{way}-s{seed}" if model == BUNDLED else f"{Path(model).name}-{way}-s{seed}"
    out = Path("runs/vsfc") / f"{name}.json"
    if not (reuse and out.exists()):
        script = Path(__file__).with_name("vsfc_others.py")
        command = [sys.executable, str(script), way, str(folder), str(out), "--seed", str(seed), "--model", model]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return result


def main(
    folder: Path,
    seeds: Annotated[str, typer.Option(help="Of LoRA, comma-separated.")] = "42,43,44",
    qlora_seeds: Annotated[str, typer.Option(help="Of QLoRA.")] = "42,43,44",
    other_seeds: Annotated[str, typer.Option(help="Of the head and of full fine-tuning.")] = "42",
    reuse: Annotated[bool, typer.Option("--reuse", help="Take finished runs as they are.")] = False,
    model: Annotated[str, typer.Option(help="A bundled name or a folder.")] = BUNDLED,
    out: Path = Path("benchmarks/results/vsfc.json"),
) -> None:
    """Train what is missing, write OUT, print the table."""
    if not (folder / "test.jsonl").exists():
        raise SystemExit(f"{folder}: holds no test.jsonl; name the folder of the corpus")
    chosen = {"none": seeds, "nf4": qlora_seeds}
    runs = {
        quant: [trained(folder, quant, int(seed), model, reuse=reuse) for seed in chosen[quant].split(",")]
        for quant in chosen
    }
    others = {
        way: [trained_otherwise(folder, way, int(seed), model, reuse=reuse) for seed in other_seeds.split(",")]
        for way in OTHERS
    }
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "environment": {
            key: value for key, value in as_json(environment()).items() if key != "command"
        },  # paths are private
        "rows": runs["none"][0]["after"]["n"],
        "baseline": baseline(folder),
        "runs": {
            quant: [
                {
                    "run": run["run"],
                    "commit": run["commit"],
                    "backbone_fingerprint": run["backbone_fingerprint"],
                    "before": {key: run["before"][key] for key in METRICS},
                    "after": {key: run["after"][key] for key in METRICS},
                    "intervals": run["after"]["intervals"],
                    "train": run["train"],
                }
                for run in results
            ]
            for quant, results in runs.items()
        }
        | {
            way: [
                {
                    "run": run["run"],
                    "commit": run["commit"],
                    "after": {key: run["after"][key] for key in METRICS},
                    "intervals": run["after"]["intervals"],
                    "train": run["train"],
                }
                for run in results
            ]
            for way, results in others.items()
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    show(record)


def show(record: dict[str, Any]) -> None:
    """Prints the table: medians over the seeds, intervals of the median run by macro-F1."""
    table = Table("", "accuracy", "macro-F1", "95 % interval of macro-F1", "training, s", "peak memory, MiB")
    names = {"none": "LoRA r=16", "nf4": "QLoRA r=16", **OTHERS}
    for quant in (quant for quant in names if quant in record["runs"]):
        name, results = names[quant], sorted(record["runs"][quant], key=lambda run: run["after"]["macro_f1"])
        middle = results[(len(results) - 1) // 2]
        interval = middle["intervals"]["macro_f1"]
        after = [statistics.median(run["after"][key] for run in results) for key in METRICS]
        seconds = statistics.median(run["train"]["seconds"] for run in results)
        peaks = [peak for run in results if (peak := run["train"]["peak_memory_mib"]) is not None]
        memory = f"{statistics.median(peaks):.0f}" if peaks else "?"
        runs = f"median of {len(results)}" if len(results) > 1 else "1 run"
        if quant not in OTHERS:
            zero = [statistics.median(run["before"][key] for run in results) for key in METRICS]
            if quant in record.get("zero_shot", {}):  # measured later, see study_records.py
                zero = [record["zero_shot"][quant][key] for key in METRICS]
            backbone = "backbone, zero-shot" if quant == "none" else "backbone in NF4, zero-shot"
            table.add_row(backbone, *(f"{value:.4f}" for value in zero), "", "", "")
        table.add_row(
            f"{name} ({runs})", *(f"{value:.4f}" for value in after),
            f"{interval[0]:.4f} to {interval[1]:.4f}", f"{seconds:.0f}", memory,
        )  # fmt: skip
    table.add_row("TF-IDF + linear SVM", *(f"{record['baseline'][key]:.4f}" for key in METRICS), "", "", "")
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
