"""A sweep on a Ray cluster of two machines: the results of the local engine, also after workers or the driver died."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from helpers.ray_machines import two_machines
from helpers.tiny import backbone, tokenizer
from safetensors.torch import load_file

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.errors import LoraftError
from loraft.runs.run import Run
from loraft.studies.sweep import ray_engine, ray_pool, runner
from loraft.studies.sweep.records import SweepResult
from loraft.studies.sweep.shared_backbone import SharedBackbone

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.integration

ROWS = [("thầy dạy rất nhiệt tình", "vui"), ("phòng học nóng quá", "buồn"), ("bình thường", "vừa")]
SMALL = [
    "train.eval_steps=2", "train.logging_steps=1", "train.learning_rate=1e-2", "train.per_device_train_batch_size=4",
    "eval.bootstrap_samples=100", "eval.baselines=off", "model.dtype=fp32", "lora.lora_dropout=0.0",
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two machines with a CPU each."""
    with two_machines() as address:
        yield address


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny backbone, data and a task, and the local engine's sweeps."""
    folder = tmp_path_factory.mktemp("quét")
    backbone().save_pretrained(folder / "nhỏ")
    tokenizer().save_pretrained(folder / "nhỏ")
    (folder / "câu").mkdir()
    for split, count in (("train", 24), ("validation", 12), ("test", 12)):
        rows = [{"sentence": f"{text} {number}", "label": label}
                for number in range(count) for text, label in [ROWS[number % 3]]]  # fmt: skip
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "câu" / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "việc.yaml").write_text("labels: [buồn, vừa, vui]\nlabel_column: label\n", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are relative to the folder of the driver, and no worker has started there."""
    monkeypatch.chdir(place)


def config(output: str, *overrides: str, joint: str = "off", steps: int = 4, **sweep: Any) -> Config:
    flags = {f"sweep.{key}": value for key, value in {"ranks": [4, 1, 2, 8], "joint": joint, **sweep}.items()}
    given = ["model.name=./nhỏ", "data.source=câu", "prompt.task=việc.yaml", f"output={output}"]
    return resolve(overrides=[*SMALL, *given, f"train.max_steps={steps}", *overrides], flags=flags)


def on_ray(address: str, output: str, *, steps: int = 4, joint: str = "off", **sweep: Any) -> Config:
    return config(output, steps=steps, joint=joint, engine="ray", address=address, **sweep)


@pytest.fixture(scope="module")
def local(place: Path) -> Callable[[str], SweepResult]:
    """The same sweep in this process, alone or in joint passes of the units that two workers get."""
    made: dict[str, SweepResult] = {}

    def sweep(joint: str) -> SweepResult:
        if joint not in made and joint == "off":
            made[joint] = runner.sweep(config("riêng"), quiet=True)
        elif joint not in made:  # a pass of two trials has other batches than one of four
            for ranks in ([1, 4], [2, 8]):
                runner.sweep(config("chung", joint=joint, ranks=ranks), quiet=True)
            made[joint] = runner.sweep(config("chung", joint=joint), quiet=True)
        return made[joint]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker of one CPU has
    yield sweep
    torch.set_num_threads(threads)


TIMES = ("seconds", "pass_seconds", "tokens_per_second", "peak_memory_mib", "run")


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def assert_same(result: SweepResult, other: SweepResult) -> None:
    assert [trial.status for trial in result.trials] == ["finished"] * len(result.trials), result
    for trial, twin in zip(result.trials, other.trials, strict=True):
        left, right = (load_file(Path(one.run) / "adapter" / "adapter_model.safetensors") for one in (trial, twin))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left), trial.name
        read = [json.loads((Path(one.run) / "metrics.json").read_text("utf-8")) for one in (trial, twin)]
        assert without_times(read[0]) == without_times(read[1])
        assert (Path(trial.run) / "predictions.jsonl").read_bytes() == (
            Path(twin.run) / "predictions.jsonl"
        ).read_bytes()
    assert result.best is not None
    assert other.best is not None
    assert result.best.name == other.best.name


@pytest.mark.parametrize("joint", ["off", "on"])
def test_the_results_are_those_of_the_local_engine_bit_for_bit(
    cluster: str, local: Callable[[str], SweepResult], joint: str
) -> None:
    told: list[str] = []
    result = runner.sweep(on_ray(cluster, f"ray-{joint}", joint=joint), quiet=True, tell=told.append)
    assert_same(result, local(joint))
    assert "ray: 2 nodes, 2 CPUs, 0 GPUs" in told
    assert "2 workers, 1 CPU each" in told
    for trial in result.trials:
        assert any(line.startswith(f"{trial.name}: macro F1 ") for line in told), told
        assert not (Path(trial.run) / ".lock").exists()
    begun = ["trials 1 to 2 of 4: r1, r4", "trials 3 to 4 of 4: r2, r8"] if joint == "on" else [
        f"trial {number} of 4: {trial.name}" for number, trial in enumerate(result.trials, start=1)]  # fmt: skip
    assert [line for line in told if line.startswith("trial")] == begun
    assert sum("in one pass" in line for line in told) == (2 if joint == "on" else 0)
    assert not list(Path(result.path).glob("joint-*"))
    written = json.loads((Path(result.trials[0].run) / "environment.json").read_text("utf-8"))
    assert written["command"] == sys.argv


def test_runs_of_workers_that_do_not_see_the_folder_are_gathered(
    cluster: str, local: Callable[[str], SweepResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ray_engine.Job
    monkeypatch.setattr(ray_engine, "Job", lambda **given: job(**{**given, "lock": b"that of another folder"}))
    section = on_ray(cluster, "gom")
    result = runner.sweep(section, quiet=True)
    assert_same(result, local("off"))
    assert [trial.run for trial in result.trials] == [f"{result.path}/r{rank}" for rank in (4, 1, 2, 8)]
    for trial in result.trials:
        assert "loraft-sweep-" not in (Path(trial.run) / "config.yaml").read_text("utf-8")
        assert json.loads((Path(trial.run) / "metrics.json").read_text("utf-8"))["run"] == trial.run
    assert not list(Path(result.path).glob(".*"))
    told: list[str] = []
    assert runner.sweep(section, quiet=True, tell=told.append) == result
    assert told == ["4 of 4 trials are finished already"]


def workers_of_ray() -> list[psutil.Process]:
    """The processes that train: ray names them after the method that they run."""
    return [one for one in psutil.process_iter(["cmdline"]) if "ray::Worker.run" in " ".join(one.info["cmdline"] or [])]


def test_a_killed_worker_is_replaced_and_the_trial_goes_on_from_its_checkpoint(
    cluster: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    passed_on = ray_pool.Pool._tell_lines

    def kill_one(pool: Any) -> None:
        passed_on(pool)
        found = next((place / "giết").glob("*/r4/checkpoints/checkpoint-*/trainer_state.json"), None)
        if found is not None and not killed:
            pids = [one.pid for one in workers_of_ray()]
            killed.extend(pids)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(ray_pool.Pool, "_tell_lines", kill_one)
    told: list[str] = []
    result = runner.sweep(on_ray(cluster, "giết", steps=150, ranks=[4]), quiet=True, tell=told.append)
    assert len(killed) == 1
    assert "r4: the worker was killed; try 2 of 3" in told
    assert [trial.status for trial in result.trials] == ["finished"], told
    assert result.trials[0].measured is not None
    assert (result.trials[0].measured.resumed_from_step or 0) > 0
    assert not any("took over the lock" in line for line in told)


def test_a_trial_whose_workers_are_always_killed_fails_and_the_others_go_on(
    cluster: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_on = ray_pool.Pool._tell_lines

    def kill_r4(pool: Any) -> None:
        passed_on(pool)
        for worker, task in pool.working.values():
            if task.names == "r4":
                ray.kill(worker)
                ray.kill(pool.lines.actor)  # no line is worth a trial

    monkeypatch.setattr(ray_pool.Pool, "_tell_lines", kill_r4)
    monkeypatch.setattr(ray_pool, "RETRIES", 1)
    result = runner.sweep(on_ray(cluster, "luôn", ranks=[4, 1]), quiet=True)
    failed, other = result.trials
    assert (failed.name, failed.status, other.status) == ("r4", "failed", "finished")
    assert failed.error is not None
    assert "its worker was killed 2 times" in failed.error


def test_a_killed_driver_goes_on_with_the_same_command_and_trains_nothing_twice(cluster: str, place: Path) -> None:
    command = [sys.executable, "-m", "loraft", "sweep", "--engine", "ray", "--address", cluster, "--ranks", "4,1,2",
               "--joint", "off", "--model", "./nhỏ", "--data", "câu", "--task", "việc.yaml", "--output", "lại",
               "--json"]  # fmt: skip
    command += [word for pair in [*SMALL, "train.max_steps=4"] for word in ("--set", pair)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        sweep = None
        while driver.poll() is None and not (sweep := next((place / "lại").glob("*/r*/metrics.json"), None)):
            time.sleep(0.05)
        driver.kill()
        driver.communicate()
    assert sweep is not None
    first = {path: path.stat().st_mtime_ns for path in (place / "lại").glob("*/r*/metrics.json")}
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert "trials are finished already" in again.stderr or "1 of 3" in again.stderr
    result = json.loads(again.stdout)
    assert [trial["status"] for trial in result["trials"]] == ["finished"] * 3
    assert "INFO" not in again.stderr
    assert "Traceback" not in again.stderr
    # The lock of a run that was finished at the kill is that of a dead process, and nothing asks for it.
    left = [path.read_text(encoding="utf-8") for path in (place / "lại").glob("**/.lock")]
    assert [text for text in left if str(driver.pid) not in text] == []


def test_an_interrupted_driver_ends_its_workers_and_says_how_to_go_on(cluster: str, place: Path) -> None:
    command = [sys.executable, "-m", "loraft", "sweep", "--engine", "ray", "--address", cluster, "--ranks", "4",
               "--joint", "off", "--model", "./nhỏ", "--data", "câu", "--task", "việc.yaml",
               "--output", "ngắt"]  # fmt: skip
    command += [word for pair in [*SMALL, "train.max_steps=100000"] for word in ("--set", pair)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        while driver.poll() is None and not list((place / "ngắt").glob("*/r4/checkpoints/checkpoint-*")):
            time.sleep(0.05)
        driver.send_signal(signal.SIGTERM)
        _, said = driver.communicate()
    assert driver.returncode == 143, said
    assert said.splitlines()[-1] == "interrupted; the same command goes on from there"
    while workers_of_ray():
        time.sleep(0.05)
    assert not list((place / "ngắt").glob("**/.lock"))


def test_a_machine_with_other_rows_is_refused(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = SharedBackbone.fingerprints
    monkeypatch.setattr(SharedBackbone, "fingerprints", lambda *given: {**fingerprints(*given), "test": "khác"})
    result = runner.sweep(on_ray(cluster, "khác", ranks=[4]), quiet=True)
    assert result.trials[0].status == "failed"
    assert "câu holds other rows there than here (got another test split)" in str(result.trials[0].error)
    assert not Run(Path(result.trials[0].run)).begun
    said = Path(result.path, "errors", "r4.txt").read_text(encoding="utf-8")
    assert said == f"{result.trials[0].error}\n"


@pytest.mark.parametrize("sweep", [{"gpus": 1.0}, {"cpus": 2}])
def test_workers_that_no_machine_can_hold_are_refused_at_once(cluster: str, sweep: dict[str, Any]) -> None:
    with pytest.raises(LoraftError, match=r"no machine of the cluster can hold .*got at most 1 CPU and 0 GPU"):
        runner.sweep(on_ray(cluster, "thiếu", ranks=[4], **sweep), quiet=True)


def test_another_version_of_loraft_on_a_machine_is_refused(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ray_engine.Job
    monkeypatch.setattr(ray_engine, "Job", lambda **given: job(**{**given, "version": "0.0.9"}))
    with pytest.raises(LoraftError, match=r"has another version of loraft \(got .*, here 0\.0\.9\)"):
        runner.sweep(on_ray(cluster, "cũ", ranks=[4]), quiet=True)
