"""Draws the pictures of docs/lora.md and docs/quantisation.md: python tools/pictures.py [FOLDER, else docs/images]

Shades of grey, and wide enough that the text can be read where a phone shows them in 360 points.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from loraft.display.figure import drawing

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDTH = 4.6  # inches; at 360 points, text of 9 points has 11
EDGE = {"edgecolor": "0.0", "linewidth": 0.8}
BLOCKS = 4  # of the example of docs/quantisation.md, which has the same numbers
WEIGHTS = np.array([
    [0.00, 0.06, -0.05, -0.18, -0.09, -0.20, 0.01, 0.27],
    [-0.10, -0.12, 0.10, 0.07, 0.02, -0.19, -0.01, 0.14],
    [-0.27, -0.09, -0.38, -0.26, -0.37, -0.05, -0.25, 0.05],
    [0.03, -0.04, -0.50, -0.11, -0.01, 0.02, -0.31, -0.10],
    [-0.20, -0.16, 0.21, -0.16, -0.01, 0.18, -0.12, -0.02],
    [0.02, 0.01, -0.25, 0.02, 0.27, -0.31, 0.17, 0.02],
    [-0.13, 0.40, 0.15, 2.40, 0.01, 0.12, -0.04, 0.14],
    [-0.01, 0.13, 0.29, -0.14, 0.04, -0.09, 0.03, -0.24],
])  # fmt: skip
# Llama-3.2-1B (config.json of meta-llama/Llama-3.2-1B-Instruct): the linear layers of its decoder, all its weights, and
# those of LoRA with rank 8 on q and v, 16 layers of r (d_in + d_out)
LINEAR = 16 * (2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192)
ALL = LINEAR + 128_256 * 2048 + 33 * 2048
ADAPTER = 16 * 8 * ((2048 + 2048) + (2048 + 512))


def nf4_levels() -> Any:
    """The sixteen levels of NF4 from the quantiles of the normal distribution, (16,), from -1 to 1."""
    outermost = ((1 - 1 / 30) + (1 - 1 / 32)) / 2
    above, below = (norm.ppf(np.linspace(0.5, outermost, n)[1:]) for n in (9, 8))
    return np.sort([*-below, 0.0, *above]) / above.max()


def round_trip(blocks: Any) -> Any:
    """The weights (blocks, weights of a block) after they were stored in 4 bits with equal steps, and read again."""
    absmax = np.abs(blocks).max(axis=1, keepdims=True)
    return np.round(blocks / absmax * 7) / 7 * absmax


def memory_in_gib() -> dict[str, dict[str, float]]:
    """GiB of weights, gradients and AdamW's moments by method, as `loraft plan` counts them for Llama-3.2-1B.

    Full: everything in fp32. The others: the backbone in bf16, quantised weights in 4.127 bits, the adapter in fp32.
    """
    trained = {"gradients": 4 * ADAPTER, "optimizer": 8 * ADAPTER}
    found = {
        "full\nfine-tuning": {"weights": 4 * ALL, "gradients": 4 * ALL, "optimizer": 8 * ALL},
        "LoRA": {"weights": 2 * ALL + 4 * ADAPTER, **trained},
        "QLoRA": {"weights": LINEAR * (4 + 8 / 64 + 32 / 16384) / 8 + 2 * (ALL - LINEAR) + 4 * ADAPTER, **trained},
    }
    return {name: {part: size / 2**30 for part, size in parts.items()} for name, parts in found.items()}


def memory(path: Path) -> None:
    """Weights, gradients and moments of three methods as stacked bars."""
    styles = {"weights": ("0.35", ""), "gradients": ("0.9", "///"), "optimizer": ("0.65", "")}
    with drawing(path, (WIDTH, 3.4)) as figure:
        axes = figure.subplots()
        for number, (name, parts) in enumerate(memory_in_gib().items()):
            bottom = 0.0
            for part, size in parts.items():
                shade, hatch = styles[part]
                label = part if number == 0 else None
                axes.bar(name, size, 0.6, bottom, color=shade, hatch=hatch, label=label, **EDGE)
                bottom += size
            axes.text(number, bottom + 0.2, f"{bottom:.2f}", ha="center", va="bottom", weight="bold")
        axes.set_ylim(0, 21)
        axes.set_ylabel("GiB")
        axes.set_title("Llama-3.2-1B, rank 8, without activations")
        axes.grid(visible=False, axis="x")
        axes.legend(*(reversed(one) for one in axes.get_legend_handles_labels()))


def _canvas(figure: Any, width: float, height: float) -> Any:
    """Axes without frame, in units of the drawing."""
    axes = figure.subplots()
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return axes


def _box(axes: Any, corner: tuple[float, float], size: tuple[float, float], text: str, shade: str = "1.0") -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle(corner, *size, facecolor=shade, **EDGE))
    middle = [start + side / 2 for start, side in zip(corner, size, strict=True)]
    axes.text(*middle, text, ha="center", va="center", size=8)


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "0.0", "shrinkA": 0, "shrinkB": 0})


def lora(path: Path) -> None:
    """The frozen W and the two matrices beside it; widths and heights are the dimensions."""
    d_in = d_out = 3.4
    r = 0.8
    with drawing(path, (WIDTH, 4.3)) as figure:
        axes = _canvas(figure, 10, 9.4)
        _box(axes, (0.6, 3.0), (d_in, d_out), "W\nd_out × d_in\nfrozen", "0.85")
        _box(axes, (5.6, 2.2), (d_in, r), "A:  r × d_in")
        _box(axes, (6.9, 3.8), (r, d_out), "B")
        axes.text(7.9, 5.5, "d_out × r,\n0 at first", ha="left", va="center")
        _arrow(axes, (7.3, 3.0), (7.3, 3.8))
        for x, bottom, top in ((2.3, 3.0, 6.4), (7.3, 2.2, 7.2)):
            axes.plot([4.8, x], [0.9, 0.9], color="0.0", linewidth=0.8)
            _arrow(axes, (x, 0.9), (x, bottom))
            axes.plot([x, x], [top, 8.2], color="0.0", linewidth=0.8)
            _arrow(axes, (x, 8.2), (4.5 if x < 4 else 5.1, 8.2))
        axes.text(7.5, 7.7, "× alpha / r", ha="left", va="center")
        axes.text(4.8, 0.4, "x", ha="center", va="center", weight="bold")
        axes.text(4.8, 8.2, "+", ha="center", va="center", size=13)
        _arrow(axes, (4.8, 8.4), (4.8, 8.9))
        axes.text(4.8, 9.15, "W x + (alpha / r) B A x", ha="center", va="center", weight="bold")


def blocks(path: Path) -> None:
    """The 8 x 8 matrix of docs/quantisation.md in its blocks, and the error of each weight with one constant or four."""
    four = round_trip(WEIGHTS.reshape(BLOCKS, -1)).reshape(8, 8)
    one = round_trip(WEIGHTS.reshape(1, -1)).reshape(8, 8)
    with drawing(path, (WIDTH, 6.4)) as figure:
        top, below = figure.subfigures(2, 1, height_ratios=[1.25, 1])
        axes = top.subplots()
        axes.imshow(np.abs(WEIGHTS), cmap="Greys", vmin=0, vmax=0.9)
        for (row, column), weight in np.ndenumerate(WEIGHTS):
            shade = "1.0" if abs(weight) > 0.45 else "0.0"
            axes.text(column, row, f"{weight:.2f}", ha="center", va="center", size=8, color=shade)
        axes.set_title("weights: a block is two rows")
        for block in range(BLOCKS):
            absmax = np.abs(WEIGHTS[2 * block : 2 * block + 2]).max()
            axes.text(7.7, 2 * block + 0.5, f"absmax\n{absmax:.2f}", va="center", size=8)
        both = below.subplots(1, 2)
        for part, back, title in zip(both, (one, four), ("one constant", "one a block"), strict=True):
            part.imshow(np.abs(back - WEIGHTS), cmap="Greys", vmin=0, vmax=0.18)
            rms = np.sqrt(np.square(back - WEIGHTS).mean())
            part.set_title(f"error, {title}\nRMS {rms:.3f}")
        for part in (axes, *both):
            part.set(xticks=[], yticks=[])
            part.grid(visible=False)
            for row in (1.5, 3.5, 5.5):
                part.axhline(row, color="0.0", linewidth=1.5)


def levels(path: Path) -> None:
    """The fifteen equal steps and the sixteen levels of NF4 under the density of weights in a block."""
    most = 2.59  # standard deviations: the mean of the largest absolute value of 64 normally distributed weights
    at = np.linspace(-1, 1, 401)
    with drawing(path, (WIDTH, 3.4)) as figure:
        axes = figure.subplots()
        axes.fill_between(at, norm.pdf(most * at) / norm.pdf(0), color="0.88")
        axes.plot(at, norm.pdf(most * at) / norm.pdf(0), color="0.0", linewidth=1)
        shown = (("NF4: 16 levels", nf4_levels(), -0.35), ("equal steps: 15", np.arange(-7, 8) / 7, -0.85))
        for name, places, height in shown:
            axes.vlines(places, height, height + 0.22, color="0.0", linewidth=1.2)
            axes.text(0, height - 0.03, name, ha="center", va="top")
        axes.text(0, 0.4, "density of\nthe weights", ha="center", va="center")
        axes.set(xlim=(-1.03, 1.03), ylim=(-1.1, 1.05), yticks=[], xticks=[-1, -0.5, 0, 0.5, 1])
        axes.set_xlabel("weight / largest absolute value of its block")
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)


def qlora(path: Path) -> None:
    """What a layer stores, in bits a weight, and the way from there to its product."""
    with drawing(path, (WIDTH, 4.4)) as figure:
        axes = _canvas(figure, 10, 9.4)
        _box(axes, (0.1, 7.6), (3.1, 1.3), "fp32 constants\n0.002 bits a weight")
        _box(axes, (3.5, 7.6), (3.0, 1.3), "8-bit constants\n0.125 bits", "0.93")
        _box(axes, (6.7, 7.6), (3.2, 1.3), "4-bit codes (NF4)\n4 bits", "0.85")
        _box(axes, (1.7, 5.6), (3.2, 1.0), "constant of\neach block")
        _box(axes, (5.0, 3.5), (3.6, 1.0), "W, in bf16\nfor this product", "0.85")
        _arrow(axes, (1.7, 7.6), (2.6, 6.6))
        _arrow(axes, (5.0, 7.6), (4.1, 6.6))
        axes.text(0.2, 6.75, "1st", ha="left", va="center", style="italic")
        _arrow(axes, (4.2, 5.6), (5.9, 4.5))
        _arrow(axes, (8.3, 7.6), (7.4, 4.5))
        axes.text(8.2, 5.6, "2nd", ha="left", va="center", style="italic")
        _box(axes, (0.4, 3.5), (3.6, 1.0), "A and B, in fp32\ntrained")
        _arrow(axes, (2.2, 3.5), (3.9, 1.9))
        _arrow(axes, (6.8, 3.5), (5.7, 1.9))
        _box(axes, (1.3, 0.7), (7.0, 1.2), "doubleDequant(W) x + (alpha / r) B A x")


PICTURES: dict[str, Callable[[Path], None]] = {
    "memory.png": memory, "lora.png": lora, "blocks.png": blocks, "levels.png": levels, "qlora.png": qlora
}  # fmt: skip


def main(folder: Path = IMAGES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        draw(folder / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
