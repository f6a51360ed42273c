"""`loraft predict --engine ray`: files are split into parts, which the workers of a Ray cluster label.

Each part becomes a file of its own in the output folder, written by its worker. Ray Data hands the parts out, one at a
time to each worker, starts a dead worker again and repeats what it worked at; the driver keeps the journal.
"""

import json
import logging
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loraft.config.names import show
from loraft.data.parts import Part, parts_of
from loraft.data.readers import Format, suffix_of
from loraft.data.records import FileSettings
from loraft.delivery.predict_worker import Task, Worker
from loraft.delivery.shards import Finished, Shard, ShardFolder
from loraft.errors import ConfigError, DataError, LoraftError, Note, first_line, listed
from loraft.evaluation.output_file import FORMATS
from loraft.progress import ROWS, Stage, each
from loraft.ray_cluster import PATIENCE, POLL, busy, machines, workers_of
from loraft.runs.run import Run


def output_suffix(files: Sequence[Path], asked: str | None) -> str:
    """The suffix of the output's files: what is asked for, else that of the inputs, else .jsonl.

    Raises:
        ConfigError: an unknown format is asked for.
    """
    known = [suffix.removeprefix(".") for suffix in FORMATS]
    if asked is not None and asked not in known:
        raise ConfigError(f"--output-format: unknown (got {show(asked)}); allowed: {', '.join(known)}")
    own = suffix_of(files[0]).removesuffix(".gz")
    return f".{asked}" if asked is not None else own if own in FORMATS else ".jsonl"


def predict_files(
    task: Task,
    files: Sequence[Path],
    shards: ShardFolder,
    *,
    workers: int | None,
    gpus: float | None,
    most: int,
    say: Callable[[str], None],
) -> int:
    """Predicts all files with the workers of the Ray cluster that this process is connected to.

    Args:
        task: what is predicted, and how.
        files: the inputs.
        shards: the folder of the output, checked.
        workers: how many; None: as many as the cluster has room for.
        gpus: of each, or a share of one; None: 1 where the cluster has any and the config does not say `cpu`.
        most: rows of a shard.
        say: called with each line for the user: rows that could not be read, and files.

    Returns:
        The number of files that could not be read, or not whole.

    Raises:
        ConfigError: the cluster has no room for the workers.
        LoraftError: a worker cannot load the adapter, or dies each time with the same part.
    """
    most_workers, gpus = _room(workers, gpus, task.config.model.device)
    _wait_for({"CPU": 1.0}, say)
    failed: dict[str, str] = {}
    wanted: dict[str, Shard] = {}
    for number, (path, found) in enumerate(_plans(files, task, most)):
        if isinstance(found, str):
            failed[str(path)] = found
        else:
            wanted |= {one.name: one for one in (Shard.of(part, number, task.suffix) for part in found)}
    if not wanted:
        raise DataError(listed(failed.values(), between="\n"))
    for message in failed.values():
        say(message)
    with shards.opened():
        if changed := shards.forget_changed(wanted, failed):
            say(f"changed since their rows were predicted, and predicted again: {listed(changed)}")
        left = [one for name, one in wanted.items() if name not in shards.finished]
        if left:
            count = min(most_workers, len(left))
            _wait_for({"CPU": 1.0, "GPU": gpus}, say)
            numbers = {"part": len(left), "file": len(files), "worker": count}
            parts, of, by = (f"{n:,} {what}{'s' * (n != 1)}" for what, n in numbers.items())
            say(f"{parts} of {of}, {by}")
            total = shards.rows + sum(one.part.rows for one in left)
            with Stage("predicting", total, ROWS, done=shards.rows) as stage:
                _predict(task, left, shards, failed, (count, gpus), stage, say)
        if not failed:
            shards.end()
        _compare(task, [*shards.finished.values()])
        return len(failed)


def _room(workers: int | None, gpus: float | None, device: str) -> tuple[int, float]:
    """How many workers are started at most, and the GPUs of each."""
    import ray

    has = ray.cluster_resources()
    if gpus is None:
        gpus = 1.0 if has.get("GPU") and device != "cpu" else 0.0
    most = workers_of(machines(), {"CPU": 1.0, "GPU": gpus})
    if most < (workers or 1):
        each_one = f"1 CPU and {gpus:g} GPUs" if gpus else "1 CPU"
        raise ConfigError(
            f"--workers: the cluster has no room (got {workers or 1} of {each_one}; it has {has.get('CPU', 0):g}"
            f" CPUs and {has.get('GPU', 0):g} GPUs); ask for {most or 'another cluster'}"
        )
    return workers or most, gpus


def _wait_for(needed: Mapping[str, float], say: Callable[[str], None]) -> None:
    """Waits until the cluster has that much to spare: others may use it."""
    import ray

    begun, told = time.monotonic(), False
    while any(ray.available_resources().get(key, 0) < n for key, n in needed.items()):
        if not told and time.monotonic() - begun >= PATIENCE:
            told = True
            say(busy(needed))
        time.sleep(POLL)


def _plans(files: Sequence[Path], task: Task, most: int) -> Iterator[tuple[Path, list[Part] | str]]:
    """The parts of each file, or why it cannot be read; the workers count the rows."""
    import ray

    count = ray.remote(_plan)
    waiting = [count.remote(path, task.format, task.text_column, task.settings, most) for path in files]
    pairs = zip(files, waiting, strict=True)
    for path, one in each(pairs, "counting rows", "files", total=len(files)):
        try:
            yield path, ray.get(one)
        except ray.exceptions.RayError as error:
            raise LoraftError(f"{path}: its rows cannot be counted ({_reason(error)}); look at ray's logs") from error


def _plan(path: Path, format: Format, text_column: str, settings: FileSettings, most: int) -> list[Part] | str:
    try:
        return parts_of(path, format, text_column, settings, most)
    except DataError as error:
        return str(error)


def _predict(
    task: Task,
    left: Sequence[Shard],
    shards: ShardFolder,
    failed: dict[str, str],
    workers: tuple[int, float],
    stage: Stage,
    say: Callable[[str], None],
) -> None:
    """Lets the workers predict what is left; a file that cannot be read is added to `failed`."""
    told: set[str] = set()
    counted: dict[str, list[tuple[bool, str]]] = {}  # messages that begin with a number of rows
    with closing(_answers(task, left, *workers)) as answers:
        for answer in answers:
            for note, text in answer.get("told", ()):
                if re.match(r"[\d,]+ of [\d,]+ ", text):
                    counted.setdefault(re.sub(r"[\d,.]+", "", text), []).append((note, text))
                elif (what := re.sub(r"\d+\.\d+", "", text)) not in told:  # a share of the part's rows, too
                    warnings.warn(text, Note if note else UserWarning, stacklevel=2)
                    told.add(what)
            if "fatal" in answer:
                raise LoraftError(f"a worker: {answer['fatal']}")
            if "failed" in answer:
                if answer["path"] not in failed:
                    say(answer["failed"])
                failed[answer["path"]] = answer["failed"]
                continue
            for row, reason in answer["reasons"]:
                say(f"{answer['path']} row {row}: {reason}")
            one = Finished(**answer["finished"])
            shards.add(one)
            stage.advance(one.rows)
    for (note, text), *others in counted.values():
        text += f" (in one part; {len(others):,} more {'say' if len(others) > 1 else 'says'} so)" if others else ""
        warnings.warn(text, Note if note else UserWarning, stacklevel=2)


def _answers(task: Task, left: Sequence[Shard], count: int, gpus: float) -> Generator[dict[str, Any]]:
    """What came of each shard, as soon as it is there."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # every error is told by this module
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    items = [{"shard": json.dumps(asdict(one))} for one in left]
    predicted = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Worker,
        batch_size=1,
        fn_constructor_args=(task,),
        num_cpus=1,
        num_gpus=gpus,
        # A worker takes one part at a time, so that none waits behind a slow one, and memory is bounded.
        compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1),
    )
    try:
        for row in predicted.iter_rows():
            yield json.loads(row["found"])
    except ray.exceptions.RayError as error:
        raise LoraftError(
            f"the cluster failed ({_reason(error)}); look at ray's logs, and go on with --resume"
        ) from error


def _reason(error: Exception) -> str:
    return first_line(getattr(error, "cause", None) or error)


def _compare(task: Task, done: Sequence[Finished]) -> None:
    """Tells where the rows are unlike the validation rows, as for a file."""
    from loraft.evaluation.shift import Progress, warn_if_unlike
    from loraft.evaluation.validated import validated

    adapter = task.adapter if task.run is None else Run.open(task.run).adapter
    known = None if adapter is None else validated(adapter, task.config)
    counted = [one for one in done if one.confidences]
    if known is None or not counted or ("prior" in task.decisions and "sets" not in task.decisions):
        return
    predicted = sum((Counter(one.predicted) for one in counted), Counter[str]())
    confidences = [sum(bins) for bins in zip(*(one.confidences for one in counted), strict=True)]
    progress = Progress(predicted=predicted, confidences=confidences)
    warn_if_unlike(known.shift(), progress, promised="sets" in task.decisions or task.least is not None)
