"""Tables of a sweep and of a comparison of runs, for the terminal, a page or Markdown."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from loraft.display.table import add_row, narrow_table, number_table

OUTCOMES = ("mended", "broken", "wrong in both")


def comparison(result: Mapping[str, Any]) -> Table:
    """Each run by its number in `comparison_notes`: scores, differences in points with intervals, McNemar's test.

    Args:
        result: what `comparing.compare` returns.
    """
    interval = f"{result['confidence']:.0%} interval"
    table = narrow_table("run", "score", "value", "points", interval, "mended", "broken", "McNemar p", "verdict")
    for number, run in enumerate([result["first"], *result["others"]], start=1):
        cells = ["", "", "", "first"]
        if number > 1:
            test = run["mcnemar"]
            cells = [str(test["b"]), str(test["c"]), f"{test['p_holm']:.3g}", verdict(run)]
        for score, name in (("accuracy", "accuracy"), ("macro_f1", "macro F1")):
            gap = ["", ""]
            if number > 1:
                low, high = (100 * bound for bound in run["difference"][score]["interval"])
                gap = [f"{100 * run['difference'][score]['difference']:+.2f}", f"{low:+.2f} to {high:+.2f}"]
            add_row(table, str(number), name, f"{run[score]:.4f}", *gap, *cells)
            cells = [""] * 4  # the test is of the answers, not of a score
    table.columns[1].justify = "left"
    return table


def comparison_notes(result: Mapping[str, Any]) -> list[str]:
    """Which run has which number, and what the differences and the test are: one sentence a line."""
    several = len(result["others"])
    corrected = f", Holm-corrected for {several} comparisons" if several > 1 else ""
    return [
        *(f"run {number}: {run['run']}" for number, run in enumerate([result["first"], *result["others"]], start=1)),
        f"points: difference to run 1 on {result['n']:,} test rows; mended, broken: rows that only the run, or only run"
        f" 1, has right; McNemar's test is exact{corrected}",
    ]


def verdict(other: Mapping[str, Any]) -> str:
    """What the intervals of the differences say of a run against the first: worse, better, or neither."""
    if other["worse"]:
        return "worse"
    better = any(difference["interval"][0] > 0 for difference in other["difference"].values())
    return "better" if better else "no difference shown"


def changed(result: Mapping[str, Any], number: int, most: int) -> Table:
    """The first rows that a run answers otherwise than the first run.

    Args:
        result: what `comparing.compare` returns.
        number: of the run, as in `comparison_notes`: 2 or more.
        most: rows to show of each outcome.
    """
    other = result["others"][number - 2]
    table = number_table("changed", "row", "reference", "run 1", f"run {number}", "sentence")
    for column in table.columns[2:]:
        column.justify = "left"
    for outcome in OUTCOMES:
        rows = [row for row in other["changed"] if row["outcome"] == outcome]
        for row in rows[:most]:
            answers = [row[key] or "no label" for key in ("label", "first", "other")]
            add_row(table, outcome, str(row["row"]), *answers, row["text"])
        if len(rows) > most:
            add_row(table, outcome, f"{len(rows) - most} more", "", "", "", "")
    return table
