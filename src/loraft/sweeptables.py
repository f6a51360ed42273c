"""Tables of a sweep and of a comparison of runs, for the terminal, a page or Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

WORDS = {"lora.r": "rank", "seed": "seed"}
OUTCOMES = ("mended", "broken", "wrong in both")


def key_word(key: str) -> str:
    """How a swept key is called in tables and plots: the word behind the last dot, `rank` for `lora.r`."""
    return WORDS.get(key, key.split(".")[-1])


def alpha_in_words(sweep: Mapping[str, Any]) -> str:
    """The alpha policy of the trials, or the first and the last of many."""
    policies = sweep["alpha_policies"]
    return "; ".join(policies) if len(policies) <= 3 else f"{policies[0]}; ...; {policies[-1]}"


def in_words(value: Any) -> str:
    """A swept key's value in tables and plots."""
    return f"{value:g}" if isinstance(value, float) else "+".join(value) if isinstance(value, list) else str(value)


def plan(trials: Sequence[Mapping[str, Any]]) -> Table:
    """What a sweep would run.

    Args:
        trials: `name`, `settings`, `alpha_policy`, `trainable_parameters` (None if unknown) and `status` of each.
    """
    keys = list(trials[0]["settings"])
    table = _table("trial", *map(key_word, keys), "alpha policy", "trainable parameters", "status")
    for trial in trials:
        count = trial["trainable_parameters"]
        values = [in_words(trial["settings"][key]) for key in keys]
        _add(
            table,
            trial["name"],
            *values,
            trial["alpha_policy"],
            "?" if count is None else f"{count:,}",
            trial["status"],
        )
    return table


def trials(sweep: Mapping[str, Any]) -> Table:
    """Every trial with its test scores, what it cost, and whether it can be told apart from the best; fractions.

    Args:
        sweep: what `sweeps.sweep` returns.
    """
    keys, several = sweep["keys"], len(sweep["alpha_policies"]) > 1
    interval = f"{sweep['confidence']:.0%} interval"
    table = _table(
        *map(key_word, keys), "accuracy", interval, "macro F1", interval, "precision", "recall", "validation F1",
        *(["alpha policy"] if several else []), "parameters", "seconds", "peak MiB", "against the best",
    )  # fmt: skip
    for trial in sweep["trials"]:
        values = [in_words(trial["settings"][key]) for key in keys]
        if trial["status"] == "failed":
            empty = [""] * (len(table.columns) - len(keys) - 1)
            _add(table, *values, *empty, f"failed: {trial['error'].splitlines()[0][:80]}")
            continue
        resumed = "" if trial["resumed_from_step"] is None else f" from step {trial['resumed_from_step']}"
        _add(
            table,
            *values,
            *_score(trial, "accuracy"),
            *_score(trial, "macro_f1"),
            f"{trial['macro_precision']:.4f}",
            f"{trial['macro_recall']:.4f}",
            f"{trial['validation_macro_f1']:.4f}",
            *([trial["alpha_policy"]] if several else []),
            f"{trial['trainable_parameters']:,}",
            f"{trial['seconds']:,.1f}{resumed}",
            f"{trial['peak_memory_mib']:,}",
            _against(trial, sweep["best"]),
        )
    table.columns[-1].justify = "left"
    return table


def settings(sweep: Mapping[str, Any]) -> Table:
    """The settings of a sweep with several seeds: mean and standard deviation over seeds, and the interval."""
    keys = [key for key in sweep["keys"] if key != "seed"]
    interval = f"{sweep['confidence']:.0%} interval"
    table = _table(*map(key_word, keys), "seeds", "accuracy", interval, "macro F1", interval)
    for row in sweep["settings"]:
        cells = [in_words(row["settings"][key]) for key in keys] + [str(row["seeds"])]
        for score in ("accuracy", "macro_f1"):
            sd, (low, high) = row[score]["sd"], row[score]["interval"]
            cells.append(f"{row[score]['mean']:.4f}" + ("" if sd is None else f" ± {sd:.4f}"))
            cells.append(f"{low:.3f} to {high:.3f}")
        _add(table, *cells)
    return table


def sweep_tables(sweep: Mapping[str, Any]) -> list[Table]:
    """The tables of a sweep that have something to say, in order."""
    several = any(row["seeds"] > 1 for row in sweep["settings"])
    return [trials(sweep), *([settings(sweep)] if several else [])]


def sweep_notes(sweep: Mapping[str, Any]) -> list[str]:
    """What the tables of a sweep rest on, and which trial is best: one sentence a line."""
    notes = [f"alpha policy: {alpha_in_words(sweep)}"]
    best = sweep["best"]
    failed = sum(trial["status"] == "failed" for trial in sweep["trials"])
    notes += [f"failed: {failed} of {len(sweep['trials'])} trials"] if failed else []
    if best is None:
        return notes
    notes.append(
        f"best: {best['name']}, by macro F1 on validation ({best['validation_macro_f1']:.4f}); on test "
        f"{best['macro_f1']:.4f}"
    )
    tests = [trial["versus_best"] for trial in sweep["trials"] if trial.get("versus_best")]
    if tests:
        same = sum(test["same"] for test in tests)
        notes.append(
            f"=: cannot be told apart from the best on {best['n']:,} test rows: {same} of {len(tests)} (exact McNemar "
            f"test, Holm-corrected for all of them, level {1 - sweep['confidence']:.2g})"
        )
    return notes


def comparison(result: Mapping[str, Any]) -> Table:
    """Each further run beside the first: scores, differences in points with intervals, and McNemar's test.

    Args:
        result: what `comparing.compare` returns.
    """
    interval = f"{result['confidence']:.0%} interval"
    heads = ["accuracy", "points", interval, "macro F1", "points", interval]
    table = _table("run", *heads, "mended", "broken", "McNemar p", "verdict")
    first = result["first"]
    _add(
        table, first["run"], f"{first['accuracy']:.4f}", "", "", f"{first['macro_f1']:.4f}", "", "", "", "", "", "first"
    )
    for other in result["others"]:
        cells = []
        for score in ("accuracy", "macro_f1"):
            difference = other["difference"][score]
            low, high = (100 * bound for bound in difference["interval"])
            cells += [f"{other[score]:.4f}", f"{100 * difference['difference']:+.2f}", f"{low:+.2f} to {high:+.2f}"]
        test = other["mcnemar"]
        _add(table, other["run"], *cells, str(test["b"]), str(test["c"]), f"{test['p_holm']:.3g}", verdict(other))
    table.columns[-1].justify = "left"
    return table


def verdict(other: Mapping[str, Any]) -> str:
    """What the intervals of the differences say of a run against the first: worse, better, or neither."""
    if other["worse"]:
        return "worse"
    better = any(difference["interval"][0] > 0 for difference in other["difference"].values())
    return "better" if better else "no difference shown"


def changed(other: Mapping[str, Any], most: int) -> Table:
    """The first rows that a run answers otherwise than the first run.

    Args:
        other: one of the `others` that `comparing.compare` returns.
        most: rows to show of each outcome.
    """
    table = _table("changed", "row", "reference", "first", "other", "sentence")
    for column in table.columns[2:]:
        column.justify = "left"
    for outcome in OUTCOMES:
        rows = [row for row in other["changed"] if row["outcome"] == outcome]
        for row in rows[:most]:
            answers = [row[key] or "no label" for key in ("label", "first", "other")]
            _add(table, outcome, str(row["row"]), *answers, row["text"])
        if len(rows) > most:
            _add(table, outcome, f"{len(rows) - most} more", "", "", "", "")
    return table


def _against(trial: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    if trial["name"] == best["name"]:
        return "best"
    test = trial["versus_best"]
    if test is None:
        return "other test rows"
    return f"{'=' if test['same'] else 'differs'} (p {test['p_holm']:.3g})"


def _score(trial: Mapping[str, Any], score: str) -> list[str]:
    low, high = trial["intervals"][score]
    return [f"{trial[score]:.4f}", f"{low:.3f} to {high:.3f}"]


def _add(table: Table, *cells: str) -> None:
    table.add_row(*map(Text, cells))  # a name or a sentence may hold what rich reads as markup


def _table(first: str, *columns: str) -> Table:
    table = Table(first, box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right")
    return table
