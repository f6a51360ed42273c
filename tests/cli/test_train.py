"""`loraft train`: what is handed over, printed, and refused before anything loads."""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.bad_input import refusal, snapshot
from helpers.command_line import Double, Says, finished

from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.data.dataset import SplitSummary, training_splits
from loraft.errors import Note
from loraft.evaluation.classification_report import classification_report
from loraft.runs.atomic_files import write_text
from loraft.runs.environment import environment
from loraft.runs.hashes import hashes_of
from loraft.runs.records import write_record
from loraft.runs.run import Run, run_of


def test_train_resolves_the_short_flags(api: Double, here: Path, loraft_says: Says) -> None:
    code, _, err = loraft_says(
        "train", "--preset", "tutorial", "--quant", "nf4", "--rank", "4", "--model", "mô-hình", "--data", "dữ-liệu.csv",
        "--task", "topic", "--output", "kết quả", "--seed", "7", "--set", "train.learning_rate=1e-4", "--force",
    )  # fmt: skip
    config = api.config
    assert code == 0
    assert config is not None
    assert (config.preset, config.quant.method, config.lora.r) == ("tutorial", "nf4", 4)
    assert (config.model.name, config.data.source, config.prompt.task) == ("mô-hình", "dữ-liệu.csv", "topic")
    assert (config.output.folder, config.seed, config.train.learning_rate) == ("kết quả", 7, 1e-4)
    assert api.given == {"force": True, "resume": False}
    assert err.splitlines()[0] == "backbone mô-hình (nf4), data dữ-liệu.csv"


def test_train_prints_before_and_after_and_then_the_next_command(api: Double, here: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("train")
    rows = {line.split("  ")[0].strip(): line.split() for line in out.splitlines() if line.strip()}
    # Counted by hand: 2 of 4 right before, 4 of 4 after; negative before: precision 1, recall 1/2, so F1 2/3.
    assert code == 0
    assert rows["accuracy"][1:3] == ["0.5000", "1.0000"]
    assert rows["accuracy"][-1] == "+50.0"
    assert rows["F1 negative (n=2)"][-3:] == ["0.6667", "1.0000", "+33.3"]
    assert rows["answers that are no label"][-2:] == ["0.2500", "0.0000"]
    assert err.splitlines()[-2] == "run: runs/của tôi"
    assert err.splitlines()[-1] == "next: loraft predict --run 'runs/của tôi' --input FILE"  # the double wrote no rows
    assert "\x1b" not in out


def test_folds_are_proposed_for_few_rows_with_one_label_each(
    api: Double, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(api.train(resolve()), data={"train": SplitSummary("phản hồi", 100, {})})
    monkeypatch.setattr(api, "train", lambda *given, **named: few)
    assert "note: 100 training rows are few; --folds 5" in loraft_says("train")[2]
    assert "--folds" not in loraft_says("train", "--set", "prompt.kind=multilabel")[2]
    finished(here / "runs" / "cũ")
    assert "--folds" not in loraft_says("train", "--from", "cũ")[2]  # which does not go with it


def test_train_prints_json_on_request(api: Double, here: Path, loraft_says: Says) -> None:
    code, out, _ = loraft_says("train", "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["before"]["accuracy"], result["after"]["accuracy"]) == (0.5, 1.0)
    assert (result["run"], result["train"]["steps"]) == ("runs/của tôi", 4)


def test_all_config_mistakes_come_at_once_with_exit_code_2(api: Double, here: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("train", "--rank", "x", "--quant", "int8", "--set", "lora.rank=1", "--seed", "-1")
    assert (code, out) == (2, "")
    assert err.startswith("error:\n")
    assert {line.split(":")[0].strip() for line in err.splitlines()[1:]} == {
        "lora.r",
        "quant.method",
        "lora.rank",
        "seed",
    }
    assert api.config is None


def test_force_and_resume_exclude_each_other(api: Double, here: Path, loraft_says: Says) -> None:
    code, _, err = loraft_says("train", "--force", "--resume")
    assert code == 2
    assert "--force and --resume" in err


def test_resume_without_a_run_is_refused(api: Double, here: Path, loraft_says: Says) -> None:
    code, _, err = loraft_says("train", "--resume")
    assert code == 1
    assert "no run was begun" in err
    assert api.config is None


def test_an_earlier_run_needs_a_flag(api: Double, here: Path, loraft_says: Says) -> None:
    path = finished(here / "runs" / "cũ")
    same_name = ("train", "--set", "name=cũ")
    code, _, err = loraft_says(*same_name)
    assert code == 1
    assert "--force" in err
    (here / path / "metrics.json").unlink()
    code, _, err = loraft_says(*same_name)
    assert code == 1
    assert "--resume" in err
    assert api.config is None
    assert loraft_says(*same_name, "--resume")[0] == 0
    assert api.given == {"force": False, "resume": True}


def test_the_command_that_a_message_prints_works_in_a_renamed_folder(
    api: Double, here: Path, loraft_says: Says
) -> None:
    begun = finished(here / "runs" / "cũ", overrides=["name=cũ"])
    (here / begun / "environment.json").touch()
    (here / begun).rename(here / "runs" / "mới")
    config = ("--config", "runs/mới/config.yaml")
    code, _, err = loraft_says("train", "--resume", *config)
    assert (code, err) == (
        1,
        "backbone loraft-vi-tiny, data feedback\nerror: runs/mới: a finished run that did not record its rows is there;"
        " --force trains anew in its place, --set name=NAME beside it\n",
    )
    (here / "runs" / "mới" / "metrics.json").unlink()
    again = Run(Path("runs/mới")).how_to_begin_again.removesuffix(" begins again")
    for command in (Run(Path("runs/mới")).how_to_resume, again):
        assert loraft_says(*shlex.split(command)[1:])[0] == 0
        assert api.config is not None
        assert run_of(api.config).path == Path("runs/mới")
    assert loraft_says("train", *config, "--resume", "--set", "name=khác")[0] == 1  # that run was not begun
    assert loraft_says("train", *config)[0] == 0  # its config, for a run of the old name
    assert run_of(api.config).path == Path("runs/cũ")
    (here / "runs" / "mới" / "config.yaml").write_text("", encoding="utf-8")
    code, _, err = loraft_says("train", *config)  # not the defaults, somewhere else
    assert (code, err.startswith("error: runs/mới/config.yaml: is not a whole config")) == (2, True)


@pytest.mark.parametrize(("rank", "code"), [("0", 1), ("1", 0)])
def test_the_main_process_alone_looks_for_an_earlier_run(
    rank: str, code: int, api: Double, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / finished(here / "runs" / "cũ") / "metrics.json").unlink()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert loraft_says("train", "--set", "name=cũ")[0] == code


# --- a command that is given again ------------------------------------------------------------------------------------

AGAIN = ("train", "--set", "name=của tôi", "--set", "data.max_train_rows=30", "--set", "data.max_eval_rows=6")


@pytest.fixture
def once(api: Double, here: Path, loraft_says: Says) -> tuple[str, str]:
    """What `AGAIN` printed on stdout the first time, as a table and as JSON; its run is there, and nothing trains."""
    printed = loraft_says(*AGAIN)[1], loraft_says(*AGAIN, "--json")[1]
    assert api.config is not None
    run = Run(here / "runs" / "của tôi")
    run.path.mkdir(parents=True)
    run.config_path.write_text(dump_config(api.config), encoding="utf-8")
    write_record(run.rows_path, {name: split.fingerprint for name, split in training_splits(api.config).items()})
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        write_text(run.adapter / name, name)
    write_record(run.adapter / "loraft.json", {"files": hashes_of(run.adapter, os.listdir(run.adapter))})
    run.predictions_path.touch()
    run.finish(replace(api.train(api.config), warnings=("neutral is never predicted",)))
    api.config = None
    return printed


def test_a_command_that_is_given_again_prints_the_same_and_changes_nothing(
    once: tuple[str, str], api: Double, here: Path, loraft_says: Says
) -> None:
    before = snapshot(here)
    is_finished = "runs/của tôi is finished, with this config and these rows; --force trains anew"
    with pytest.warns(Note, match=is_finished), pytest.warns(UserWarning, match="neutral is never predicted"):
        assert loraft_says(*AGAIN)[:2] == (0, once[0])
    code, out, _ = loraft_says(*AGAIN, "--json", "--resume")
    assert code == 0
    assert json.loads(out) == {**json.loads(once[1]), "warnings": ["neutral is never predicted"]}
    assert snapshot(here) == before
    assert api.config is None
    assert loraft_says(*AGAIN, "--force")[0] == 0
    assert api.given == {"force": True, "resume": False}


def test_the_result_is_found_in_a_renamed_folder_and_whatever_kept_the_trackers(
    once: tuple[str, str], api: Double, here: Path, loraft_says: Says
) -> None:
    (here / "runs" / "của tôi").rename(here / "runs" / "mới")
    write_record(here / "runs" / "mới" / "environment.json", environment())
    for flags in ((), ("--resume",)):
        code, out, err = loraft_says("train", *flags, "--config", "runs/mới/config.yaml")
        assert (code, out) == (0, once[0]), err
        assert "run: runs/mới" in err
    assert loraft_says(*AGAIN, "--set", "name=mới", "--set", "train.report_to=[tensorboard]")[:2] == (0, once[0])
    assert api.config is None


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: shutil.rmtree(run.adapter), "adapter"),
        (lambda run: (run.adapter / "adapter_model.safetensors").unlink(), r"adapter_model\.safetensors: missing"),
        (lambda run: write_text(run.adapter / "adapter_model.safetensors", ""), "safetensors: changed"),
        (lambda run: run.predictions_path.unlink(), r"its predictions\.jsonl is missing"),
        (lambda run: write_text(run.environment_path, "{"), r"environment\.json: is not JSON"),
    ],
    ids=["no adapter", "no weights", "other weights", "no predictions", "no environment"],
)
def test_a_run_that_lost_something_is_no_result(damage: Callable[[Run], None], says: str, here: Path) -> None:
    damage(Run(here / "runs" / "của tôi"))
    refusal([*AGAIN], says, "--force")


@pytest.mark.usefixtures("once")
def test_another_config_is_refused_by_its_keys_and_other_rows_by_their_splits(api: Double, here: Path) -> None:
    ways = "--force trains anew in its place, --set name=NAME beside it"
    refusal([*AGAIN, "--rank", "4", "--set", "output.texts=false"],
            r"lora\.r: 16 then, 4 now", r"output\.texts: True then, False now", ways)  # fmt: skip
    rows = here / "runs" / "của tôi" / "rows.json"
    kept = json.loads(rows.read_text(encoding="utf-8"))
    rows.write_text(json.dumps({**kept, "test": "0" * 64}), encoding="utf-8")
    refusal([*AGAIN], r"was begun with other rows \(got another test split\)", ways)
    rows.unlink()
    refusal([*AGAIN], "did not record its rows", ways)
    assert api.config is None


def test_a_config_of_an_earlier_version_lacks_keys_that_have_their_default(
    once: tuple[str, str], here: Path, loraft_says: Says
) -> None:
    file = here / "runs" / "của tôi" / "config.yaml"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    left = [line for line in lines if not line.strip().startswith(("keep:", "baselines:"))]
    assert len(left) < len(lines)
    file.write_text("".join(left), encoding="utf-8")
    assert loraft_says(*AGAIN)[:2] == (0, once[0])


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_the_main_one_prints_the_earlier_result(
    rank: str, once: tuple[str, str], loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert loraft_says(*AGAIN)[:2] == (0, once[0] if rank == "0" else "")


def test_folds_are_trained_by_their_own_function(
    here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loraft.studies.sweep import fold_records, folds

    settings: dict[str, Any] = {"bootstrap_samples": 100, "confidence": 0.95, "seed": 0}
    report = classification_report([0, 0, 1, 1], None, [0, 0, 1, 0], ["chê", "khen"], **settings)
    made = fold_records.FoldRecord("fold1", "runs/gấp/fold1", 20, 4, 3, 0.75)
    result = fold_records.FoldsResult(
        path="runs/gấp", backbone="x", data="y", task="z", labels=("chê", "khen"), folds=(made,), report=report
    )
    given: list[Any] = []
    monkeypatch.setattr(folds, "train_folds", lambda *args, **named: given.append((args, named)) or result)
    code, out, err = loraft_says("train", "--folds", "5", "--force")
    assert code == 0
    assert (given[0][0][1], given[0][1]["force"]) == (5, True)
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert ["fold1", "20", "4", "3", "0.7500"] in rows
    assert next(row for row in rows if row[0] == "accuracy")[1] == "0.7500"
    assert "folds: runs/gấp" in err
    assert json.loads(loraft_says("train", "--folds", "5", "--json")[1])["report"]["accuracy"] == 0.75
    assert loraft_says("train", "--folds", "1")[0] == 2
    given.clear()
    assert "--resume" in loraft_says("train", "--folds", "5", "--force", "--resume")[2]
    code, _, err = loraft_says("train", "--folds", "5", "--resume", "--set", "name=gấp")
    assert (code, given) == (1, [])
    assert err.endswith("--resume: no training by folds was begun in runs/gấp; leave --resume out\n")
    (here / "runs" / "gấp").mkdir(parents=True)
    (here / "runs" / "gấp" / "folds.yaml").write_text(dump_config(resolve(overrides=["name=cũ"])), encoding="utf-8")
    assert loraft_says("train", "--folds", "5", "--resume", "--set", "name=gấp")[0] == 0
    write_record(here / "runs" / "gấp" / "environment.json", environment())  # the folder was renamed
    assert loraft_says("train", "--folds", "5", "--config", "runs/gấp/folds.yaml")[0] == 0
    assert given[-1][0][0].name == "gấp"


# --- going on from a finished run -------------------------------------------------------------------------------------


def begun(here: Path, name: str = "cũ", *overrides: str) -> None:
    given = ["output.texts=false", "data.text_column=câu", "lora.r=4", *overrides]
    finished(here / "runs" / name, overrides=given)


def test_from_a_run_its_config_goes_on_under_the_name_of_the_next_round(
    api: Double, here: Path, loraft_says: Says
) -> None:
    begun(here)
    assert loraft_says("train", "--from", "cũ", "--set", "train.max_steps=9", "--seed", "5")[0] == 0
    assert api.config is not None
    assert (api.config.name, api.config.output.folder, api.config.output.texts) == ("cũ-round2", "runs", False)
    assert (api.config.lora.r, api.config.data.text_column) == (4, "câu")
    assert (api.config.train.max_steps, api.config.seed) == (9, 5)
    assert api.config.train.from_run == str(here / "runs" / "cũ")
    begun(here, "cũ-round9")
    loraft_says("train", "--from", "cũ-round9", "--set", "name=khác")
    assert api.config.name == "khác"
    loraft_says("train", "--from", "runs/cũ-round9", "--output", "nơi khác")
    assert (api.config.name, api.config.output.folder) == ("cũ-round10", "nơi khác")
    (here / "runs" / "cũ" / "adapter").mkdir()
    loraft_says("train", "--from", "runs/cũ/adapter/..")
    assert (api.config.name, api.config.train.from_run) == ("cũ-round2", str(here / "runs" / "cũ"))


def test_added_rows_stay_from_round_to_round(api: Double, here: Path, loraft_says: Says) -> None:
    begun(here, "cũ", "data.extra_train=[một.csv]")
    loraft_says("train", "--from", "cũ", "--add", "hai.csv", "--add", "ba.csv")
    assert api.config is not None
    assert api.config.data.extra_train == ["một.csv", "hai.csv", "ba.csv"]
    loraft_says("train", "--from", "cũ", "--data", "mới", "--add", "hai.csv")
    assert (api.config.data.source, api.config.data.extra_train) == ("mới", ["hai.csv"])
    loraft_says("train", "--add", "hai.csv")  # also without --from
    assert (api.config.data.extra_train, api.config.train.from_run) == (["hai.csv"], None)


def test_new_rows_without_validation_can_be_added(
    api: Double, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(here)
    (here / "mới.csv").write_text("câu,sentiment\nlớp đông,negative\n", encoding="utf-8")
    monkeypatch.setattr(api, "train", lambda config, **named: training_splits(config))
    code, _, err = loraft_says("train", "--from", "cũ", "--data", "mới.csv")
    assert code == 1
    assert err.endswith("to add these rows to those of cũ: --add 'mới.csv' in place of --data\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "không-có"], r"no such run \(got 'không-có'\)"),
        (["--from", "cũ", "--preset", "tutorial"], "--from and --preset"),
        (["--from", "cũ", "--folds", "5", "--config", "a.yaml"], "--from and --config, --folds"),
        (["--from", "cũ", "--set", "train.from=x"], r"train\.from"),
    ],
)
def test_what_does_not_go_with_from_is_refused(arguments: list[str], says: str, api: Double, here: Path) -> None:
    begun(here)
    refusal(["train", *arguments], says)
