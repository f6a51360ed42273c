"""A discrete-event simulation of workers that take units of work from one queue, with stragglers, failures and retries.

The workers do what those of `loraft sweep --engine ray` and `loraft predict --engine ray` do: the next free one takes
the next unit, in order. All times are seconds.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Unit:
    """What one worker does at a stretch: a trial, a joint pass, or a shard of rows.

    Attributes:
        setup: seconds that every attempt spends before it goes on with the work, such as loading the backbone.
        work: seconds of the work itself, on a worker that is no straggler.
        checkpoint: seconds of work between two checkpoints. An attempt goes on from the last one; inf: from nothing.
    """

    name: str
    setup: float
    work: float
    checkpoint: float = math.inf

    def __post_init__(self) -> None:
        if not self.checkpoint > 0:
            raise ValueError(f"checkpoint: must be more than 0 seconds (got {self.checkpoint})")


@dataclass(frozen=True)
class Cluster:
    """The workers, and what happens to them.

    Attributes:
        workers: of which each has one GPU.
        start: seconds before a worker takes its first unit.
        failure_every: mean seconds of work to the failure of one worker. Failures come at a constant rate and hit one
            worker each; inf: never.
        restart: seconds from a failure until the worker, or one in its place, takes a unit again.
        sigma: of the natural logarithm of the factor by which a unit is slower than its seconds, in each attempt; the
            median of the factor is 1.
        retries: of one unit, after which it is given up.
    """

    workers: int
    start: float = 0.0
    failure_every: float = math.inf
    restart: float = 0.0
    sigma: float = 0.0
    retries: int = 3

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers: must be at least 1 (got {self.workers})")


@dataclass(frozen=True)
class Outcome:
    """One simulated run.

    Attributes:
        makespan: seconds until the last unit is finished or given up.
        busy: worker-seconds inside attempts; the rest of `workers * makespan` is starting, restarting and waiting.
        setup: worker-seconds of `busy` before the work of an attempt.
        lost: worker-seconds of `busy` that a failure made worthless: setup, and work since the last checkpoint.
        down: worker-seconds from failures until a worker was there again, or until the end.
        attempts, failures: their numbers.
        finished, given_up: names of units, in the order in which they ended.
    """

    makespan: float
    busy: float
    setup: float
    lost: float
    down: float
    attempts: int
    failures: int
    finished: tuple[str, ...]
    given_up: tuple[str, ...]


@dataclass(slots=True)
class _Job:
    """A unit in the queue, with the seconds of work that no checkpoint holds, and the factor by which it is slower."""

    unit: Unit
    left: float
    slower: float
    failures: int = 0


class _Attempt(NamedTuple):
    """How an attempt will end; decided when it begins."""

    job: _Job
    seconds: float
    fails: bool


def simulate(units: Sequence[Unit], cluster: Cluster, seed: int) -> Outcome:
    """The run of the units on the cluster; the same seed gives the same run."""
    chance = random.Random(seed)
    # A unit keeps its factor: were it drawn again after a failure, a run could be the faster for having failed.
    waiting = deque(_Job(unit, unit.work, math.exp(cluster.sigma * chance.gauss(0.0, 1.0))) for unit in units)
    # Events are (time, order of making, worker, attempt that ends); without an attempt, the worker becomes ready.
    events: list[tuple[float, int, int, _Attempt | None]] = [
        (cluster.start, n, n, None) for n in range(cluster.workers)
    ]
    made, idle = cluster.workers, list[int]()
    makespan = busy = setup = lost = 0.0
    attempts, failed_at = 0, list[float]()
    finished, given_up = list[str](), list[str]()
    left = len(units)
    while left:
        now, _, worker, ended = heapq.heappop(events)
        if ended is None:
            heapq.heappush(idle, worker)
        else:
            job, unit = ended.job, ended.job.unit
            busy += ended.seconds
            setup += min(ended.seconds, unit.setup * job.slower)
            if not ended.fails:
                finished.append(unit.name)
                left -= 1
                makespan = now
                heapq.heappush(idle, worker)
            else:
                failed_at.append(now)
                job.failures += 1
                kept = _in_checkpoints(job, ended)
                job.left -= kept
                lost += ended.seconds - kept * job.slower
                if job.failures > cluster.retries:
                    given_up.append(unit.name)
                    left -= 1
                    makespan = now
                else:
                    waiting.appendleft(job)
                heapq.heappush(events, (now + cluster.restart, made, worker, None))
                made += 1
        while idle and waiting:
            attempt = _attempt(waiting.popleft(), cluster, chance)
            heapq.heappush(events, (now + attempt.seconds, made, heapq.heappop(idle), attempt))
            made += 1
            attempts += 1
    down = sum(min(cluster.restart, makespan - failed) for failed in failed_at)
    return Outcome(makespan, busy, setup, lost, down, attempts, len(failed_at), tuple(finished), tuple(given_up))


def _attempt(job: _Job, cluster: Cluster, chance: random.Random) -> _Attempt:
    needed = (job.unit.setup + job.left) * job.slower
    # Drawn in any case, so that clusters that differ in one value see the same draws.
    fails_after = chance.expovariate(1.0) * cluster.failure_every
    return _Attempt(job, min(needed, fails_after), fails_after < needed)


def _in_checkpoints(job: _Job, ended: _Attempt) -> float:
    """Seconds of work that the checkpoints of a failed attempt hold.

    Checkpoints lie at multiples of their interval from the beginning of the unit, and an attempt begins at one of them.
    """
    done = max(0.0, ended.seconds / job.slower - job.unit.setup)
    every = job.unit.checkpoint
    return 0.0 if math.isinf(every) else math.floor(done / every) * every
