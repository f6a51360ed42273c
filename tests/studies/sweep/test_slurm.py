"""A sweep as a job array of SLURM: the script, who trains what, and who may work at the same time."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from loraft.config.resolve import load_config, resolve
from loraft.config.schema import Config
from loraft.errors import ConfigError, RunError
from loraft.runs.atomic_files import write_text
from loraft.runs.lock import LOCK_FILE, locked
from loraft.runs.run import Run
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep import local_engine, runner, slurm
from loraft.studies.sweep.slurm import emit, run_array_task

pytestmark = [
    pytest.mark.usefixtures("loads"),
    pytest.mark.skipif(os.name != "posix", reason="SLURM runs on POSIX systems"),
]

SMALL = [
    "train.max_steps=4", "train.eval_steps=2", "train.logging_steps=1", "train.learning_rate=1e-2",
    "train.per_device_train_batch_size=4", "data.max_train_rows=24", "data.max_eval_rows=12", "data.max_test_rows=12",
    "eval.bootstrap_samples=100", "name=quét 'thử'#1",
]  # fmt: skip
NAMES = ["r1-s1", "r1-s2", "r2-s1", "r2-s2"]


def config(output: Path, joint: str = "off", **sweep: Any) -> Config:
    flags = {
        f"sweep.{key}": value for key, value in {"ranks": [1, 2], "seeds": [1, 2], "joint": joint, **sweep}.items()
    }
    return resolve(overrides=SMALL, flags={**flags, "output": str(output)})


def folder_of(output: Path) -> SweepFolder:
    return SweepFolder(output / "quét 'thử'#1")


def options_of(script: Path) -> dict[str, str]:
    """The options in a script as sbatch reads them: quotes group, a backslash escapes, `#` begins a comment."""
    words: list[str] = []
    for line in script.read_text(encoding="utf-8").splitlines():
        if line.startswith("#SBATCH"):
            words += shlex.split(line.removeprefix("#SBATCH"), comments=True)
        elif line and not line.startswith("#"):
            break
    return {name: value for name, _, value in (word.removeprefix("--").partition("=") for word in words)}


def numbers_of(script: Path) -> list[int]:
    """The numbers of the array tasks that SLURM would start."""
    parts = [part.split("-") for part in options_of(script)["array"].partition("%")[0].split(",")]
    return [number for part in parts for number in range(int(part[0]), int(part[-1]) + 1)]


def dealt(folder: SweepFolder) -> list[list[str]]:
    found: list[list[str]] = json.loads(folder.array_tasks_path.read_text(encoding="utf-8"))["tasks"]
    return found


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trials do not train: their runs are finished at once; their names."""
    names: list[str] = []

    def run_trials(waiting: Sequence[Any], folder: SweepFolder, *given: Any, **options: Any) -> dict[str, str]:
        for trial in waiting:
            names.append(trial.name)
            finish(folder, trial.name)
        return {}

    monkeypatch.setattr(slurm, "run_trials", run_trials)
    monkeypatch.setattr(runner, "run_trials", run_trials)
    monkeypatch.setattr(
        runner, "unfinished_and_damaged", lambda trials: ([t for t in trials if not runner.run_of(t).finished], {})
    )
    return names


def finish(folder: SweepFolder, name: str) -> None:
    write_text(Run(folder.path / name).results_path, "{}")


def test_the_script_is_read_by_bash_and_by_sbatch_as_it_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / 'một $HOME "thư mục" 100%'
    here.mkdir()
    monkeypatch.chdir(here)
    given = ["--gres=gpu:1", "time=04:00:00", "exclusive", 'comment=a "b" \\ # $HOME', "array=%3", "signal=B:TERM@600"]
    array = emit(config(Path("chạy")), given, quiet=True)
    folder = folder_of(Path("chạy"))
    assert array.script == str(folder.slurm_script)
    assert (array.tasks, array.unfinished, array.at_work) == (4, (0, 1, 2, 3), {})
    assert options_of(folder.slurm_script) == {
        "job-name": "quét 'thử'#1",
        "output": f"{tmp_path}/một $HOME \"thư mục\" 100%%/chạy/quét 'thử'#1/slurm/%a.log",
        "open-mode": "append",
        "requeue": "",
        "signal": "B:TERM@600",
        "gres": "gpu:1",
        "time": "04:00:00",
        "exclusive": "",
        "comment": 'a "b" \\ # $HOME',
        "array": "0-3%3",
    }
    assert folder.slurm_logs.is_dir()  # SLURM does not make it
    text = folder.slurm_script.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n", folder.slurm_script], check=True)
    shown = text.replace(f"exec {sys.executable} -m loraft", "pwd; printf '%s\\n'")  # the command, shown and not run
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "3"}
    done = subprocess.run(["bash", "-c", shown], cwd="/", env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        str(here), "sweep", "--config", "chạy/quét 'thử'#1/sweep.yaml", "--array-task", "3",
    ]  # fmt: skip
    environment.pop("SLURM_ARRAY_TASK_ID")
    done = subprocess.run(["bash", "-c", shown], cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "submit this script with sbatch" in done.stderr


def test_the_saved_config_gives_the_same_trials_again(tmp_path: Path) -> None:
    emit(config(tmp_path), quiet=True)
    folder = folder_of(tmp_path)
    assert [trial.name for trial in runner.expand(load_config(folder.config_path))] == NAMES
    assert dealt(folder) == [[name] for name in NAMES]
    assert folder.recognised


@pytest.mark.parametrize(
    ("joint", "size", "tasks"),
    [
        ("off", 3, [["r1-s1", "r2-s2"], ["r1-s2"], ["r2-s1"]]),
        ("off", 9, [["r1-s1"], ["r1-s2"], ["r2-s1"], ["r2-s2"]]),
        ("auto", None, [["r1-s1"], ["r1-s2"], ["r2-s1"], ["r2-s2"]]),
        ("auto", 2, [["r1-s1", "r2-s1"], ["r1-s2", "r2-s2"]]),  # one pass for each seed
        ("on", None, [["r1-s1", "r2-s1"], ["r1-s2", "r2-s2"]]),
        ("on", 1, [["r1-s1", "r2-s1", "r1-s2", "r2-s2"]]),
    ],
)
def test_trials_are_dealt_out_to_the_array_tasks(
    tmp_path: Path, joint: str, size: int | None, tasks: list[list[str]]
) -> None:
    emit(config(tmp_path, joint), size=size, quiet=True)
    assert dealt(folder_of(tmp_path)) == tasks


def test_a_large_group_is_dealt_out_to_several_tasks(tmp_path: Path) -> None:
    emit(config(tmp_path, "on", ranks=[1, 2, 4, 8, 16, 32, 64, 128], seeds=[1]), size=2, quiet=True)
    assert dealt(folder_of(tmp_path)) == [
        ["r1-s1", "r4-s1", "r16-s1", "r64-s1"],
        ["r2-s1", "r8-s1", "r32-s1", "r128-s1"],
    ]


def test_written_again_the_script_lists_what_is_left_with_the_same_options(tmp_path: Path, trained: list[str]) -> None:
    section, folder = config(tmp_path, ranks=[1, 2, 4]), folder_of(tmp_path)
    emit(section, ["gres=gpu:1"], size=6, quiet=True)
    (folder.path / "sweep.json").touch()
    for name in ("r1-s1", "r2-s2"):  # the tasks 0 and 3
        finish(folder, name)
    assert emit(section, quiet=True).unfinished == (1, 2, 4, 5)
    assert options_of(folder.slurm_script)["array"] == "1-2,4-5"
    assert options_of(folder.slurm_script)["gres"] == "gpu:1"
    assert not folder.finished  # the results were of fewer trials
    assert run_array_task(section, 3, quiet=True) == {"r2-s2": None}
    assert trained == []
    for number in (1, 2, 4):
        run_array_task(section, number, quiet=True)
    assert trained == ["r1-s2", "r2-s1", "r4-s1"]
    assert emit(section, ["mem=8G"], size=2, quiet=True).unfinished == (1,)
    assert options_of(folder.slurm_script).keys() >= {"mem"}
    assert "gres" not in options_of(folder.slurm_script)
    run_array_task(section, 1, quiet=True)
    assert emit(section, quiet=True).script is None


def test_the_whole_sweep_says_that_slurm_could_train_what_is_left(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(runner, "conclude", lambda *given: runner.SweepResult)
    monkeypatch.setattr(runner.SweepResult, "best", None, raising=False)
    monkeypatch.setattr(runner.SweepResult, "warnings", (), raising=False)
    monkeypatch.setattr(SweepFolder, "finish", lambda *given: None)
    emit(config(tmp_path), quiet=True)
    finish(folder_of(tmp_path), "r1-s1")
    runner.sweep(config(tmp_path), quiet=True, tell=told.append)
    assert told[0].startswith("3 trials are not finished; loraft sweep --config ")
    assert told[0].endswith(" --emit slurm lets SLURM train them")


def held(folder: SweepFolder, number: int) -> None:
    """The lock of an array task that another machine runs."""
    owner = {"pid": 7, "host": "nút-9", "process_started": 1.0, "started": "2026-01-01T00:00:00+00:00", "command": "c"}
    write_text(folder.array_task(number) / LOCK_FILE, json.dumps({**owner, "job": "17", "restarts": 0}))


def test_tasks_at_work_are_left_out_and_keep_the_whole_sweep_and_themselves_away(
    tmp_path: Path, trained: list[str]
) -> None:
    section, folder = config(tmp_path), folder_of(tmp_path)
    emit(section, quiet=True)
    held(folder, 2)
    before = folder.config_path.read_bytes()
    array = emit(section, quiet=True)
    assert array.unfinished == (0, 1, 3)
    assert list(array.at_work) == [2]
    assert "process 7 on nút-9" in array.at_work[2]
    with pytest.raises(RunError, match=r"slurm/2: process 7 on nút-9 .* works there"):
        runner.sweep(section, quiet=True)
    with pytest.raises(RunError, match=r"slurm/2: process 7 on nút-9 .* works there"):
        run_array_task(section, 2, quiet=True)
    with pytest.raises(RunError, match=r"would be dealt out anew \(got 2 at work\)"):
        emit(section, size=2, quiet=True)
    assert folder.config_path.read_bytes() == before
    assert trained == []
    run_array_task(section, 1, quiet=True)  # the others may work
    assert trained == ["r1-s2"]
    assert sorted(os.listdir(folder.slurm_logs)) == ["2"]  # a task's own lock goes


def test_a_requeued_task_takes_over_the_lock_that_its_killed_self_left_on_another_node(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    section = config(tmp_path)
    emit(section, quiet=True)
    held(folder_of(tmp_path), 0)
    for job, restarts in (("17", "0"), ("18", "1"), ("17", "x")):  # the first could be the same job on two nodes
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        with pytest.raises(RunError, match="works there"):
            run_array_task(section, 0, quiet=True)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.warns(UserWarning, match=r"took over the lock of process 7 on nút-9 .*, whose job SLURM has requeued"):
        run_array_task(section, 0, quiet=True)
    assert trained == ["r1-s1"]


def test_no_task_begins_while_a_whole_sweep_works_there(tmp_path: Path, trained: list[str]) -> None:
    section = config(tmp_path)
    emit(section, quiet=True)
    owner = {"pid": 7, "host": "nút-9", "process_started": 1.0, "started": "2026-01-01T00:00:00+00:00", "command": "c"}
    write_text(folder_of(tmp_path).path / LOCK_FILE, json.dumps(owner))
    for work in (lambda: run_array_task(section, 0, quiet=True), lambda: emit(section, quiet=True)):
        with pytest.raises(RunError, match=r"#1: process 7 on nút-9 .* works there"):
            work()
    assert trained == []
    assert os.listdir(folder_of(tmp_path).slurm_logs) == []


def test_a_task_of_another_sweep_of_no_script_or_of_no_such_number_is_refused(
    tmp_path: Path, trained: list[str]
) -> None:
    section, folder = config(tmp_path), folder_of(tmp_path)
    with pytest.raises(RunError, match=r"no script was written for SLURM .*; loraft sweep --config .* --emit slurm"):
        run_array_task(section, 0, quiet=True)
    emit(section, quiet=True)
    for number in (4, -1):
        with pytest.raises(ConfigError, match=rf"--array-task: there is none of that number \(got {number}\); 0 to 3"):
            run_array_task(section, number, quiet=True)
    write_text(folder.config_path, folder.config_path.read_text("utf-8").replace("max_steps: 4", "max_steps: 5"))
    with pytest.raises(RunError, match=r"sweep.yaml: has changed since .* --emit slurm writes it anew"):
        run_array_task(load_config(folder.config_path), 0, quiet=True)
    assert trained == []
    folder.array_tasks_path.write_text('{"schema_version": 1, "config": 3}', encoding="utf-8")
    with pytest.raises(RunError, match=r"slurm.json: .*delete it, then loraft sweep --config"):
        run_array_task(section, 0, quiet=True)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("-p gpu", r"not an option of sbatch in its long form \(got '-p gpu'\); for example --slurm gres=gpu:1"),
        ("", "long form"),
        ("gres gpu:1", "long form"),
        ("gres=", "long form"),
        ("comment=a\nrm -rf x", "long form"),
        ("time=1\x1b[31m", "long form"),
        ("array=0-3", r"--slurm array: the script lists the tasks itself \(got 'array=0-3'\); array=%8 lets 8"),
        ("array", "lists the tasks itself"),
        ("open-mode", r"--slurm open-mode: takes a value \(got none\)"),
        ("time", r"--slurm time: takes a value \(got none\), for example --slurm time=VALUE"),
        ("wrap=true", r"--slurm wrap: the script decides it"),
        ("chdir=/", r"--slurm chdir: the script decides it"),
    ],
)
def test_an_option_that_the_script_cannot_have_is_refused_and_nothing_is_written(
    tmp_path: Path, option: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        emit(config(tmp_path), [option], quiet=True)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a\\b", "a\nb"])
def test_a_folder_whose_name_sbatch_cannot_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(RunError, match=r"SLURM takes no path with '(\\\\|\\n)' for logs; choose another --output"):
        emit(config(Path("runs")), quiet=True)
    assert os.listdir() == []


def test_other_rows_than_those_of_the_finished_trials_are_refused(tmp_path: Path) -> None:
    section, folder = config(tmp_path, ranks=[1, 2], seeds=[]), folder_of(tmp_path)
    emit(section, quiet=True)
    assert run_array_task(section, 0, quiet=True) == {"r1": None}
    rows = Run(folder.path / "r1").rows_path
    rows.write_text(rows.read_text("utf-8").replace('"test": "', '"test": "0'), encoding="utf-8")
    for work in (lambda: run_array_task(section, 1, quiet=True), lambda: emit(section, quiet=True)):
        with pytest.raises(RunError, match="another test split"):
            work()


def test_a_failed_trial_is_told_and_the_others_of_the_task_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, train = config(tmp_path, seeds=[]), local_engine.run_training

    def failing(run: Run, *given: Any, **options: Any) -> Any:
        if run.name == "r1":
            raise RuntimeError("hết bộ nhớ")
        return train(run, *given, **options)

    monkeypatch.setattr(local_engine, "run_training", failing)
    emit(section, size=1, quiet=True)
    assert run_array_task(section, 0, quiet=True) == {"r1": "RuntimeError: hết bộ nhớ", "r2": None}
    assert emit(section, quiet=True).unfinished == (0,)


def test_a_task_deletes_its_own_joint_passes_alone(tmp_path: Path) -> None:
    section, folder = config(tmp_path, "on"), folder_of(tmp_path)
    emit(section, quiet=True)
    other = folder.joint_pass("khác")
    write_text(other.config_path, json.dumps({"schema_version": 1, "r1-s2": "0", "r2-s2": "0"}))
    assert run_array_task(section, 0, quiet=True) == {"r1-s1": None, "r2-s1": None}
    assert [joint.path for joint in folder.joint_passes()] == [other.path]
    run_array_task(section, 1, quiet=True)
    assert folder.joint_passes() == []


def sbatch(script: Path, environment: dict[str, str]) -> dict[int, subprocess.Popen[bytes]]:
    """Starts a job array as SLURM does: a shell for each number, whose output goes where the script says."""
    options = options_of(script)
    tasks = {}
    for number in numbers_of(script):
        log = options["output"].replace("%a", str(number)).replace("%%", "%")
        given = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_JOB_ID": str(100 + number), **environment}
        with open(log, "ab") as file:
            tasks[number] = subprocess.Popen(
                ["bash", script.absolute()], env={**os.environ, **given}, cwd="/", stdout=file, stderr=file
            )
    return tasks


def same(one: Path, other: Path) -> None:
    """Both sweeps have the same scores and the same adapters, bit for bit."""
    first, second = (json.loads((folder / "sweep.json").read_text("utf-8")) for folder in (one, other))
    assert [trial["status"] for trial in first["trials"]] == ["finished"] * len(second["trials"])
    measured = ("name", "accuracy", "macro_f1", "intervals", "validation_macro_f1", "joint")
    assert [[trial[key] for key in measured] for trial in first["trials"]] == [
        [trial[key] for key in measured] for trial in second["trials"]
    ]
    for trial in first["trials"]:
        weights = Path(trial["name"]) / "adapter" / "adapter_model.safetensors"
        assert (one / weights).read_bytes() == (other / weights).read_bytes()


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not what():
        assert process.poll() is None, "the task ended too early"
        time.sleep(0.05)


@pytest.mark.integration
@pytest.mark.parametrize("joint", ["off", "on"])
def test_a_job_array_gives_what_the_sweep_gives_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joint: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    seeds = [1, 2] if joint == "on" else [1]  # two trials a task can share a pass
    flags = ["sweep", "--ranks", "1,2", "--seeds", ",".join(map(str, seeds)), "--joint", joint, "--output", "trong một"]
    command = [sys.executable, "-m", "loraft", *flags, *(word for limit in SMALL for word in ("--set", limit))]
    subprocess.run(command, check=True, capture_output=True)
    section, folder = config(Path("runs"), joint, seeds=seeds), folder_of(Path("runs"))
    emit(section, size=2, quiet=True)
    tasks = sbatch(folder.slurm_script, {})  # both work at the same time
    assert [task.wait() for task in tasks.values()] == [0, 0], (folder.slurm_logs / "0.log").read_text("utf-8")
    finished = "its 2 trials are finished" if joint == "on" else "its trial is finished"
    assert finished in (folder.slurm_logs / "1.log").read_text("utf-8")
    assert not runner.sweep(load_config(folder.config_path), quiet=True).failed
    same(folder.path, Path("trong một") / folder.name)
    assert not list(folder.path.glob("joint-*"))


@pytest.mark.integration
def test_a_task_that_slurm_ends_and_requeues_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    section, folder = config(Path("runs"), ranks=[1], seeds=[]), folder_of(Path("runs"))
    train = section.train.model_copy(update={"max_steps": 100, "eval_steps": 50})
    emit(section.model_copy(update={"train": train}), quiet=True)
    run = Run(folder.path / "r1")
    (task,) = sbatch(folder.slurm_script, {}).values()
    wait_for(run.log_path.exists, task)
    task.send_signal(signal.SIGTERM)  # to the shell that SLURM started, as --signal=B:TERM
    assert task.wait() == 143
    log = (folder.slurm_logs / "0.log").read_text("utf-8")
    assert "interrupted; the same array task goes on from there" in log
    assert list(run.checkpoints.glob("checkpoint-*"))
    held(folder, 0)  # a kill would leave locks, of another node
    shutil.copy(folder.array_task(0) / LOCK_FILE, run.path / LOCK_FILE)
    (task,) = sbatch(folder.slurm_script, {"SLURM_RESTART_COUNT": "1", "SLURM_JOB_ID": "17"}).values()
    assert task.wait() == 0, (folder.slurm_logs / "0.log").read_text("utf-8")
    assert json.loads(run.results_path.read_text("utf-8"))["train"]["resumed_from_step"] > 0
    with locked(run.path), locked(folder.array_task(0)):
        pass
