"""A sweep as a job array of SLURM: the script, and the work of one array task.

Array tasks start at different times, perhaps days apart, so what each of them trains is fixed when the script is
written: `slurm.json` holds the trials of each, and the digest of the sweep.yaml that they come from.
"""

import hashlib
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from loraft.config.names import show
from loraft.config.schema import Config
from loraft.display.progress import shown
from loraft.errors import ConfigError, RunError, listed
from loraft.runs.atomic_files import write_text
from loraft.runs.lock import locked, refuse_locked, working_there
from loraft.runs.records import read_record, write_record
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep import joint_pass, runner
from loraft.studies.sweep.grid import refuse_script
from loraft.studies.sweep.local_engine import run_trials
from loraft.studies.sweep.shared_backbone import SharedBackbone, Tell
from loraft.studies.sweep.trials import Trial
from loraft.studies.sweep.units import units

# SLURM sends SIGTERM so many seconds before the time limit, or up to a minute earlier: to the batch shell ("B:"), whose
# place the training takes by `exec`. It then saves a checkpoint after its step.
BEFORE_THE_LIMIT = 120
NEED_VALUES = (  # of the options of sbatch the usual ones; a name alone would fail only there
    "job-name", "output", "open-mode", "signal", "time", "gres", "gpus", "mem", "cpus-per-task", "nodes", "ntasks",
    "partition", "account", "qos", "constraint", "nodelist", "exclude", "error", "mail-type", "mail-user",
)  # fmt: skip
EXAMPLES = "for example --slurm gres=gpu:1 --slurm time=04:00:00"


@dataclass(frozen=True)
class ArrayTasks:
    """What `slurm.json` holds.

    Attributes:
        config: SHA-256 of the sweep.yaml that the trials come from.
        tasks: the names of the trials of each array task, in the order of the tasks' numbers.
        size, options: with which the script was written; the next one takes them where it is given none.
    """

    config: str
    tasks: tuple[tuple[str, ...], ...]
    size: int | None
    options: tuple[str, ...]


@dataclass(frozen=True)
class JobArray:
    """What `emit` wrote.

    Attributes:
        script: path of the script; None if no task is to be submitted.
        conclusion: the command that ranks and draws all trials when they are finished.
        tasks: number of array tasks.
        options: of sbatch, from this call or the last one.
        unfinished: numbers of the unfinished tasks, which the script lists.
        at_work: those that it leaves out, because a process works on them, as the message says.
    """

    script: str | None
    conclusion: str
    tasks: int
    options: tuple[str, ...]
    unfinished: tuple[int, ...]
    at_work: dict[int, str]


def emit(
    config: Config,
    options: Sequence[str] = (),
    *,
    size: int | None = None,
    quiet: bool = False,
    tell: Tell = lambda message: None,
) -> JobArray:
    """Writes the script that runs a sweep as a job array; trains nothing.

    Args:
        config: of the sweep, as `runner.sweep` takes it.
        options: of sbatch, in the long form, such as `gres=gpu:1`; they replace those that the script would have. None:
            those of the last script for this sweep.
        size: number of array tasks. Trials that can share a training are dealt out to them in groups, and then
            `sweep.joint` decides. None: that of the last script; at first one trial a task, and with `sweep.joint=on`
            one group a task.
        quiet: show no progress.
        tell: called with each line for the user.

    Raises:
        LoraftError: a mistake in the config, the data or the options; a trial is damaged; or array tasks are at work,
            and what they train would be dealt anew.
    """
    refuse_script(config)
    folder, config, trials = runner.trials_of(config)
    path = folder.path
    before = _read(folder)
    if before is not None:
        options, size = options or before.options, size or before.size
    given = _given(options)
    if found := re.search(r"[\\\n]", str(path.absolute())):
        raise RunError(f"{path.absolute()}: SLURM takes no path with {found[0]!r} for logs; choose another --output")
    script = {
        "job-name": path.name,
        "output": f"{str(path.absolute()).replace('%', '%%')}/slurm/%a.log",
        "open-mode": "append",
        "requeue": None,
        "signal": f"B:TERM@{BEFORE_THE_LIMIT}",
        **given,
    }
    with locked(path), shown(quiet=quiet):
        waiting, errors = runner.unfinished_and_damaged(trials)
        if errors:
            raise RunError(next(iter(errors.values())))
        runner.check_rows(trials, waiting, SharedBackbone(tell))
        dealt = _dealt(trials, config.sweep.joint, size)
        names = tuple(tuple(trial.name for trial in task) for task in dealt)
        record = ArrayTasks(_digest(runner.as_saved(config, trials).encode()), names, size, tuple(options))
        begun = {number: says for number, task in folder.array_tasks_begun().items() if (says := working_there(task))}
        if begun and (before is None or (before.config, before.tasks) != (record.config, record.tasks)):
            raise RunError(
                f"{path}: array tasks work there whose trials would be dealt out anew (got {listed(begun)} at work);"
                " wait for them, or end them with scancel"
            )
        runner.begin(config, trials)
        left = [number for number, task in enumerate(dealt) if any(trial in waiting for trial in task)]
        array = [number for number in left if number not in begun]
        write_record(folder.array_tasks_path, record)
        if left:  # else the results are replaced when the new ones are written
            folder.results_path.unlink(missing_ok=True)
        if array:
            folder.slurm_logs.mkdir(exist_ok=True)
            limit = given.get("array") or ""
            write_text(folder.slurm_script, _script(folder, script | {"array": f"{_ranges(array)}{limit}"}))
    written = str(folder.slurm_script) if array else None
    at_work = {number: begun[number] for number in left if number in begun}
    return JobArray(written, folder.how_to_resume, len(dealt), tuple(options), tuple(array), at_work)


def run_array_task(
    config: Config, number: int, *, quiet: bool = False, tell: Tell = lambda message: None
) -> dict[str, str | None]:
    """Trains the trials of one array task that are not finished.

    Args:
        config: that of the sweep's sweep.yaml.
        number: of the array task, from 0.
        quiet: show no progress.
        tell: called with each line for the user.

    Returns:
        For each trial of the task its error message, None where it is finished.

    Raises:
        ConfigError: there is no task of that number.
        RunError: no script was written for this sweep, or its sweep.yaml has changed since; or another process works
            on the same task or on the whole sweep.
    """
    folder, config, trials = runner.trials_of(config)
    anew = f"{folder.how_to_resume} --emit slurm"
    if (record := _read(folder)) is None:
        raise RunError(
            f"{folder.path}: no script was written for SLURM (found no {folder.array_tasks_path.name}); {anew}"
        )
    if record.config != _digest(folder.config_path.read_bytes()):
        raise RunError(
            f"{folder.config_path}: has changed since the script for SLURM was written; {anew} writes it anew"
        )
    if number not in range(len(record.tasks)):
        raise ConfigError(f"--array-task: there is none of that number (got {number}); 0 to {len(record.tasks) - 1}")
    own = [trial for trial in trials if trial.name in record.tasks[number]]
    # The lock is taken first and the sweep's looked for then; a whole sweep does it the other way round.
    with locked(folder.array_task(number)), shown(quiet=quiet):
        refuse_locked(folder.path)
        waiting, damaged = runner.unfinished_and_damaged(own)
        shared = SharedBackbone(tell)
        runner.check_rows(trials, waiting, shared)
        tell(f"array task {number}: {len(waiting)} of its {len(own)} trials are not finished")
        errors = damaged | run_trials(waiting, folder, shared, config.sweep.joint, force=False, quiet=quiet)
        joint_pass.clear(folder)
    return {trial.name: errors.get(trial.name) for trial in own}


def _given(options: Sequence[str]) -> dict[str, str | None]:
    """The options of sbatch that the user gave, by name.

    Raises:
        ConfigError: one is not in the long form, or is decided by the script itself.
    """
    given: dict[str, str | None] = {}
    for option in map(str.strip, options):
        found = re.fullmatch(r"(?:--)?([a-z][a-z0-9-]+)(?:=(\S.*))?", option)
        if found is None or not option.isprintable():
            raise ConfigError(f"--slurm: not an option of sbatch in its long form (got {show(option)}); {EXAMPLES}")
        name, value = found.groups()
        if name == "array" and not re.fullmatch(r"%[1-9]\d*", value or ""):
            raise ConfigError(
                f"--slurm array: the script lists the tasks itself (got {show(option)}); array=%8 lets 8 of them run at"
                " a time"
            )
        if value is None and name in NEED_VALUES:
            raise ConfigError(f"--slurm {name}: takes a value (got none), for example --slurm {name}=VALUE")
        if name in ("wrap", "chdir"):
            raise ConfigError(f"--slurm {name}: the script decides it (got {show(option)}); leave it out")
        given[name] = value
    return given


def _dealt(trials: Sequence[Trial], joint: str, size: int | None) -> list[tuple[Trial, ...]]:
    """The trials of each array task."""
    if size is None:
        return units(trials, joint if joint == "on" else "off", workers=1)
    fewest = units(trials, joint, workers=1)
    dealt = units(trials, joint, workers=max(1, size // len(fewest)))
    return [tuple(chain.from_iterable(dealt[number::size])) for number in range(min(size, len(dealt)))]


def _script(folder: SweepFolder, options: dict[str, str | None]) -> str:
    """The text of the script."""
    lines = [f"#SBATCH --{name}" + ("" if value is None else f"={_quoted(value)}") for name, value in options.items()]
    command = [sys.executable, "-m", "loraft", "sweep", "--config", str(folder.config_path), "--array-task"]
    return "\n".join(
        [
            "#!/bin/bash",
            f"# Trains the trials of one array task. In the end, {folder.how_to_resume} ranks and draws all.",
            *lines,
            "",
            f"cd {shlex.quote(str(Path.cwd()))} || exit 1",
            "# exec: SLURM's signals reach the training itself, which saves a checkpoint.",
            f'exec {shlex.join(command)} "${{SLURM_ARRAY_TASK_ID:?submit this script with sbatch}}"',
            "",
        ]
    )


def _quoted(value: str) -> str:
    """A value as sbatch reads it in a script: a backslash escapes also between quotes, and `#` begins a comment."""
    if re.fullmatch(r"[\w@%+=:,./-]+", value, re.ASCII):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers as sbatch takes them: 0, 1, 2 and 5 as `0-2,5`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def _read(folder: SweepFolder) -> ArrayTasks | None:
    """The array tasks for which a script was written; None if none was."""
    path = folder.array_tasks_path
    return (
        read_record(path, ArrayTasks, f"delete it, then {folder.how_to_resume} --emit slurm") if path.exists() else None
    )


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
