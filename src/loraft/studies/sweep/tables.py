"""Builds the tables of a sweep and the notes below them, for the terminal, the report page and Markdown.

What a column shows comes from `records.SettingScores` and `records.TrialScores`; `ranking` and `runner` fill them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from loraft.display.table import add_row, narrow_table, number_table
from loraft.evaluation.shares import Interval, percent

if TYPE_CHECKING:  # so that a dry run does not import numpy
    from loraft.studies.sweep.records import SearchOutcome, SettingRecord, SettingScores, SweepResult
    from loraft.studies.sweep.space import Axis
    from loraft.studies.sweep.trials import PlannedTrial

WORDS = {"lora.r": "rank", "seed": "seed"}


def key_word(key: str) -> str:
    """The name of a swept key in tables and figures: the part after the last dot, but `rank` for `lora.r`."""
    return WORDS.get(key, key.split(".")[-1])


def alpha_in_words(sweep: SweepResult) -> str:
    """The alpha policies of the trials; of more than three only the first and the last."""
    policies = sweep.alpha_policies
    return "; ".join(policies) if len(policies) <= 3 else f"{policies[0]}; ...; {policies[-1]}"


def in_words(value: Any, key: str = "") -> str:
    """The value of a swept key in tables and figures, null as in a config; of a learning rate, what it means."""
    if value is None:
        return "by size" if key == "train.learning_rate" else "null"
    return f"{value:g}" if isinstance(value, float) else "+".join(value) if isinstance(value, list) else str(value)


def plan(trials: Sequence[PlannedTrial]) -> Table:
    """The table that `--dry-run` prints: each trial, what it would train, and its status."""
    keys = list(trials[0].settings)
    table = number_table("trial", *map(key_word, keys), "alpha policy", "trainable parameters", "status",
                         drop=("alpha policy",))  # fmt: skip
    for trial in trials:
        count = "?" if trial.trainable_parameters is None else f"{trial.trainable_parameters:,}"
        values = [in_words(trial.settings[key], key) for key in keys]
        add_row(table, trial.name, *values, trial.alpha_policy, count, trial.status)
    return table


def space(axes: Sequence[Axis]) -> Table:
    """The table that `--dry-run` prints of a search: each key, its values, and how they are drawn."""
    table = number_table("key", "values", "drawn")
    for axis in axes:
        words = [in_words(value) for value in axis.values]
        if axis.drawn == "list":
            add_row(table, axis.key, ", ".join(words), "from a list in order" if axis.in_order else "from a list")
        else:
            add_row(table, axis.key, " to ".join(words), "log-uniformly" if axis.drawn == "log" else "uniformly")
    return table


def settings(sweep: SweepResult) -> Table:
    """A row for each setting: test scores as fractions, costs, and the test against the best setting.

    The scores of a search are on the validation rows, by which it chose.

    With several seeds, scores, seconds and memory are means over them; ± is the standard deviation.
    """
    keys, policies = [key for key in sweep.keys if key != "seed"], len(sweep.alpha_policies) > 1
    chosen_by = [] if sweep.search else [_on_validation(sweep)]  # of a search one of the scores
    ended = {trial.name: trial for trial in sweep.trials}
    table = narrow_table(
        *map(key_word, keys), *(["alpha policy"] if policies else []), *_score_names(sweep), *chosen_by,
        "parameters", "seconds", "MiB", "against the best",
        drop=("MiB", "seconds", "parameters", "recall", "precision", "alpha policy", "accuracy"),
    )  # fmt: skip
    for row in sweep.settings:
        cells = [in_words(row.settings[key], key) for key in keys] + ([row.alpha_policy] if policies else [])
        measured = row.measured
        if measured is None:
            step = ended[row.trials[0]].pruned_at
            how = "failed" if step is None else f"pruned, step {step:,}"
            add_row(table, *cells, *[""] * (len(table.columns) - len(cells) - 1), how)
            continue
        some = f" ({row.seeds} of {len(row.trials)} seeds)" if row.failed else ""
        spreads = (measured.scores.get(score) for score in _scores(sweep))  # a run of an earlier version may lack one
        add_row(
            table,
            *cells,
            *("" if spread is None else _score(spread.mean, spread.sd, spread.interval) for spread in spreads),
            *([f"{measured.chosen_by:.4f}"] if chosen_by else []),
            f"{measured.trainable_parameters:,}",
            f"{measured.seconds:,.1f}",
            _mib(measured.peak_memory_mib),
            _against(row, measured, sweep.best_setting) + some,
        )
    return table


def trials(sweep: SweepResult) -> Table:
    """A row for each trial, for a sweep with several seeds: test scores as fractions, and costs."""
    table = narrow_table(
        *map(key_word, sweep.keys), *_score_names(sweep), _on_validation(sweep), "seconds", "MiB", "best",
        drop=("MiB", "seconds", "recall", "precision", "accuracy"),
    )  # fmt: skip
    for trial in sweep.trials:
        cells = [in_words(trial.settings[key], key) for key in sweep.keys]
        measured = trial.measured
        if measured is None:
            add_row(table, *cells, *[""] * (len(table.columns) - len(cells) - 1), "failed")
            continue
        add_row(
            table,
            *cells,
            *(_score(measured.scores.get(score), None, measured.intervals.get(score)) for score in _scores(sweep)),
            f"{measured.chosen_by:.4f}",
            f"{measured.seconds:,.1f}",
            _mib(measured.peak_memory_mib),
            "best" if sweep.best is not None and trial.name == sweep.best.name else "",
        )
    return table


def sweep_tables(sweep: SweepResult) -> list[Table]:
    """The tables to show: of the settings, with several seeds also of the trials, and the baselines."""
    from loraft.evaluation.tables import baselines  # imported here, so that a dry run does not import numpy

    several = [trials(sweep)] if most_seeds(sweep) > 1 else []
    return [settings(sweep), *several, *baselines({"": sweep.baselines}, metric=sweep.metric)]


def most_seeds(sweep: SweepResult) -> int:
    """The largest number of finished seeds among the settings."""
    return max(row.seeds for row in sweep.settings)


def sweep_notes(sweep: SweepResult, left_out: Collection[str] = ()) -> list[str]:
    """The notes below the tables, one a line: errors, what the columns mean, the best setting and trial, the test.

    Args:
        sweep: the result.
        left_out: heads of columns that are not shown, which no note explains.
    """
    notes = [f"alpha policy: {alpha_in_words(sweep)}"]
    notes += [f"{trial.name} failed: {((trial.error or '').splitlines() or [''])[0]}" for trial in sweep.failed]
    if sweep.search is not None:
        notes += _search_notes(sweep, sweep.search)
    if sweep.failed:
        notes.append("the same command runs failed trials again; their tracebacks are in the folder errors")
    best, setting, seeds = sweep.best, sweep.best_setting, most_seeds(sweep)
    if best is None or setting is None or best.measured is None or setting.measured is None:
        return notes
    rows = "validation" if sweep.search else "test"
    interval = f"in brackets: {percent(sweep.confidence)} interval over {rows} rows"
    over_seeds = f"means over {seeds} seeds, also of seconds and MiB; ±: standard deviation over seeds"
    word, key = sweep.metric.word, sweep.metric.key
    if sweep.search is None:
        notes.append(f"{over_seeds}; {interval} and seeds" if seeds > 1 else interval)
        notes.append(f"{_on_validation(sweep)}: {word} on validation, which chooses the best")
    else:
        notes.append(f"table of the trials: {best.measured.n:,} validation rows, which choose the best; {interval}")
    if "MiB" not in left_out:
        notes.append(
            "MiB: peak memory of training; on a CPU that of the process, which may hold memory of earlier trials"
        )
    if any(one.measured is not None and one.measured.joint for one in sweep.trials) and "seconds" not in left_out:
        notes.append("trials that were trained in one pass: seconds are each trial's share, MiB are of the whole pass")
    chosen = f"by {word} on validation ({best.measured.chosen_by:.4f})"
    test = sweep.search.test if sweep.search is not None else best.measured
    on_test = "" if test is None else f"on test {test.scores[key]:.4f}"
    if sweep.search is not None and test is not None:
        others = sweep.search.looks - 1
        told = "no other trial" if not others else "1 other trial, too" if others == 1 else f"{others:,} others, too"
        on_test += f" over {test.n:,} rows, which judged {told}"
    if seeds > 1:
        notes.append(
            f"best setting: {setting_in_words(setting)}, by mean {word} on validation "
            f"({setting.measured.chosen_by:.4f}); on test {setting.measured.scores[key].mean:.4f}"
        )
        notes.append(f"best trial: {best.name}, of this setting's seeds {chosen}; {on_test}")
    else:
        notes.append(f"best: {best.name}, {chosen}; {on_test}")
    if sweep.baselines is not None:
        from loraft.evaluation.tables import baselines_notes  # as in `sweep_tables`

        if sweep.search is not None and test is not None:
            notes.append(f"table of the baselines: the {test.n:,} test rows, with the best trial alone")
        notes += baselines_notes({"": sweep.baselines}, metric=sweep.metric)
        notes.append(f"the best trial beside the baselines: {sweep.baselines.verdict}")
    of_settings = [row.measured.versus_best for row in sweep.settings if row.measured is not None]
    tests = [test for test in of_settings if test is not None]
    if tests:
        same = sum(test.same for test in tests)
        how = "exact McNemar test of right answers"
        if seeds > 1:
            how = "exact sign-flip test of right answers, summed over seeds by test row; it takes the seeds as given"
        notes.append(
            f"=: cannot be told apart from the best on {tests[0].n:,} {rows} rows: {same} of {len(tests)} ({how}; "
            f"Holm-corrected for all of them, level {1 - sweep.confidence:.2g})"
        )
    return notes


def _search_notes(sweep: SweepResult, search: SearchOutcome) -> list[str]:
    """How the trials of a search ended."""
    ended = [trial.status for trial in sweep.trials]
    finished, pruned, failed = (ended.count(way) for way in ("finished", "pruned", "failed"))
    return [
        f"trials: {search.proposed:,}, of which {finished:,} finished, {pruned:,} pruned, {failed:,} failed,"
        f" {search.repeated:,} proposed again and not trained twice"
    ]


def setting_in_words(row: SettingRecord) -> str:
    """The keys and values of a setting, like `rank 8, learning_rate 0.0005`; "all seeds" if only seeds were swept."""
    return ", ".join(f"{key_word(key)} {in_words(value, key)}" for key, value in row.settings.items()) or "all seeds"


def _scores(sweep: SweepResult) -> dict[str, str]:
    """The scores that have a column each, and their heads."""
    given = {score for trial in sweep.trials if trial.measured for score in trial.measured.scores}
    return sweep.metric.columns(given)


def _score_names(sweep: SweepResult) -> list[str]:
    short = {"macro_precision": "precision", "macro_recall": "recall"}
    return [short.get(score, head) for score, head in _scores(sweep).items()]


def _on_validation(sweep: SweepResult) -> str:
    """The head of the column of the score that chooses the best."""
    key = sweep.metric.key
    return "val. F1" if key == "macro_f1" else f"val. {sweep.metric.columns([key])[key]}"


def _against(row: SettingRecord, measured: SettingScores, best: SettingRecord | None) -> str:
    if best is not None and row.settings == best.settings:
        return "best"
    test = measured.versus_best
    if test is None:
        return "other rows or seeds"
    sign = "=" if test.same else "higher" if test.b > test.c else "lower"
    return f"{sign} {'p<0.001' if test.p_holm < 0.001 else f'p={test.p_holm:.2g}'}"


def _score(mean: float | None, sd: float | None, interval: Interval | None) -> str:
    if mean is None:
        return ""
    if interval is None:
        return f"{mean:.4f}"
    # A space only where a narrow terminal may break the cell into lines.
    low, high = (f"{bound:.3f}".removeprefix("0") for bound in interval)
    return f"{mean:.4f}{'' if sd is None else f' ±{sd:.4f}'} [{low},{high}]"


def _mib(peak: int | None) -> str:
    return "?" if peak is None else f"{peak:,}"
