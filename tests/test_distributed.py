"""Several processes of a launcher train as one; one of them writes; one that ends ends the others and is named."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
import yaml
from accelerate.commands.config import load_config_from_file
from safetensors.torch import load_file

from loraft import distributed
from loraft.config.resolve import presets, resolve
from loraft.errors import RunError
from loraft.runs.environment import keep_environment
from loraft.runs.run import run_of
from loraft.training.beginning import begin
from loraft.training.even_batches import FilledBatches
from loraft.training.processes import free_keys

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs" / "accelerate"
DDP = sorted(path for path in CONFIGS.glob("*.yaml") if not path.stem.startswith("fsdp"))
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
# 60 rows are 7.5 steps an epoch; 9 test rows are no two equal shares.
SETTINGS = [
    "train.max_steps=10", "train.eval_steps=2", "train.logging_steps=1", "lora.lora_dropout=0", "quant.method=nf4",
    "data.max_train_rows=60", "data.max_eval_rows=9", "data.max_test_rows=9", "eval.bootstrap_samples=100",
    "model.dtype=fp32",
]  # fmt: skip


def accelerate(config: str, *flags: str) -> list[str]:
    return ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / config), *flags]


def started(output: Path, launcher: list[str], *flags: str, **settings: int) -> subprocess.Popen[str]:
    given = [*SETTINGS, f"output={output}", "name=run", *(f"train.{key}={value}" for key, value in settings.items())]
    command = [sys.executable, *launcher, "-m", "loraft", "train", *flags]
    command += [part for setting in given for part in ("--set", setting)]
    output.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(output.parent), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, encoding="utf-8", env=environment)


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return stdout, stderr


def compare(two: Path, one: Path) -> None:
    """Checks that loss, scores on validation and test, and the adapter are the same."""
    logs = [[json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (one, two)]
    for key in ("loss", "eval_loss"):
        values = [{row["step"]: row[key] for row in log if key in row} for log in logs]
        assert values[1] == pytest.approx(values[0], rel=1e-4), key
        assert [*values[0]] == [*range(1, 11)] if key == "loss" else [*range(2, 11, 2)]
    weights = [load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, two)]
    for name, weight in weights[0].items():
        assert torch.linalg.norm(weights[1][name] - weight) <= 1e-2 * torch.linalg.norm(weight), name
    metrics = [json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in (one, two)]
    for when in ("before", "after"):
        for key in ("n", "accuracy", "macro_f1", "confusion"):
            assert metrics[1][when][key] == metrics[0][when][key], (when, key)
    rows = [(run / "predictions.jsonl").read_text(encoding="utf-8").splitlines() for run in (one, two)]
    read = [[(row["row"], row["predicted"]) for row in map(json.loads, lines)] for lines in rows]
    assert read[1] == read[0]
    assert len(read[0]) == 9
    assert metrics[1]["train"]["shared_prefix"] is True


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a single process."""
    output = tmp_path_factory.mktemp("one") / "runs"
    ended(started(output, [], per_device_train_batch_size=8))
    return output / "run"


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.usefixtures("no_launcher")
def test_a_process_without_a_launcher_is_the_only_one_and_the_main_one() -> None:
    assert not distributed.is_distributed()
    assert distributed.is_main_process()
    assert distributed.local_rank() == 0


@pytest.mark.usefixtures("no_launcher")
@pytest.mark.parametrize(
    ("world_size", "rank", "several", "main"),
    [("1", "0", False, True), ("2", "0", True, True), ("2", "1", True, False), ("16", "8", True, False)],
)
def test_of_several_processes_the_first_is_the_main_one(
    monkeypatch: pytest.MonkeyPatch, world_size: str, rank: str, several: bool, main: bool
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world_size)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert (distributed.is_distributed(), distributed.is_main_process()) == (several, main)
    assert distributed.local_rank() == 3


@pytest.mark.usefixtures("no_launcher")
def test_a_variable_of_another_program_makes_no_second_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "8")
    assert distributed.is_main_process()


def test_batches_are_filled_up_for_all_processes_and_no_row_comes_twice() -> None:
    sampler = torch.utils.data.SequentialSampler(range(9))
    for size, processes in ((2, 2), (4, 2), (3, 3), (10, 3), (1, 4)):
        batches = FilledBatches(torch.utils.data.BatchSampler(sampler, size, drop_last=False), processes, 9)
        found = [*batches]
        assert len(found) == len(batches)
        assert len(found) % processes == 0
        assert len(found) - processes < -(-9 // size)
        assert {len(batch) for batch in found} == {size}
        assert [n for batch in found for n in batch if n < 9] == [*range(9)]


@pytest.mark.parametrize(
    ("processes", "overrides", "way"),
    [
        ("1", [], r"was begun with 16 rows a step \(got 4 rows x 2 batches x 1 process\);"
                  r" --set train.gradient_accumulation_steps=4 keeps them"),
        ("8", [], r"--set train.per_device_train_batch_size=2 --set train.gradient_accumulation_steps=1 keeps them"),
        ("3", [], r"a number of processes that divides 16 can keep them"),
        ("1", ["train.gradient_accumulation_steps=4"], None),
        ("4", ["train.gradient_accumulation_steps=1"], None),
        ("2", [], None),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_launcher")
def test_a_step_keeps_its_rows_or_the_setting_that_does_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: str, overrides: list[str], way: str | None
) -> None:
    given = [f"output={tmp_path}", "name=run", "train.per_device_train_batch_size=4"]
    begun = resolve(overrides=[*given, "train.gradient_accumulation_steps=2"])
    now = resolve(overrides=[*given, "train.gradient_accumulation_steps=2", *overrides])
    run = run_of(begun)
    state = run.checkpoints / "checkpoint-2" / "trainer_state.json"
    state.parent.mkdir(parents=True)
    run.config_path.write_text(yaml.safe_dump(begun.model_dump(mode="json")), encoding="utf-8")
    callbacks = {"TrainingClock": {"attributes": {"seconds": 1.0, "tokens": 5, "rows": 16}}}
    earlier: dict[str, object] = {"TrainingClock": {"attributes": {"seconds": 1.0, "tokens": 5}}}
    for n in range(2):
        (state.parent / f"rng_state_{n}.pth").touch()
    monkeypatch.setenv("WORLD_SIZE", "2")
    keep_environment(run.environment_path, begun)
    monkeypatch.setenv("WORLD_SIZE", processes)
    for saved in (callbacks, earlier, None):
        if saved is None:  # killed before the first checkpoint
            shutil.rmtree(run.checkpoints)
        else:
            state.write_text(json.dumps({"stateful_callbacks": saved}), encoding="utf-8")
        if way is None:
            assert "train.gradient_accumulation_steps" in free_keys(run, now)
        else:
            with pytest.raises(RunError, match=way):
                free_keys(run, now)
    if way is None and overrides:  # a step would have other rows: the keys are compared as ever
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert free_keys(run, now) == ()
        monkeypatch.setenv("WORLD_SIZE", processes)
        begin(run, now, {}, resume=True)
        assert "train.gradient_accumulation_steps" in free_keys(run, now)


def test_accelerate_reads_its_configs_and_none_is_a_preset() -> None:
    assert [path.stem for path in DDP] == ["ddp", "ddp_cpu", "multi_node"]
    for path in DDP:
        config = load_config_from_file(str(path))
        assert config.distributed_type == "MULTI_GPU"  # MULTI_CPU starts one process
        assert path.read_text(encoding="utf-8").startswith("# accelerate launch --config_file configs/accelerate/")
    assert not {path.stem for path in CONFIGS.glob("*.yaml")} & {*presets()}


def exchanged(folder: Path, how: str, processes: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOW": how, "FOLDER": str(folder), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), environment.get("PYTHONPATH", "")])
    command = [sys.executable, *TORCHRUN[:-1], str(processes), "-m", "helpers.exchange"]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)


@pytest.mark.integration
def test_a_killed_process_is_named_once_and_shares_come_back_in_order(tmp_path: Path) -> None:
    made = exchanged(tmp_path, "kill", 3)
    told = [line for line in made.stderr.splitlines() if "has ended" in line]
    assert made.returncode != 0
    assert len(told) == 1
    assert told[0].startswith("error: rank 1 (process ")
    found, of_main, sums, largest, shares = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found == [[], [14.0], [10.0, 12.0, 14.0, 16.0, 18.0]]
    assert (of_main, sums, largest) == ("rank 0", [3, 3], 2)
    assert shares == [[0, 1, 2], [0, 0, 2], [0, 0, 1]]


@pytest.mark.integration
def test_an_error_of_one_process_is_told_by_it_and_how_to_go_on_by_the_first(tmp_path: Path) -> None:
    made = exchanged(tmp_path, "raise", 2)
    told = [line for line in made.stderr.splitlines() if line.startswith("error: ")]
    assert made.returncode != 0
    assert told[0] == "error: rank 1: dòng 7: không đọc được"
    assert told[1].startswith("error: rank 1 (process ")
    assert told[1].endswith("run the command again")
    assert len(told) == 2


@pytest.mark.integration
def test_one_that_is_interrupted_is_not_told_as_lost_by_another(tmp_path: Path) -> None:
    made = exchanged(tmp_path, "interrupt", 2)
    told = [line for line in made.stderr.splitlines() if line.startswith(("error", "interrupted"))]
    assert made.returncode != 0
    assert told == ["interrupted"]


@pytest.mark.parametrize("machine", [socket.gethostname(), "máy-2"])
def test_one_that_told_its_error_counts_as_ended_and_others_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    """Where all are on this machine, the wait is longer."""
    here = distributed.Member(0, socket.gethostname(), os.getpid())
    second = distributed.Member(1, socket.gethostname(), os.getppid())
    store, seconds = {"loraft/told/1"}, iter(range(100))
    monkeypatch.setattr(distributed, "_members", (here, second, distributed.Member(2, machine, os.getppid())))
    monkeypatch.setattr(distributed, "_store", lambda: SimpleNamespace(check=lambda keys: store >= {*keys}))
    monkeypatch.setattr(distributed, "time", SimpleNamespace(monotonic=lambda: next(seconds), sleep=lambda _: None))
    closed = RuntimeError("[gloo/transport] Connection closed by peer")
    assert distributed.lost(closed) == second
    assert distributed.lost() is None
    store.clear()
    begin = next(seconds)
    assert distributed.lost(closed) is None
    waited = next(seconds) - begin - 2
    assert waited == (2 if machine == "máy-2" else 30)


@pytest.mark.integration
def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    made = started(tmp_path, accelerate("ddp.yaml", "--main_process_port", "0"), "--model", "không-có")
    _, stderr = made.communicate()
    assert made.returncode != 0
    assert [line for line in stderr.splitlines() if line.startswith("error: ")] == [
        "error: model.name: no such backbone (got 'không-có'); bundled: loraft-vi-tiny; else a folder, a GGUF file, or"
        " owner/name on the hub"
    ]


@pytest.mark.integration
def test_two_processes_train_as_one_and_go_on_as_one(tmp_path: Path, one: Path) -> None:
    """Of two that train in batches of two windows, one is killed; a single process goes on from the checkpoint."""
    launcher = accelerate("ddp_cpu.yaml", "--main_process_port", "0")
    two = started(tmp_path / "two", launcher, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    run = tmp_path / "two" / "run"
    while not (run / "checkpoints" / "checkpoint-4" / "loraft-checkpoint.json").exists():
        assert two.poll() is None, two.communicate()
        time.sleep(0.02)
    second = next(child for child in psutil.Process(two.pid).children() if child.environ().get("RANK") == "1")
    second.kill()
    _, stderr = two.communicate()
    assert two.returncode != 0
    told = [line for line in stderr.splitlines() if "has ended" in line]
    assert len(told) == 1
    assert f"rank 1 (process {second.pid} on " in told[0]
    assert f"loraft train --resume --config {run}" in told[0]
    assert not (run / ".lock").exists()
    given = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    stdout, stderr = ended(started(tmp_path / "two", [], "--resume", **given))
    assert "after: adapter" in stdout
    compare(run, one)


@pytest.mark.integration
def test_what_one_process_began_two_machines_go_on_with(tmp_path: Path, one: Path) -> None:
    """Two launchers over loopback, one process each; the run is as it was after its fourth step."""
    run = shutil.copytree(one, tmp_path / "two" / "run")
    for name in ("metrics.json", "predictions.jsonl", "explanations.json", "adapter", "plots"):
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink(missing_ok=True)
    steps = sorted(int(path.name.removeprefix("checkpoint-")) for path in (run / "checkpoints").glob("checkpoint-*"))
    for step in steps[1:]:
        shutil.rmtree(run / "checkpoints" / f"checkpoint-{step}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    flags = ["--main_process_ip", "127.0.0.1", "--main_process_port", port, "--machine_rank"]
    machines = [
        started(
            tmp_path / "two", accelerate("multi_node.yaml", *flags, rank), "--resume", per_device_train_batch_size=4
        )
        for rank in ("0", "1")
    ]
    (stdout, stderr), (other_stdout, other_stderr) = map(ended, machines)
    assert stdout.count("after: adapter") == 1
    assert stderr.count("next: loraft predict") == 1
    assert "after: adapter" not in other_stdout
    assert "backbone loraft-vi-tiny" not in other_stderr
    assert json.loads((run / "metrics.json").read_text(encoding="utf-8"))["train"]["resumed_from_step"] == steps[0]
    compare(run, one)
    assert not [path for path in tmp_path.glob("loraft-*") if path.is_dir()]  # of the process that does not write
