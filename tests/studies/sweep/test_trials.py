"""A trial is new, begun, finished or damaged; a run that was begun with another config is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from loraft.config.resolve import resolve
from loraft.config.schema import Config, OutputSection
from loraft.config.yaml_io import dump_config
from loraft.errors import ConfigError, RunError
from loraft.studies.sweep.grid import expand
from loraft.studies.sweep.trials import PlannedTrial, Trial, is_finished, plan, run_of


def trials(output: Path, *ranks: int) -> list[Trial]:
    return expand(resolve(overrides=[f"output={output}"], flags={"sweep.ranks": list(ranks)}))


def begun(trial: Trial, config: Config) -> None:
    run = run_of(trial)
    run.path.mkdir(parents=True)
    run.config_path.write_text(dump_config(config), encoding="utf-8")


def finished(trial: Trial, config: Config) -> None:
    begun(trial, config)
    run_of(trial).results_path.write_text("{}", encoding="utf-8")


def test_a_finished_trial_counts_only_for_its_own_config(tmp_path: Path) -> None:
    one, two, three, four = trials(tmp_path, 1, 2, 3, 4)
    finished(one, one.config)
    finished(two, two.config.model_copy(update={"seed": 7}))
    begun(four, four.config)
    assert is_finished(one)
    assert not is_finished(three)
    assert not is_finished(four)
    with pytest.raises(RunError, match=r"seed: 7 then, 42 now[\s\S]*--force"):
        is_finished(two)
    assert [trial.status for trial in plan([one, three, four])] == ["finished", "new", "begun"]
    assert [trial.status for trial in plan([one, two, three, four], force=True)] == ["new"] * 4


def test_a_trial_whose_config_cannot_be_read_is_damaged(tmp_path: Path) -> None:
    (trial,) = trials(tmp_path, 1)
    finished(trial, trial.config)
    run_of(trial).config_path.write_text("lora: [", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        is_finished(trial)
    assert plan([trial])[0].status == "damaged"


def test_where_a_run_lies_and_its_preset_are_no_other_config(tmp_path: Path) -> None:
    (trial,) = trials(tmp_path, 1)
    finished(trial, trial.config.model_copy(update={"preset": "tutorial", "output": OutputSection()}))
    assert is_finished(trial)


def test_a_plan_says_what_each_trial_would_train(tmp_path: Path) -> None:
    # Of the bundled backbone's linear layers, a unit of rank trains 26,880 weights (docs/studies.md, rank 1).
    assert plan(trials(tmp_path, 1, 2)) == [
        PlannedTrial(f"r{rank}", {"lora.r": rank}, "fixed, alpha 32", rank * 26_880, "new") for rank in (1, 2)
    ]


def test_planning_needs_no_framework() -> None:
    script = (
        "import sys; from loraft.config.resolve import resolve; from loraft.studies.sweep.grid import expand;"
        "from loraft.studies.sweep.trials import plan;"
        "assert all(trial.trainable_parameters for trial in plan(expand(resolve())));"
        "print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
