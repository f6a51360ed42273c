"""Tables of a sweep and of a comparison of runs, for the terminal, a page or Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from loraft.display.table import add_row, narrow_table, number_table

WORDS = {"lora.r": "rank", "seed": "seed"}


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
    table = number_table("trial", *map(key_word, keys), "alpha policy", "trainable parameters", "status")
    for trial in trials:
        count = trial["trainable_parameters"]
        values = [in_words(trial["settings"][key]) for key in keys]
        add_row(
            table,
            trial["name"],
            *values,
            trial["alpha_policy"],
            "?" if count is None else f"{count:,}",
            trial["status"],
        )
    return table


def settings(sweep: Mapping[str, Any]) -> Table:
    """Every setting with its test scores, what it cost, and whether it can be told apart from the best; fractions.

    With several seeds scores, seconds and memory are means over them, with the standard deviation behind ±.

    Args:
        sweep: what `sweeps.sweep` returns.
    """
    keys, policies = [key for key in sweep["keys"] if key != "seed"], len(sweep["alpha_policies"]) > 1
    table = narrow_table(
        *map(key_word, keys), *(["alpha policy"] if policies else []), "accuracy", "macro F1", "precision", "recall",
        "val. F1", "parameters", "seconds", "MiB", "against the best",
    )  # fmt: skip
    for row in sweep["settings"]:
        cells = [in_words(row["settings"][key]) for key in keys] + ([row["alpha_policy"]] if policies else [])
        if not row["seeds"]:
            add_row(table, *cells, *[""] * (len(table.columns) - len(cells) - 1), "failed")
            continue
        some = f" ({row['seeds']} of {len(row['trials'])} seeds)" if row["failed"] else ""
        add_row(
            table,
            *cells,
            _score(**row["accuracy"]),
            _score(**row["macro_f1"]),
            f"{row['macro_precision']['mean']:.4f}",
            f"{row['macro_recall']['mean']:.4f}",
            f"{row['validation_macro_f1']:.4f}",
            f"{row['trainable_parameters']:,}",
            f"{row['seconds']:,.1f}",
            _mib(row["peak_memory_mib"]),
            _against(row, sweep["best_setting"]) + some,
        )
    return table


def trials(sweep: Mapping[str, Any]) -> Table:
    """Every trial of a sweep with several seeds; fractions.

    Args:
        sweep: what `sweeps.sweep` returns.
    """
    keys = sweep["keys"]
    table = narrow_table(
        *map(key_word, keys), "accuracy", "macro F1", "precision", "recall", "val. F1", "seconds", "MiB", "best"
    )
    for trial in sweep["trials"]:
        cells = [in_words(trial["settings"][key]) for key in keys]
        if trial["status"] == "failed":
            add_row(table, *cells, *[""] * (len(table.columns) - len(cells) - 1), "failed")
            continue
        add_row(
            table,
            *cells,
            *(_score(trial[score], None, trial["intervals"][score]) for score in ("accuracy", "macro_f1")),
            *(f"{trial[score]:.4f}" for score in ("macro_precision", "macro_recall", "validation_macro_f1")),
            f"{trial['seconds']:,.1f}",
            _mib(trial["peak_memory_mib"]),
            "best" if trial["name"] == sweep["best"]["name"] else "",
        )
    return table


def sweep_tables(sweep: Mapping[str, Any]) -> list[Table]:
    """The tables of a sweep that have something to say, in order."""
    return [settings(sweep), *([trials(sweep)] if most_seeds(sweep) > 1 else [])]


def most_seeds(sweep: Mapping[str, Any]) -> int:
    """How many seeds finished in the setting that has most of them."""
    return max(int(row["seeds"]) for row in sweep["settings"])


def sweep_notes(sweep: Mapping[str, Any]) -> list[str]:
    """What the tables of a sweep rest on, and which setting and trial are best: one sentence a line."""
    notes = [f"alpha policy: {alpha_in_words(sweep)}"]
    best, setting, seeds = sweep["best"], sweep["best_setting"], most_seeds(sweep)
    failed = [trial for trial in sweep["trials"] if trial["status"] == "failed"]
    notes += [f"{trial['name']} failed: {(trial['error'].splitlines() or [''])[0]}" for trial in failed]
    notes += ["the same command tries failed trials again; their tracebacks lie in the folder errors"] if failed else []
    if best is None:
        return notes
    interval = f"in brackets: {sweep['confidence']:.0%} interval over test rows"
    over_seeds = f"means over {seeds} seeds, also of seconds and MiB; ±: standard deviation over seeds"
    notes.append(f"{over_seeds}; {interval} and seeds" if seeds > 1 else interval)
    notes.append("val. F1: macro F1 on validation, which chooses the best")
    notes.append("MiB: peak memory of training; on a CPU that of the process, which keeps some of earlier trials")
    if any(trial.get("joint") for trial in sweep["trials"]):
        notes.append(
            "of trials that were trained in one pass, seconds are the share of each, MiB are of the whole pass"
        )
    chosen = f"by macro F1 on validation ({best['validation_macro_f1']:.4f})"
    on_test = f"on test {best['macro_f1']:.4f}"
    if seeds > 1:
        notes.append(
            f"best setting: {setting_in_words(setting)}, by mean macro F1 on validation "
            f"({setting['validation_macro_f1']:.4f}); on test {setting['macro_f1']['mean']:.4f}"
        )
        notes.append(f"best trial: {best['name']}, of this setting's seeds {chosen}; {on_test}")
    else:
        notes.append(f"best: {best['name']}, {chosen}; {on_test}")
    tests = [row["versus_best"] for row in sweep["settings"] if row.get("versus_best")]
    if tests:
        same = sum(test["same"] for test in tests)
        how = "exact McNemar test of right answers"
        if seeds > 1:
            how = "exact sign-flip test of right answers, summed over seeds by test row; it takes the seeds as given"
        notes.append(
            f"=: cannot be told apart from the best on {tests[0]['n']:,} test rows: {same} of {len(tests)} ({how}; "
            f"Holm-corrected for all of them, level {1 - sweep['confidence']:.2g})"
        )
    return notes


def setting_in_words(row: Mapping[str, Any]) -> str:
    """A setting by its keys and values, like `rank 8, learning_rate 0.0005`; if only seeds were swept, "all seeds"."""
    return ", ".join(f"{key_word(key)} {in_words(value)}" for key, value in row["settings"].items()) or "all seeds"


def _against(row: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    if row["settings"] == best["settings"]:
        return "best"
    test = row["versus_best"]
    if test is None:
        return "other rows or seeds"
    sign = "=" if test["same"] else "higher" if test["b"] > test["c"] else "lower"
    p = test["p_holm"]
    return f"{sign} {'p<0.001' if p < 0.001 else f'p={p:.2g}'}"


def _score(mean: float, sd: float | None, interval: Sequence[float]) -> str:
    # Without spaces but where a narrow terminal may break the line.
    low, high = (f"{bound:.3f}".removeprefix("0") for bound in interval)
    return f"{mean:.4f}{'' if sd is None else f' ±{sd:.4f}'} [{low},{high}]"


def _mib(peak: int | None) -> str:
    return "?" if peak is None else f"{peak:,}"
