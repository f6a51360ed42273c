"""Draws the memory of ways to fine-tune side by side: the tutorial's figure 1, from computed bytes."""

from collections.abc import Mapping
from pathlib import Path

from loraft.delivery.memory_plan import Memory
from loraft.display.figure import WIDTH, drawing, filled

# Of each part its shade, from black to white, and its hatching, which tells it apart in greyscale and in print.
PARTS = {
    "weights": ("0.25", ""),
    "gradients": ("0.85", "///"),
    "optimizer": ("0.55", ""),
    "activations": ("1.0", "..."),
}
LABELLED = 0.04  # of the highest bar; lower parts have no room for their number


def draw(methods: Mapping[str, Memory], path: Path, *, title: str) -> None:
    """Draws a bar for each method, in GiB or MiB: its parts one on another, the peak written above.

    Args:
        methods: memory by name, such as full fine-tuning, LoRA and QLoRA.
        path: of the PNG.
        title: of the figure, such as backbone, batch and length.
    """
    most = max(sum(getattr(memory, part) for part in PARTS) for memory in methods.values())
    name_of_unit, unit, digits = ("GiB", 2**30, 2) if most >= 2**30 else ("MiB", 2**20, 0)
    highest = most / unit
    with drawing(path, (WIDTH, 4.4)) as figure:
        axes = figure.subplots()
        for number, (name, memory) in enumerate(methods.items()):
            bottom = 0.0
            for part, (shade, hatch) in PARTS.items():
                size = getattr(memory, part) / unit
                style = {"color": shade, "edgecolor": "0.0", "hatch": hatch, "linewidth": 0.6, "width": 0.6}
                axes.bar(name.replace(", ", "\n"), size, bottom=bottom, label=part if number == 0 else None, **style)
                if size >= LABELLED * highest:
                    box = {"facecolor": "1.0", "edgecolor": "none", "pad": 1.0, "alpha": 0.85}
                    axes.text(number, bottom + size / 2, f"{size:,.{digits}f}", ha="center", va="center", bbox=box)
                bottom += size
            peak = f"peak {memory.peak / unit:,.{digits}f}"
            axes.text(number, bottom + 0.01 * highest, peak, ha="center", va="bottom", weight="bold")
        axes.set_ylim(0, 1.1 * highest)
        axes.set_ylabel(f"memory ({name_of_unit})")
        figure.suptitle(filled(title))
        axes.grid(visible=False, axis="x")
        figure.legend(*(reversed(one) for one in axes.get_legend_handles_labels()), loc="outside lower center", ncols=4)
