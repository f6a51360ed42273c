"""The workers of a sweep on a Ray cluster: which of them starts, what each has to do, and what came of it.

The unit of a killed worker goes to another one, which goes on from the last checkpoint.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from loraft.errors import LoraftError, RunError, listed
from loraft.progress import Stage
from loraft.ray_cluster import PATIENCE, POLL, in_words, machines, workers_of
from loraft.runs.atomic_files import write_text
from loraft.runs.lock import locked
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep.ray_worker import Job, Worker, unpack
from loraft.studies.sweep.shared_backbone import SharedBackbone
from loraft.studies.sweep.trials import Trial, run_of
from loraft.studies.sweep.units import Unit

WHAT = "loraft sweep --engine ray"
RETRIES = 2  # of a unit whose worker was killed, and of a worker that does not start
NAMED = 4  # trials that a line names at most


@dataclass
class _Task:
    """A unit of work, how many of its workers were killed, and its locked runs."""

    unit: Unit
    killed: int = 0
    locks: ExitStack = field(default_factory=ExitStack)

    @property
    def names(self) -> str:
        return listed((trial.name for trial in self.unit), NAMED)


def places(needed: Mapping[str, float]) -> int:
    """How many workers the machines that are there can hold.

    Raises:
        LoraftError: none.
    """
    there = machines()
    if found := workers_of(there, needed):
        return found
    most = " and ".join(f"{max((one.get(kind, 0) for one in there), default=0):g} {kind}" for kind in needed)
    raise LoraftError(
        f"{WHAT}: no machine of the cluster can hold a worker of {in_words(needed)} (got at most {most}); set"
        " sweep.cpus or sweep.gpus lower, or add a machine"
    )


class Pool:
    """The workers of a sweep with the units that they have, and the units that wait for a worker."""

    def __init__(self, job: Job, folder: SweepFolder, shared: SharedBackbone, needed: Mapping[str, float]) -> None:
        self.job, self.folder, self.shared, self.needed = job, folder, shared, needed
        self.tell = shared.tell
        self.todo: deque[_Task] = deque()
        self.starting: dict[Any, Any] = {}  # the worker by what its call returns
        self.working: dict[Any, tuple[Any, _Task]] = {}
        self.dealt = 0  # trials that were given to a worker
        self.failed_starts = 0
        self.heard = True  # what the workers tell
        self.errors: dict[str, str] = {}

    def run(self, dealt: Sequence[Unit]) -> dict[str, str]:
        """Runs all units; returns the error messages of the trials that failed, by name."""
        import ray
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.todo.extend(map(_Task, dealt))
        self.actor: Any = ray.remote(num_cpus=self.needed["CPU"], num_gpus=self.needed["GPU"])(Worker)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.lines = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        alone, told = time.monotonic(), False
        try:
            with Stage("trial", sum(map(len, dealt))) as self.stage:
                while self.todo or self.working:
                    self._start()
                    at_work = [task.names for _, task in self.working.values()]
                    self.stage.advance(0, listed(at_work, NAMED) if at_work else "")
                    done, _ = ray.wait([*self.starting, *self.working], timeout=POLL)
                    self._tell_lines()
                    for one in done:
                        (self._started if one in self.starting else self._ended)(one)
                    alone = time.monotonic() if self.working else alone
                    if not told and time.monotonic() - alone > PATIENCE:
                        told = True
                        self.tell(
                            f"waiting for a worker: none has started in {PATIENCE:.0f} s (got no"
                            f" {in_words(self.needed)} to spare, or a slow machine)"
                        )
        except ray.exceptions.RayError as error:
            raise LoraftError(
                f"{WHAT}: the cluster failed (got {_reason(error)}); the same command goes on with what is not finished"
            ) from error
        finally:
            for worker in [*self.starting.values(), *(worker for worker, _ in self.working.values())]:
                _kill(worker)
            for task in [*self.todo, *(task for _, task in self.working.values())]:
                task.locks.close()
            with suppress(ray.exceptions.RayError):
                self.lines.shutdown(force=True)
        return self.errors

    def _start(self) -> None:
        """Starts workers for the units that wait, as long as there are places."""
        wanted = len(self.todo) - len(self.starting)
        if wanted <= 0:
            return
        for _ in range(min(wanted, places(self.needed) - len(self.starting) - len(self.working))):
            worker = self.actor.remote(self.job, self.lines)
            self.starting[worker.start.remote()] = worker

    def _started(self, one: Any) -> None:
        """Gives a worker its first unit.

        Raises:
            LoraftError: it has another version of loraft, or workers do not start.
        """
        import ray

        worker = self.starting.pop(one)
        try:
            ray.get(one)
        except ray.exceptions.RayError as error:
            _kill(worker)
            if isinstance(cause := getattr(error, "cause", None), LoraftError):
                raise LoraftError(f"{WHAT}: {cause}") from error
            self.failed_starts += 1
            # As many start at the same time as there are places and units.
            if self.todo and self.failed_starts > RETRIES * min(places(self.needed), len(self.todo)):
                raise LoraftError(
                    f"{WHAT}: workers do not start (got {_reason(error)}); install the same loraft on all machines, and"
                    " see that each worker has the memory to import it"
                ) from error
            return
        self.failed_starts = 0
        self._next(worker)

    def _next(self, worker: Any) -> None:
        """Gives the worker the next unit; ends it if there is none."""
        while self.todo:
            task = self.todo.popleft()
            if not task.killed:
                first, self.dealt = self.dealt + 1, self.dealt + len(task.unit)
                which = f"trial {first}" if first == self.dealt else f"trials {first} to {self.dealt}"
                self.tell(f"{which} of {self.stage.total}: {task.names}")
                task.unit = tuple(trial for trial in task.unit if self._lock(trial, task))
            if task.unit:
                rows = {trial.name: self.shared.fingerprints(trial.config) for trial in task.unit}
                self.working[worker.run.remote(task.unit, rows, again=task.killed > 0)] = worker, task
                return
        _kill(worker)

    def _lock(self, trial: Trial, task: _Task) -> bool:
        """Locks the trial's directory for its worker; where another process works there, the trial has failed."""
        try:
            task.locks.enter_context(locked(run_of(trial).path, force=self.job.force))
        except RunError as error:
            self._done_with([trial], str(error))
            return False
        return True

    def _ended(self, one: Any) -> None:
        """Takes the results of a unit; where its worker was killed, the unit waits for another one."""
        import ray

        worker, task = self.working.pop(one)
        try:
            errors, archive = ray.get(one)
        except ray.exceptions.RayTaskError as error:
            task.locks.close()
            self._done_with(task.unit, _reason(error))
        except ray.exceptions.RayError as error:
            _kill(worker)  # one that cannot be reached may still work
            task.killed += 1
            if task.killed > RETRIES:
                task.locks.close()
                told = f"its worker was killed {task.killed} times (got {_reason(error)})"
                self._done_with(task.unit, f"{told}; the same command goes on from the last checkpoint")
            else:
                self.tell(f"{task.names}: the worker was killed; try {task.killed + 1} of {RETRIES + 1}")
                self.todo.appendleft(task)
            return
        else:
            self.errors |= errors
            self.stage.advance(len(errors))
            trained = [trial for trial in task.unit if trial.name not in errors]
            try:
                if archive is not None:
                    unpack(archive, self.folder, trained)
            except OSError as error:
                self._done_with(trained, f"its run cannot be kept here ({error}); the same command trains it again")
            else:
                self.stage.advance(len(trained))
            task.locks.close()
        self._next(worker)

    def _done_with(self, trials: Sequence[Trial], failure: str) -> None:
        for trial in trials:
            self.errors[trial.name] = failure
            write_text(self.folder.error_path(trial.name), f"{failure}\n")
            self.tell(f"{trial.name} failed: {failure}")
        self.stage.advance(len(trials))

    def _tell_lines(self) -> None:
        """Passes on what the workers have told; without the process that collects it the trials go on in silence."""
        import ray

        if not self.heard:
            return
        try:
            if waiting := self.lines.size():
                for line in self.lines.get_nowait_batch(waiting):
                    self.tell(line)
        except ray.exceptions.RayActorError as error:
            self.heard = False
            self.tell(f"what the workers tell is lost from here on (got {_reason(error)}); the trials go on")


def _kill(worker: Any) -> None:
    import ray

    with suppress(ray.exceptions.RayError):
        ray.kill(worker)


def _reason(error: Exception) -> str:
    """The line of a message of ray that says most: the last one, of the traceback that it holds."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
