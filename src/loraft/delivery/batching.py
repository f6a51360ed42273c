"""Rows of concurrent requests become batches for one computing thread: order kept, errors by request, bounded queue."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from loraft.delivery.metrics import Metrics
from loraft.evaluation.predict import Prediction
from loraft.models.calibration import Calibration


@dataclass(frozen=True)
class Limits:
    """What a request, a batch and the queue may hold.

    Attributes:
        body: bytes of a request's body.
        rows: texts of a request.
        characters: of a text.
        queue: rows that wait to be computed.
        batch: rows that are computed together; a request with more is cut into pieces, between which others get a turn.
        wait: seconds that a batch waits for further requests, from the arrival of its first one.
    """

    body: int = 2**20
    rows: int = 256
    characters: int = 20_000
    queue: int = 1024
    batch: int = 32
    wait: float = 0.005


class Labeller(Protocol):
    """What is served: a `loraft.evaluation.classifier.Classifier`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the K labels, in id order."""
        ...

    @property
    def calibration(self) -> Calibration:
        """Of its probabilities."""
        ...

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Returns one prediction for each text, in order."""
        ...

    def prompt_tokens(self, texts: Sequence[str]) -> list[int]:
        """Returns the number of tokens of each text's prompt."""
        ...


# Of the texts of one request: one for each, and the tokens of all their prompts.
Answer = tuple[list[Prediction], int]


class QueueFullError(Exception):
    """The rows of a request do not fit the queue."""


@dataclass(eq=False)
class _Job:
    """Rows of one request that are computed together, and who waits for the answer."""

    name: str
    texts: list[str]
    since: float
    found: "asyncio.Future[Answer]" = field(repr=False)


class Batcher:
    """Computes the rows of concurrent requests together, in one thread.

    A batch holds requests for one run, in the order of their arrival. It begins when it is full, when it has as many
    requests as the last batch had, or when `Limits.wait` is over. So a single client never waits for others, and the
    clients of one batch, whose next requests come soon after their answers, meet again in the next one.

    All methods are called in the event loop's thread.

    Attributes:
        waiting: rows in the queue.
    """

    def __init__(self, models: Mapping[str, Labeller], limits: Limits, metrics: Metrics) -> None:
        self.waiting = 0
        self._models, self._limits, self._metrics = models, limits, metrics
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._expected = 1  # requests of the last batch
        self._thread = ThreadPoolExecutor(1, "loraft-serve")

    async def predict(self, name: str, texts: list[str]) -> Answer:
        """Returns the answer of the run `name` to the texts of one request.

        Raises:
            QueueFullError: they would make the queue longer than its limit.
        """
        if self.waiting + len(texts) > max(self._limits.queue, len(texts)):
            raise QueueFullError
        loop, size = asyncio.get_running_loop(), self._limits.batch
        found, tokens = list[Prediction](), 0
        self.waiting += len(texts)
        for begin in range(0, len(texts), size):
            job = _Job(name, texts[begin : begin + size], loop.time(), loop.create_future())
            self._jobs.append(job)
            self._arrived.set()
            try:
                some, more = await job.found
            except BaseException:  # an error of the model; or the client has gone, and its task was cancelled
                queued = job in self._jobs
                if queued:
                    self._jobs.remove(job)
                self.waiting -= len(texts) - begin - (0 if queued else len(job.texts))
                raise
            found += some
            tokens += more
        return found, tokens

    async def work(self) -> None:
        """Computes batches until it is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                jobs = await self._collected()
                texts = [job.texts for job in jobs]
                found = await loop.run_in_executor(self._thread, _answers, self._models[jobs[0].name], texts)
                self._metrics.batch_rows.add(sum(map(len, texts)))
                for job, result in zip(jobs, found, strict=True):
                    if job.found.cancelled():  # its client has gone
                        continue
                    if isinstance(result, Exception):
                        job.found.set_exception(result)
                    else:
                        job.found.set_result(result)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)  # the event loop never waits for the model

    async def _collected(self) -> list[_Job]:
        """Waits for a batch, and takes it out of the queue."""
        loop = asyncio.get_running_loop()
        while True:
            jobs, full = self._first_jobs()
            left = jobs[0].since + self._limits.wait - loop.time() if jobs else None
            if left is not None and (full or len(jobs) >= self._expected or left <= 0):
                break
            await self._next_arrival(left)
        self._expected = len(jobs)
        self._jobs = deque(job for job in self._jobs if job not in jobs)
        self.waiting -= sum(len(job.texts) for job in jobs)
        return jobs

    def _first_jobs(self) -> tuple[list[_Job], bool]:
        """The first jobs of the run that the queue begins with, as many as fit a batch, and whether it is full."""
        jobs: list[_Job] = []
        rows = 0
        for job in self._jobs:
            if job.name != self._jobs[0].name:
                continue
            rows += len(job.texts)
            if jobs and rows > self._limits.batch:
                break
            jobs.append(job)
        return jobs, rows >= self._limits.batch

    async def _next_arrival(self, seconds: float | None) -> None:
        self._arrived.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            pass


def _answers(model: Labeller, groups: list[list[str]]) -> list[Answer | Exception]:
    """The answer to each group of texts; in place of one that cannot be computed, its error."""
    try:
        texts = [text for group in groups for text in group]
        tokens, found = iter(model.prompt_tokens(texts)), iter(model.predict(texts))
        return [([next(found) for _ in group], sum(next(tokens) for _ in group)) for group in groups]
    except Exception as error:
        if len(groups) == 1:
            return [error]
    return [answer for group in groups for answer in _answers(model, [group])]
