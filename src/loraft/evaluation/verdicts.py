"""Differences between models in words: which is better, in which scores, and by how much."""

from collections.abc import Callable, Mapping

from loraft.evaluation.intervals import Difference
from loraft.evaluation.metrics import ALL_SCORES, LOWER_IS_BETTER
from loraft.evaluation.shares import percent
from loraft.evaluation.significance import shown

BETTER, WORSE, UNCLEAR = "better", "worse", "cannot be told apart"  # every verdict in tables and reports
SHOWN = {1: BETTER, -1: WORSE, 0: "neither"}  # in cells, by the sign of `better`


def better(score: str, difference: Difference, confidence: float) -> int:
    """1 where the difference is shown to be for the better, -1 where for the worse, 0 where neither is shown."""
    return shown(difference, confidence) * (-1 if score in LOWER_IS_BETTER else 1)


def verdict(differences: Mapping[str, Difference], confidence: float) -> str:
    """A comparison in words: better, worse, or cannot be told apart.

    Where one score is shown to be higher and another one lower, both are named.
    """
    signs = {score: better(score, one, confidence) for score, one in differences.items()}
    if {1, -1} <= {*signs.values()}:
        words = {1: BETTER, -1: WORSE}
        return ", ".join(f"{words[sign]} in {ALL_SCORES[score]}" for score, sign in signs.items() if sign)
    return WORSE if -1 in signs.values() else BETTER if 1 in signs.values() else UNCLEAR


def against(
    differences: Mapping[str, Difference],
    confidence: float,
    other: str,
    name: Callable[[str], str] = ALL_SCORES.__getitem__,
) -> str:
    """The verdict as the end of a sentence that begins with a model: against which other, and in which scores."""
    names: dict[int, list[str]] = {-1: [], 0: [], 1: []}
    for score, one in differences.items():
        names[better(score, one, confidence)].append(name(score))
    lower, equal, higher = (f"({', '.join(names[sign])})" for sign in (-1, 0, 1))
    if names[-1]:
        return f"is {WORSE} than {other} {lower}" + (f" and {BETTER} {higher}" if names[1] else "")
    return f"is {BETTER} than {other} {higher}" if names[1] else f"{UNCLEAR} from {other} {equal}"


def in_points(difference: Difference, confidence: float, score: str = "") -> str:
    """A difference in percentage points, or steps of labels, with its interval and its p-value, for sentences."""
    low, high = (change(score, bound) for bound in difference.interval)
    tested = [] if difference.p_holm is None else [f"p={difference.p_holm:.2g}"]
    tested = [*tested, *([difference.note] if difference.note else [])]
    interval = f"{percent(confidence)} interval {low} to {high}" + (f", {'; '.join(tested)}" if tested else "")
    unit = "steps" if score in LOWER_IS_BETTER else "points"
    return f"{change(score, difference.difference)} {unit} ({interval})"


def cell(score: str, difference: float, interval: tuple[float, float] | None = None) -> str:
    """A difference with its interval, if any, in a column of points; one of a mean absolute error says "steps"."""
    bounds = "" if interval is None else f" [{change(score, interval[0])}, {change(score, interval[1])}]"
    return change(score, difference) + bounds + (" steps" if score in LOWER_IS_BETTER else "")


def change(score: str, value: float) -> str:
    """A difference of a score with its sign: in percentage points, a mean absolute error in steps of labels."""
    return f"{value:+.2f}" if score in LOWER_IS_BETTER else f"{100 * value:+.1f}"
