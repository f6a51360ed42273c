"""A worker of `loraft predict --engine ray`: loads backbone and adapter once, then labels one part after the other."""

import json
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from loraft.config.schema import Config
from loraft.data.parts import Part, part_rows
from loraft.data.readers import Format, unlabelled
from loraft.data.records import FileSettings, Row
from loraft.delivery.shards import JOURNAL, Finished, Shard
from loraft.errors import DataError, LoraftError, Note, first_line

RETRIES = 3  # of a shard whose worker dies


@dataclass(frozen=True)
class Task:
    """What a worker has to do with each part; arguments of the same names are those of `evaluation.predict.predict`.

    Attributes:
        run: directory of a finished run.
        adapter: folder of an adapter, instead of it.
        config: of the prediction.
        least: probability that a row's best label needs; None if it needs none.
        decisions: `sets`, `sets_by_label` and `prior`, as far as they are wanted.
        format: of the inputs.
        text_column: of the sentence.
        settings: how the inputs are read.
        folder: of the output.
        suffix: of its files.
    """

    run: Path | None
    adapter: Path | None
    config: Config
    least: float | None
    decisions: Mapping[str, Any]
    format: Format
    text_column: str
    settings: FileSettings
    folder: Path
    suffix: str


class Worker:
    """An actor of Ray Data: takes shards, and gives what came of each, both as JSON.

    Args:
        task: for all shards.
    """

    def __init__(self, task: Task) -> None:
        import torch

        from loraft.engine.row_batches import KeptPrefix

        torch.set_num_threads(1)
        self._task, self._prefix = task, KeptPrefix([])
        self._loaded: Any = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Predicts the shards of a batch."""
        return {"found": [json.dumps(self._answer(one)) for one in map(json.loads, batch["shard"])]}

    def _answer(self, given: dict[str, Any]) -> dict[str, Any]:
        """What came of a shard: `finished`, `failed` for a file that cannot be read, or `fatal` for any other error.

        An error is told as data: Ray would show the traceback of each worker.
        """
        shard = Shard(**{**given, "part": Part(**given["part"])})
        found: dict[str, Any] = {"path": shard.part.path}
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                self._load()
                with self._tried(shard):
                    found |= self._predict(shard)
            except DataError as error:
                found |= {"failed": str(error)}
            except Exception as error:
                said = str(error) if isinstance(error, LoraftError) else f"{type(error).__name__}: {first_line(error)}"
                found |= {"fatal": f"{said} (on {socket.gethostname()})"}
        own = [one for one in told if issubclass(one.category, Note) or "loraft" in Path(one.filename).parts]
        shown = [(issubclass(one.category, Note), str(one.message)) for one in own]
        where = f"{self._task.folder / shard.name}: "
        return found | {"told": [(note, text.removeprefix(where)) for note, text in dict.fromkeys(shown)]}

    def _load(self) -> None:
        task = self._task
        if self._loaded is not None:
            return
        if not (task.folder / JOURNAL).exists():
            raise LoraftError(
                f"--output-file: a worker does not see the folder (got {task.folder}); name one on a path that all"
                " machines of the cluster share"
            )
        from loraft.engine.layout import common_prefix
        from loraft.evaluation.predict import ready

        self._loaded = ready(task.run, task.adapter, task.config, **task.decisions)
        # What is before the sentence, whatever rows a part has: the numbers depend on what is cached, in bf16 clearly.
        encoder = self._loaded[0].encoder
        prompts = [encoder.encode([text])[0].ids for text in ("", "a", "1", "ệ", "(")]
        self._prefix.ids = [*prompts[0][: common_prefix(prompts)]]

    @contextmanager
    def _tried(self, shard: Shard) -> Iterator[None]:
        """Counts how often the shard was begun: Ray begins it again, without end, where its worker dies."""
        path = self._task.folder / f".{Path(shard.name).stem}.tries"
        tries = len(path.read_bytes()) if path.exists() else 0
        if tries > RETRIES:
            raise LoraftError(
                f"{shard.part.path}, rows from {shard.part.first + 1:,} on: the worker died (got {tries} times);"
                " perhaps memory was too small: give fewer --workers with --resume, or a smaller --shard-rows with"
                " --force"
            )
        if tries:
            warnings.warn(f"{shard.part.path}: a worker died; its part was begun again", stacklevel=1)
        with path.open("ab") as file:
            file.write(b".")
        yield
        path.unlink(missing_ok=True)

    def _predict(self, shard: Shard) -> dict[str, Any]:
        from loraft.evaluation.output_file import PredictedInput, header_without_text, without_text, write_predictions
        from loraft.evaluation.predict import continued
        from loraft.evaluation.shift import Progress

        task, (loaded, validation) = self._task, self._loaded
        header = [*shard.part.columns]
        rows = list(part_rows(shard.part, task.format, task.text_column, task.settings, header))
        # No group is small: nobody waits for the first rows of a shard.
        progress, kept = Progress(rows=1), replace(self._prefix)
        examples = (unlabelled(item, task.text_column) for item in rows)
        found = list(continued(examples, loaded, validation, progress, kept, task.least))
        if kept.ids == self._prefix.ids:
            self._prefix = kept  # with its cache
        columns = [item.columns if isinstance(item, Row) else {} for item in rows]
        written = [PredictedInput(given, one) for given, one in zip(columns, found, strict=True)]
        if not task.config.output.texts:
            written = [without_text(one, task.text_column) for one in written]
            header = header_without_text(header, task.text_column)
        write_predictions(
            task.folder / shard.name, lambda: written, Path(shard.part.path), header=header,
            labels=loaded.encoder.task.labels, several=loaded.several, sets="sets" in task.decisions,
        )  # fmt: skip
        with (task.folder / shard.name).open("rb+") as file:  # a power cut must not leave half of what the journal has
            os.fsync(file.fileno())
        bad = [one for one in found if one.error is not None]
        labelled = sum(one.label is not None for one in found)
        finished = Finished(
            shard.name, shard.changed, shard.part.path, len(found), len(bad), labelled, dict(progress.predicted),
            list(progress.confidences),
        )  # fmt: skip
        return {"finished": asdict(finished), "reasons": [(one.row, one.error) for one in bad]}
