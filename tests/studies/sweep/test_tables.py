"""The sweep's table is the tutorial's table 4, with the costs of each setting and its test against the best one."""

from dataclasses import replace
from io import StringIO

import pytest
from helpers.baselines import NOTE, ROWS, beside, noted
from helpers.sweeps import POLICY, result
from rich.console import Console
from rich.table import Table

from loraft.display.page import cells
from loraft.studies.sweep import tables
from loraft.studies.sweep.records import SettingRecord, SettingScores, SweepResult, TrialScores, VersusBest
from loraft.studies.sweep.tables import sweep_notes, sweep_tables
from loraft.studies.sweep.trials import PlannedTrial

RANKS = (1, 2, 4, 8, 16, 32, 64, 128)


def rows(table: Table) -> list[dict[str, str]]:
    heads, found = cells(table)
    return [dict(zip(heads, row, strict=True)) for row in found]


def measured(record: SettingRecord) -> SettingScores:
    assert record.measured is not None
    return record.measured


def best_setting(sweep: SweepResult) -> SettingRecord:
    assert sweep.best_setting is not None
    return sweep.best_setting


def best_trial(sweep: SweepResult) -> tuple[str, TrialScores]:
    assert sweep.best is not None
    assert sweep.best.measured is not None
    return sweep.best.name, sweep.best.measured


def printed(table: Table, width: int) -> list[str]:
    console = Console(width=width, file=StringIO(), force_terminal=True, color_system=None)
    console.print(table)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_one_seed_makes_one_table_with_scores_costs_and_the_standing() -> None:
    sweep = result((4, 8))
    (table,) = sweep_tables(sweep)
    assert list(rows(table)[0]) == ["rank", "accuracy", "macro F1", "precision", "recall", "val. F1", "parameters",
                                    "seconds", "MiB", "against the best"]  # fmt: skip
    for shown, trial in zip(rows(table), sweep.trials, strict=True):
        scores = trial.measured
        assert scores is not None
        assert shown["rank"] == str(trial.settings["lora.r"])
        for column, score in (("accuracy", "accuracy"), ("macro F1", "macro_f1")):
            low, high = scores.intervals[score]
            interval = f"[{low:.3f},{high:.3f}]".replace("[0.", "[.").replace(",0.", ",.")
            assert shown[column] == f"{scores.scores[score]:.4f} {interval}"
        assert shown["precision"] == f"{scores.scores['macro_precision']:.4f}"
        assert shown["recall"] == f"{scores.scores['macro_recall']:.4f}"
        assert shown["val. F1"] == f"{scores.validation_macro_f1:.4f}"
        assert shown["parameters"] == f"{scores.trainable_parameters:,}"
        assert (shown["seconds"], shown["MiB"]) == (f"{scores.seconds:.1f}", str(scores.peak_memory_mib))


def test_several_seeds_make_a_table_of_the_settings_and_one_of_the_trials() -> None:
    sweep = result((4, 8), seeds=(1, 2, 3))
    settings, trials = map(rows, sweep_tables(sweep))
    assert [row["rank"] for row in settings] == ["4", "8"]
    assert [(row["rank"], row["seed"]) for row in trials] == [(r, s) for r in "48" for s in "123"]
    for shown, row in zip(settings, sweep.settings, strict=True):
        scores = measured(row)
        accuracy = scores.scores["accuracy"]
        assert shown["accuracy"].startswith(f"{accuracy.mean:.4f} ±{accuracy.sd:.4f} [.")
        assert shown["precision"] == f"{scores.scores['macro_precision'].mean:.4f}"
        assert shown["val. F1"] == f"{scores.validation_macro_f1:.4f}"
        assert shown["parameters"] == f"{scores.trainable_parameters:,}"
    assert "against the best" in settings[0]
    assert "against the best" not in trials[0]
    (best,) = (row for row in trials if row["best"] == "best")
    assert f"r{best['rank']}-s{best['seed']}" == best_trial(sweep)[0]


def standing(test: VersusBest | None) -> str:
    """What the table says of a setting with this test against the best one."""
    sweep = result((4, 8))
    changed = [
        row
        if row.settings == best_setting(sweep).settings
        else replace(row, measured=replace(measured(row), versus_best=test))
        for row in sweep.settings
    ]
    (other,) = (row for row in changed if row.settings != best_setting(sweep).settings)
    shown = {row["rank"]: row for row in rows(tables.settings(replace(sweep, settings=tuple(changed))))}
    return shown[str(other.settings["lora.r"])]["against the best"]


@pytest.mark.parametrize(
    ("test", "shown"),
    [
        (VersusBest(seeds=1, n=600, b=2, c=3, p_value=1.0, p_holm=1.0, same=True), "= p=1"),
        (VersusBest(seeds=1, n=600, b=2, c=30, p_value=0.01, p_holm=0.0216, same=False), "lower p=0.022"),
        (VersusBest(seeds=1, n=600, b=90, c=3, p_value=1e-9, p_holm=1e-9, same=False), "higher p<0.001"),
        (None, "other rows or seeds"),
    ],
)
def test_the_standing_says_whether_and_which_way_a_setting_differs(test: VersusBest | None, shown: str) -> None:
    assert standing(test) == shown


def test_the_alpha_policy_is_a_column_where_there_are_several_and_a_note_always() -> None:
    sweep = result((4, 8))
    assert "alpha policy" not in rows(tables.settings(sweep))[0]
    assert f"alpha policy: {POLICY}" in sweep_notes(sweep)
    scaled = "rsLoRA, alpha 16"
    first, second = sweep.settings
    two = replace(sweep, alpha_policies=(POLICY, scaled), settings=(first, replace(second, alpha_policy=scaled)))
    assert [row["alpha policy"] for row in rows(tables.settings(two))] == [POLICY, scaled]
    assert f"alpha policy: {POLICY}; {scaled}" in sweep_notes(two)


def test_of_many_alpha_policies_the_note_names_the_first_and_the_last() -> None:
    sweep, policies = result((4, 8)), tuple(f"alpha {alpha}" for alpha in (1, 2, 4, 8))
    assert tables.alpha_in_words(replace(sweep, alpha_policies=policies[:3])) == "alpha 1; alpha 2; alpha 4"
    assert tables.alpha_in_words(replace(sweep, alpha_policies=policies)) == "alpha 1; ...; alpha 8"


def test_a_value_that_is_not_set_is_written_as_in_a_config() -> None:
    values = [None, 5e-4, 8, "nf4", ["q_proj", "v_proj"]]
    assert list(map(tables.in_words, values)) == ["null", "0.0005", "8", "nf4", "q_proj+v_proj"]
    assert tables.in_words(None, "train.learning_rate") == "by size"


def test_the_plan_lists_each_trial_with_its_values_and_what_is_not_known() -> None:
    settings = {"lora.r": 4, "train.learning_rate": 5e-4, "lora.target_modules": ["q_proj", "v_proj"]}
    known = PlannedTrial("r4", settings, POLICY, 12_345, "new")
    new, begun = rows(tables.plan([known, replace(known, trainable_parameters=None, status="begun")]))
    assert new == {"trial": "r4", "rank": "4", "learning_rate": "0.0005", "target_modules": "q_proj+v_proj",
                   "alpha policy": POLICY, "trainable parameters": "12,345", "status": "new"}  # fmt: skip
    assert (begun["trainable parameters"], begun["status"]) == ("?", "begun")


def test_memory_that_is_not_known_is_a_question_mark() -> None:
    sweep = result((4, 8))
    first, second = sweep.settings
    unknown = replace(first, measured=replace(measured(first), peak_memory_mib=None))
    large = replace(second, measured=replace(measured(second), peak_memory_mib=12_345))
    assert [row["MiB"] for row in rows(tables.settings(replace(sweep, settings=(unknown, large))))] == ["?", "12,345"]


def test_what_failed_is_in_the_tables() -> None:
    settings, trials = map(rows, sweep_tables(result((4, 8), seeds=(1, 2, 3), failed=("r4-s2", "r8-s1"))))
    assert all(row["against the best"].endswith(" (2 of 3 seeds)") for row in settings)
    assert [row["best"] for row in trials if row["accuracy"] == ""] == ["failed"] * 2
    (table,) = sweep_tables(result((4, 8), failed=("r4",)))
    assert rows(table)[0]["against the best"] == "failed"
    nothing = result((4, 8), failed=("r4", "r8"))
    assert len(sweep_tables(nothing)) == 1
    assert [f"{name} failed: RuntimeError: hết bộ nhớ <gpu>" for name in ("r4", "r8")] == sweep_notes(nothing)[1:3]
    assert "runs failed trials again" in sweep_notes(nothing)[3]


def test_trials_of_one_pass_are_told_to_share_its_time() -> None:
    sweep = result((4, 8))
    assert not any("one pass" in note for note in sweep_notes(sweep))
    first, second = sweep.trials
    assert second.measured is not None
    joint = replace(sweep, trials=(first, replace(second, measured=replace(second.measured, joint=True))))
    assert any("seconds are each trial's share" in note for note in sweep_notes(joint))


def test_the_notes_name_the_best_and_how_it_was_compared() -> None:
    sweep = result(RANKS, rows=1000)
    tests = [measured(row).versus_best for row in sweep.settings]
    same = sum(test.same for test in tests if test is not None)
    name, scores = best_trial(sweep)
    notes = sweep_notes(sweep)
    assert (
        f"best: {name}, by macro F1 on validation ({scores.validation_macro_f1:.4f}); "
        f"on test {scores.scores['macro_f1']:.4f}"
    ) in notes
    assert 0 < same < 7
    assert notes[-1] == (
        f"=: cannot be told apart from the best on 1,000 test rows: {same} of 7 (exact McNemar test of right answers; "
        "Holm-corrected for all of them, level 0.05)"
    )


def test_with_several_seeds_the_notes_name_the_setting_and_its_best_trial() -> None:
    sweep = result((4, 8), seeds=(1, 2, 3))
    setting, notes = best_setting(sweep), sweep_notes(sweep)
    name, scores = best_trial(sweep)
    validation, on_test = measured(setting).validation_macro_f1, measured(setting).scores["macro_f1"].mean
    assert any(note.startswith("means over 3 seeds, also of seconds and MiB; ±: standard dev") for note in notes)
    assert (
        f"best setting: rank {setting.settings['lora.r']}, by mean macro F1 on validation ({validation:.4f}); "
        f"on test {on_test:.4f}"
    ) in notes
    assert (
        f"best trial: {name}, of this setting's seeds by macro F1 on validation ({scores.validation_macro_f1:.4f}); "
        f"on test {scores.scores['macro_f1']:.4f}"
    ) in notes
    assert "sign-flip test of right answers, summed over seeds by test row; it takes the seeds as given" in notes[-1]


@pytest.mark.parametrize("seeds", [(), (1, 2, 3)])
def test_in_a_hundred_columns_no_number_is_cut(seeds: tuple[int, ...]) -> None:
    sweep = result(RANKS, seeds=seeds)
    for table in sweep_tables(sweep):
        lines = printed(table, 100)
        assert max(map(len, lines)) <= 100
        words = {word for line in lines for word in line.split()}
        assert "…" not in "".join(words)
        numbers = {word for row in cells(table)[1] for cell in row for word in cell.split()}
        assert numbers <= words


def test_the_baselines_beside_the_best_trial_have_a_table_and_a_verdict() -> None:
    sweep = replace(result((4, 8)), baselines=beside())
    assert cells(sweep_tables(sweep)[-1])[1] == ROWS
    assert "the best trial beside the baselines: The adapter is worse." in sweep_notes(sweep)
    assert NOTE in sweep_notes(replace(sweep, baselines=noted()))
