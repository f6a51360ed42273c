"""Draw the loss curve of both stages for the model card and print the card's figures.

python tools/pretrain/card.py STAGE1/log.jsonl STAGE2/log.jsonl src/loraft/bundled/loraft-vi-tiny
"""

import json
from pathlib import Path

import matplotlib
import typer

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def read(path: Path) -> list[dict[str, float]]:
    """Returns the log, each step once: of a step that a resumed run repeated, the later line."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({row["step"]: row for row in rows}.values())


def main(stage1: Path, stage2: Path, out: Path) -> None:
    """Write OUT/loss.png and OUT/log.json and print tokens, losses and seconds."""
    first, second = read(stage1), read(stage2)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=False, layout="constrained")
    axes[0].plot([r["tokens"] / 1e6 for r in first], [r["loss"] for r in first], color="0.6", lw=0.8, label="train")
    held = [r for r in first if "held_out_loss" in r]
    axes[0].plot(
        [r["tokens"] / 1e6 for r in held], [r["held_out_loss"] for r in held], color="0", marker="o", ms=3,
        label="held out",
    )  # fmt: skip
    axes[0].set(title="stage 1: next token", xlabel="tokens, millions", ylabel="loss, nats per token")
    axes[1].plot([r["tokens"] / 1e6 for r in second], [r["loss"] for r in second], color="0.6", label="all tokens")
    answers = [r["answer_loss"] for r in second]
    axes[1].plot([r["tokens"] / 1e6 for r in second], answers, color="0", ls="--", label="answers")
    axes[1].set(title="stage 2: chats and opinions", xlabel="tokens, millions")
    for axis in axes:
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / "loss.png", dpi=90)
    log = {"stage1": first, "stage2": second}
    (out / "log.json").write_text(json.dumps(log) + "\n", encoding="utf-8")
    for name, rows in log.items():
        held_out = next((r["held_out_loss"] for r in reversed(rows) if "held_out_loss" in r), None)
        print(f"{name}: {rows[-1]['tokens']:,} tokens, {rows[-1]['seconds']:,.0f} s, held-out loss {held_out}")


if __name__ == "__main__":
    typer.run(main)
