"""Make a backbone of the bundled shape with one command: token files, stage 1, stage 2, bf16 weights, evaluation.

    python tools/pretrain/run.py CORPUS OUT [--avoid FOLDER] [--labelled FOLDER]

OUT/tokens, OUT/stage1 and OUT/stage2 are what tokens.py and pretrain.py write, OUT/weights is the backbone: bf16
weights, tokenizer, log and loss curve, without the optimizers' state. The same command goes on where it was stopped,
also on another machine: `--until tokens` prepares the text where there is no GPU, and OUT/tokens is what has to be
carried. The zero-shot accuracy is that of `loraft eval`; with `--labelled` benchmarks/vsfc.py judges the weights.
"""

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import card
import export
import pretrain
import tokens
import typer

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "src/loraft/bundled/loraft-vi-tiny"
# what shows in seconds on a CPU that every part works
SMOKE_SHAPE: dict[str, Any] = {"width": 32, "depth": 1, "heads": 2, "kv_heads": 1, "hidden": 48}
SMOKE: dict[str, Any] = {"steps": 4, "batch": 2, "compile": False}


class Part(StrEnum):
    """How far to go."""

    tokens = "tokens"
    weights = "weights"
    evaluation = "evaluation"


def main(
    corpus: Path,
    out: Path,
    tokenizer: Path = BUNDLED,
    avoid: list[Path] | None = None,
    labelled: Path | None = None,
    device: str | None = None,
    minutes: float = float("inf"),
    until: Part = Part.evaluation,
    smoke: bool = False,
) -> None:
    """Make what is missing in OUT from CORPUS, the two stages ending within --minutes."""
    folder = out / "tokens"
    if not (folder / "tokens.json").exists():
        tokens.main(corpus, tokenizer, folder, avoid, **({"stage2_windows": 4} if smoke else {}))
    if until == Part.tokens:
        return
    settings = {"device": device, **(SMOKE if smoke else {})}
    shape = {**SMOKE_SHAPE, "length": 64} if smoke else {}
    stages = [out / "stage1", out / "stage2"]
    pretrain.main(folder, stages[0], minutes=0.85 * minutes, **settings, **shape)
    pretrain.main(folder, stages[1], start=stages[0] / "model", minutes=0.15 * minutes, **settings)
    weights = out / "weights"
    export.main(stages[1] / "model", weights)
    card.main(*(stage / "log.jsonl" for stage in stages), weights)
    if until == Part.weights:
        return
    from loraft.cli.app import app

    few = ["--set", "data.max_test_rows=8"] if smoke else []
    app(["eval", "--zero-shot", "--model", str(weights), *few], standalone_mode=False)
    if labelled:
        vsfc = [sys.executable, ROOT / "benchmarks/vsfc.py", labelled, "--model", weights, "--out", out / "vsfc.json"]
        subprocess.run(vsfc, check=True)


if __name__ == "__main__":
    typer.run(main)
