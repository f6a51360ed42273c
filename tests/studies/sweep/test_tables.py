"""The sweep's table is the tutorial's table 4, with what each setting cost and its standing against the best."""

from io import StringIO
from typing import Any

import pytest
from helpers.sweeps import POLICY, result
from rich.console import Console
from rich.table import Table

from loraft.display.page import cells
from loraft.studies.sweep import tables
from loraft.studies.sweep.tables import sweep_notes, sweep_tables

RANKS = (1, 2, 4, 8, 16, 32, 64, 128)


def rows(table: Table) -> list[dict[str, str]]:
    heads, found = cells(table)
    return [dict(zip(heads, row, strict=True)) for row in found]


def printed(table: Table, width: int) -> list[str]:
    console = Console(width=width, file=StringIO(), force_terminal=True, color_system=None)
    console.print(table)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_one_seed_makes_one_table_with_scores_costs_and_the_standing() -> None:
    sweep = result((4, 8))
    (table,) = sweep_tables(sweep)
    assert list(rows(table)[0]) == ["rank", "accuracy", "macro F1", "precision", "recall", "val. F1", "parameters",
                                    "seconds", "MiB", "against the best"]  # fmt: skip
    for shown, trial in zip(rows(table), sweep["trials"], strict=True):
        low, high = trial["intervals"]["macro_f1"]
        assert shown["rank"] == str(trial["settings"]["lora.r"])
        assert shown["macro F1"] == f"{trial['macro_f1']:.4f} [{low:.3f},{high:.3f}]".replace("[0.", "[.").replace(
            ",0.", ",."
        )
        assert shown["precision"] == f"{trial['macro_precision']:.4f}"
        assert shown["recall"] == f"{trial['macro_recall']:.4f}"
        assert shown["val. F1"] == f"{trial['validation_macro_f1']:.4f}"
        assert shown["parameters"] == f"{trial['trainable_parameters']:,}"
        assert (shown["seconds"], shown["MiB"]) == (f"{trial['seconds']:.1f}", str(trial["peak_memory_mib"]))


def test_several_seeds_make_a_table_of_the_settings_and_one_of_the_trials() -> None:
    sweep = result((4, 8), seeds=(1, 2, 3))
    settings, trials = map(rows, sweep_tables(sweep))
    assert [row["rank"] for row in settings] == ["4", "8"]
    assert [(row["rank"], row["seed"]) for row in trials] == [(r, s) for r in "48" for s in "123"]
    for shown, row in zip(settings, sweep["settings"], strict=True):
        mean, sd = row["accuracy"]["mean"], row["accuracy"]["sd"]
        assert shown["accuracy"].startswith(f"{mean:.4f} ±{sd:.4f} [.")
        assert shown["precision"] == f"{row['macro_precision']['mean']:.4f}"
        assert shown["val. F1"] == f"{row['validation_macro_f1']:.4f}"
        assert shown["parameters"] == f"{row['trainable_parameters']:,}"
    assert "against the best" in settings[0]
    assert "against the best" not in trials[0]
    assert [row["best"] for row in trials].count("best") == 1


def standing(test: dict[str, Any] | None) -> str:
    sweep = result((4, 8))
    other = next(row for row in sweep["settings"] if row["settings"] != sweep["best_setting"]["settings"])
    other["versus_best"] = test
    return {row["rank"]: row for row in rows(tables.settings(sweep))}[str(other["settings"]["lora.r"])][
        "against the best"
    ]


@pytest.mark.parametrize(
    ("test", "shown"),
    [
        ({"b": 2, "c": 3, "p_holm": 1.0, "same": True}, "= p=1"),
        ({"b": 2, "c": 30, "p_holm": 0.0216, "same": False}, "lower p=0.022"),
        ({"b": 90, "c": 3, "p_holm": 1e-9, "same": False}, "higher p<0.001"),
        (None, "other rows or seeds"),
    ],
)
def test_the_standing_says_whether_and_which_way_a_setting_differs(test: dict[str, Any] | None, shown: str) -> None:
    assert standing(test) == shown


def test_the_alpha_policy_is_a_column_where_there_are_several_and_a_note_always() -> None:
    sweep = result((4, 8))
    assert "alpha policy" not in rows(tables.settings(sweep))[0]
    assert f"alpha policy: {POLICY}" in sweep_notes(sweep)
    sweep["alpha_policies"].append("rsLoRA, alpha 16")
    sweep["settings"][1]["alpha_policy"] = "rsLoRA, alpha 16"
    assert [row["alpha policy"] for row in rows(tables.settings(sweep))] == [POLICY, "rsLoRA, alpha 16"]
    assert f"alpha policy: {POLICY}; rsLoRA, alpha 16" in sweep_notes(sweep)


def test_what_failed_is_in_the_tables() -> None:
    settings, trials = map(rows, sweep_tables(result((4, 8), seeds=(1, 2, 3), failed=("r4-s2", "r8-s1"))))
    assert all(row["against the best"].endswith(" (2 of 3 seeds)") for row in settings)
    assert [row["best"] for row in trials if row["accuracy"] == ""] == ["failed"] * 2
    (table,) = sweep_tables(result((4, 8), failed=("r4",)))
    assert rows(table)[0]["against the best"] == "failed"
    nothing = result((4, 8), failed=("r4", "r8"))
    assert len(sweep_tables(nothing)) == 1
    assert [f"{name} failed: RuntimeError: hết bộ nhớ <gpu>" for name in ("r4", "r8")] == sweep_notes(nothing)[1:3]
    assert "tries failed trials again" in sweep_notes(nothing)[3]


def test_trials_of_one_pass_are_told_to_share_its_time() -> None:
    sweep = result((4, 8))
    assert not any("one pass" in note for note in sweep_notes(sweep))
    sweep["trials"][1]["joint"] = True
    assert any("seconds are the share of each" in note for note in sweep_notes(sweep))


def test_the_notes_name_the_best_and_how_it_was_compared() -> None:
    sweep = result(RANKS, rows=1000)
    best, same = (
        sweep["best"],
        sum(bool(row["versus_best"] and row["versus_best"]["same"]) for row in sweep["settings"]),
    )
    notes = sweep_notes(sweep)
    assert f"best: {best['name']}, by macro F1 on validation ({best['validation_macro_f1']:.4f}); " in "\n".join(notes)
    assert 0 < same < 7
    assert notes[-1] == (
        f"=: cannot be told apart from the best on 1,000 test rows: {same} of 7 (exact McNemar test of right answers; "
        "Holm-corrected for all of them, level 0.05)"
    )


def test_with_several_seeds_the_notes_name_the_setting_and_its_best_trial() -> None:
    sweep = result((4, 8), seeds=(1, 2, 3))
    setting, notes = sweep["best_setting"], sweep_notes(sweep)
    assert any(note.startswith("means over 3 seeds, also of seconds and MiB; ±: standard dev") for note in notes)
    assert any(
        note.startswith(f"best setting: rank {setting['settings']['lora.r']}, by mean macro F1") for note in notes
    )
    assert any(note.startswith(f"best trial: {sweep['best']['name']}, of this setting's seeds") for note in notes)
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
