"""How near one trained adapter, cut to lower ranks, comes to adapters that were trained at these ranks.

    loraft sweep --config benchmarks/vsfc.yaml --data FOLDER --ranks 1,2,4,...,128 --set name=vsfc-ranks
    python benchmarks/rank_curve.py runs/vsfc-ranks

The trial of the largest rank is cut to the ranks of the others and scored on the test split, as
`loraft sweep --from runs/vsfc-ranks` does it. Prints for each rank the macro F1 of the cut and of the trained adapter,
their difference with its paired 90 % interval, whether the two are equivalent (two one-sided tests, 5 %, 1.5 points),
how many test rows would show that with a chance of 80 % were they equal, and the same of the accuracy; then the time
beside one training.
"""

import sys
import tempfile
import time
from pathlib import Path

from scipy.stats import norm

from loraft.config.resolve import resolve
from loraft.evaluation.equivalence import LEVEL, MARGIN, Equivalence, equivalence
from loraft.runs.bundle import config_of
from loraft.runs.predictions import read_predictions
from loraft.runs.run import Run
from loraft.studies.sweep.curve import find_source, rank_curve

POWER = 0.8


def rows_needed(found: Equivalence, rows: int) -> int:
    """Test rows that show two equal models to be equivalent, by the width of the interval on these rows."""
    sd = (found.interval[1] - found.interval[0]) / 2 / norm.ppf(1 - LEVEL)
    # Of equal models the difference must stay inside MARGIN - z sd on both sides.
    return round(rows * (sd * (norm.ppf(1 - LEVEL) + norm.ppf((1 + POWER) / 2)) / MARGIN) ** 2)


def main() -> None:
    """Prints one line for each rank, and the time."""
    run = find_source(sys.argv[1], Path.cwd())
    with tempfile.TemporaryDirectory() as folder:
        config = resolve(base=config_of(run).model_copy(update={"name": "curve"}), flags={"output": folder})
        started = time.perf_counter()
        result = rank_curve(run, config)
        seconds = time.perf_counter() - started
        answers = {(point.rank, point.made): read_predictions(Run.open(point.run)) for point in result.points}
    trained = {point.rank: point for point in result.points if point.made == "trained"}
    print(f"cut from {result.source}, {result.n:,} test rows, {result.metric.word}")
    for point in result.points:
        if point.made == "cut" and (found := point.to_trained) is not None:
            own, other = (one.scores[result.metric.key] for one in (point, trained[point.rank]))
            low, high = (100 * bound for bound in found.interval)
            word = "equivalent" if found.equivalent else "not shown to be equivalent"
            both = [answers[point.rank, made].predictions_N for made in ("cut", "trained")]
            right = equivalence(answers[point.rank, "cut"].references_N, *both, len(result.labels), score="accuracy")
            print(
                f"rank {point.rank}: cut {own:.4f}, trained {other:.4f}, {100 * found.difference:+.1f} points"
                f" [{low:+.1f}, {high:+.1f}]: {word} ({rows_needed(found, result.n):,} rows needed);"
                f" accuracy {100 * right.difference:+.1f} [{100 * right.interval[0]:+.1f},"
                f" {100 * right.interval[1]:+.1f}]: {'' if right.equivalent else 'not '}equivalent;"
                f" energy {point.energy or 0:.1%}"
            )
    print(
        f"training rank {result.rank} {result.training_seconds:.0f} s; cutting and scoring {result.seconds:.0f} s, with"
        f" loading, data and figures {seconds:.0f} s: {1 + seconds / result.training_seconds:.2f} times one training"
    )


if __name__ == "__main__":
    main()
