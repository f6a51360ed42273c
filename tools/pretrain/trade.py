"""The trade between width, depth, vocabulary and tokens seen, measured on what the backbone is for: LoRA accuracy.

    python tools/pretrain/trade.py CORPUS LABELLED OUT [--only base,deep] [--avoid FOLDER]

Every shape is pre-trained with the same arithmetic (`operations_per_token` times tokens), so that a smaller one sees
more tokens, and goes through the same short stage 2. `published` is the bundled backbone itself, which has the first
shape and saw far more tokens in both stages. Each is then trained with LoRA of rank 16 for one epoch on the folder
LABELLED and judged on its validation split: the test split chooses nothing. Finished parts are kept in OUT, so that the
same command goes on after an interruption; OUT/trade.json has the results.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parent.parent / "benchmarks" / "vsfc.yaml"
LENGTH, BATCH, STAGE2_STEPS = 256, 32, 50
PUBLISHED = HERE.parent.parent / "src/loraft/bundled/loraft-vi-tiny"
# name: width, depth, heads, key-value heads, hidden width of the MLP, vocabulary
SHAPES: dict[str, tuple[int, int, int, int, int, int]] = {
    "base": (256, 6, 4, 2, 640, 8192),
    "wide": (384, 3, 6, 3, 832, 8192),
    "deep": (192, 11, 3, 1, 480, 8192),
    "small": (192, 5, 3, 1, 480, 8192),
    "large": (384, 6, 6, 3, 960, 8192),
    "vocabulary 4096": (256, 6, 4, 2, 640, 4096),
    "published": (256, 6, 4, 2, 640, 8192),
}


def operations_per_token(width: int, depth: int, heads: int, kv_heads: int, hidden: int, vocab: int) -> int:
    """Returns the multiply-adds of one training token, times two: 6 for each matrix weight, and causal attention.

    Kaplan et al. 2020, arXiv:2001.08361, section 2.1, with the tied embedding counted once, as the LM head.
    """
    head = width // heads
    block = 2 * width * width + 2 * width * kv_heads * head + 3 * width * hidden
    return 6 * (depth * block + vocab * width) + 6 * depth * LENGTH * width


def run(*command: str | Path) -> None:
    """Runs a Python command of this project; its failure is the caller's."""
    subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.DEVNULL)


def measure(name: str, corpus: Path, labelled: Path, out: Path, avoid: list[Path], budget: float) -> None:
    """Writes OUT/NAME/result.json, unless it is there."""
    folder = out / name.replace(" ", "-")
    if (folder / "result.json").exists():
        return
    width, depth, *_, vocab = SHAPES[name]
    if name == "published":
        model, tokens, held_out = PUBLISHED, *seen_by_published()
    else:
        model, tokens, held_out = pretrained(name, corpus, out, folder, avoid, budget)
    run(
        "-m", "loraft", "train", "--config", RECIPE, "--data", labelled, "--model", model, "--output", folder,
        "--force",        "--set", "name=lora", "--set", "data.test_split=validation", "--set", "train.num_train_epochs=1",
    )  # fmt: skip
    metrics = json.loads((folder / "lora/metrics.json").read_text(encoding="utf-8"))
    result = {
        "name": name, "width": width, "depth": depth, "vocabulary": vocab, "parameters": parameters_of(*SHAPES[name]),
        "tokens": tokens, "operations": tokens * operations_per_token(*SHAPES[name]), "held_out_loss": held_out,
        "zero_shot": {key: metrics["before"][key] for key in ("accuracy", "macro_f1")},
        "lora": {key: metrics["after"][key] for key in ("accuracy", "macro_f1")},
        "interval": metrics["after"]["intervals"]["macro_f1"],
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def seen_by_published() -> tuple[int, float]:
    """Returns the stage-1 tokens and the last held-out loss of the bundled backbone, from the log that ships with it."""
    stage1 = json.loads((PUBLISHED / "log.json").read_text(encoding="utf-8"))["stage1"]
    return stage1[-1]["tokens"], next(row["held_out_loss"] for row in reversed(stage1) if "held_out_loss" in row)


def pretrained(
    name: str, corpus: Path, out: Path, folder: Path, avoid: list[Path], budget: float
) -> tuple[Path, int, float]:
    """Returns the folder of a shape after both stages, its stage-1 tokens, and its held-out loss after stage 1."""
    width, depth, heads, kv_heads, hidden, vocab = SHAPES[name]
    tokenizer, tokens = out / f"tokenizer-{vocab}", out / f"tokens-{vocab}"
    if not (tokenizer / "tokenizer.json").exists():
        run(HERE / "tokenizer.py", corpus, tokenizer, "--vocab", str(vocab))
    if not (tokens / "tokens.json").exists():
        avoided = [part for path in avoid for part in ("--avoid", path)]
        run(HERE / "tokens.py", corpus, tokenizer, tokens, "--share", "0.3", "--stage2-windows", "1024", *avoided)
    steps = round(budget / operations_per_token(*SHAPES[name]) / (BATCH * LENGTH))
    if not (folder / "stage1/model/config.json").exists():
        run(
            HERE / "pretrain.py", tokens, folder / "stage1", "--device", "cpu", "--steps", str(steps), "--batch",
            str(BATCH), "--length", str(LENGTH), "--width", str(width), "--depth", str(depth), "--heads", str(heads),
            "--kv-heads", str(kv_heads), "--hidden", str(hidden),
        )  # fmt: skip
    model = folder / "stage2/model"
    if not (model / "config.json").exists():
        steps2 = ["--device", "cpu", "--steps", str(STAGE2_STEPS)]
        run(HERE / "pretrain.py", tokens, folder / "stage2", "--start", folder / "stage1/model", *steps2)
    last = json.loads((folder / "stage1/log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return model, steps * BATCH * LENGTH, last["held_out_loss"]


def parameters_of(width: int, depth: int, heads: int, kv_heads: int, hidden: int, vocab: int) -> int:
    """Returns the number of weights: matrices, tied embedding, and the norms."""
    head = width // heads
    block = 2 * width * width + 2 * width * kv_heads * head + 3 * width * hidden + 2 * width
    return depth * block + vocab * width + width


def main(
    corpus: Path,
    labelled: Path,
    out: Path,
    only: Annotated[str, typer.Option(help="Comma-separated names of shapes; default: all.")] = ",".join(SHAPES),
    avoid: list[Path] | None = None,
    tokens: Annotated[int, typer.Option(help="That the first shape sees.")] = 900_000,
) -> None:
    """Measure the shapes that are not in OUT yet, write OUT/trade.json, print the table."""
    budget = tokens * operations_per_token(*SHAPES["base"])
    for name in only.split(","):
        measure(name, corpus, labelled, out, avoid or [], budget)
    results = [
        json.loads(path.read_text(encoding="utf-8"))
        for name in SHAPES
        if (path := out / name.replace(" ", "-") / "result.json").exists()
    ]
    (out / "trade.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    show(results)


def show(results: list[dict[str, Any]]) -> None:
    """Prints one row a shape."""
    table = Table("", "width x depth", "vocabulary", "parameters", "tokens", "zero-shot", "LoRA", "LoRA macro-F1, 95 %")
    for result in results:
        zero, lora = (f"{result[key]['accuracy']:.4f} / {result[key]['macro_f1']:.4f}" for key in ("zero_shot", "lora"))
        table.add_row(
            result["name"], f"{result['width']} x {result['depth']}", f"{result['vocabulary']:,}",
            f"{result['parameters'] / 1e6:.2f}M", f"{result['tokens'] / 1e6:.2f}M", zero, lora,
            "{:.3f} to {:.3f}".format(*result["interval"]),
        )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
