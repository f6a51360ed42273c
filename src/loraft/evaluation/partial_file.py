"""Keep predictions row by row beside the file that they will become, so that an interrupted prediction can go on."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from loraft.config.schema import Config
from loraft.data.records import BadRow, Row
from loraft.errors import RunError, listed
from loraft.evaluation.output_file import PredictedInput
from loraft.runs.atomic_files import is_stream
from loraft.runs.hashes import hashes_of

if TYPE_CHECKING:
    from loraft.evaluation.predict import Prediction
    from loraft.evaluation.shift import Progress

SECTIONS = ("model", "quant", "prompt", "eval")  # of the config, which results depend on
BEGIN = b'{"origin": '  # of the file
INPUT = "input's SHA-256"
MARKER = {
    "bad": int,
    "rows": int,
    "prefix": list,
    "predicted": dict,
    "confidences": list,
}  # what ends a group: fields and their types


def settings_of(adapter: Path, config: Config, options: Mapping[str, Any]) -> dict[str, Any]:
    """What predictions depend on beside the input, by which a later process knows that it would go on with the same.

    Args:
        adapter: folder of the adapter.
        config: the resolved config.
        options: how the input is read, and what else the predictions are to hold.
    """
    hashes = hashes_of(adapter, (one.name for one in adapter.glob("*") if one.is_file()))
    dumped = config.model_dump(mode="json")
    keys = {f"{section}.{key}": value for section in SECTIONS for key, value in dumped[section].items()}
    weights = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()
    return {"adapter's SHA-256": weights, **options, **keys}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What predictions that were begun depend on, and depend on now, where that differs: a line each."""
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]

    def told(value: Any) -> Any:
        return listed(value) if isinstance(value, list) else value

    return "\n".join(f"  {key}: {told(before.get(key))} then, {told(now.get(key))} now" for key in keys[:10])


def partial_path(output: Path) -> Path:
    """Where the predictions lie until the file is whole: beside it, where a symlink leads to as well."""
    target = output.resolve() if output.is_symlink() and not is_stream(output) else output
    return target.with_name(f"{target.name}.partial")


class PartialFile:
    """The predictions so far, in `OUTPUT.partial`, as lines of JSON.

    The first line is an object: what the predictions depend on. Each row is an array. After each group of rows that
    were scored together an object says how far the prediction is: the last bits of a row's probabilities depend on the
    rows of its group, so that a later process goes on after a whole group.

    Use it as a context. If the block raises, the file stays if `--resume` can go on with it; the error gets a note.

    Args:
        output: the file that the predictions become.
        origin: `INPUT` and `settings_of`; None for an input that cannot be read again, whose columns are kept here.
        resume: go on after the rows that are there.

    Attributes:
        rows: rows so far.
        bad: those of them that could not be read.
        state: the fields of `Progress` at the start.

    Raises:
        RunError: an earlier prediction can go on, and `resume` is not given or something is not as it was.
    """

    def __init__(self, output: Path, origin: Mapping[str, Any] | None, *, resume: bool) -> None:
        self._origin, self._folder = origin, None
        self.path = partial_path(output)
        if is_stream(output):  # nothing goes on with it, and beside a device is no place for files
            self._origin, self._folder = None, tempfile.TemporaryDirectory(prefix="loraft-")
            self.path = Path(self._folder.name) / self.path.name
        state, end = self._state()
        if state and not resume:
            raise RunError(
                f"{self.path}: an interrupted prediction left {state['rows']:,} rows (got no --resume); the same"
                " command with --resume goes on after them; or delete the file"
            )
        self.bad = state.pop("bad", 0)
        self.state = state
        self.rows = self._marked = state.get("rows", 0)
        self._end = end  # of the last whole group

    def _state(self) -> tuple[dict[str, Any], int]:
        """What the last whole group of an earlier prediction left, and the offset where it ends; or nothing."""
        state: dict[str, Any] = {}
        end = offset = rows = 0
        group: list[bytes] = []
        try:
            with self.path.open("rb") as file:
                first = file.readline()
                if not BEGIN.startswith(first[: len(BEGIN)]):
                    raise self._foreign()
                origin = json.loads(first)["origin"] if first.endswith(b"\n") else None
                offset = file.tell()
                for line in file:
                    offset += len(line)
                    if line.startswith(b"{") and line.endswith(b"\n"):
                        marker = self._marker(line)
                        rows += len([_parsed(one) for one in group])
                        if marker["rows"] != rows:
                            raise ValueError(f"{rows:,} rows where {marker['rows']:,} should be")
                        state, end, group = marker, offset, []
                    else:
                        group.append(line)
            if state and origin is not None and INPUT not in origin:
                raise ValueError("it does not say of which input")
        except FileNotFoundError:
            return {}, 0
        except IsADirectoryError:
            raise self._foreign() from None
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise RunError(f"{self.path}: a damaged interrupted prediction ({error}); delete it") from error
        if origin is None or not state:
            return {}, 0
        if self._origin is not None and origin != self._origin:
            raise RunError(
                f"{self.path}: was begun with something else:\n{differences(origin, self._origin)}\ngive the same"
                " again, or delete the file"
            )
        return state, end

    def _marker(self, line: bytes) -> dict[str, Any]:
        """What stands at the end of a group."""
        state: dict[str, Any] = json.loads(line)
        missing = MARKER.keys() - state.keys()
        if missing and state.keys() <= MARKER.keys() and {"bad", "rows"} <= state.keys():
            raise RunError(
                f"{self.path}: an interrupted prediction of an earlier version (got no {listed(sorted(missing))});"
                " delete it, and predict again"
            )
        if {key: type(value) for key, value in state.items()} != MARKER:
            raise ValueError("the end of a group lacks a field")
        numbers = [state["bad"], state["rows"], *state["prefix"], *state["predicted"].values(), *state["confidences"]]
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("the end of a group has a field that is no number of rows or of a token")
        return state

    def _foreign(self) -> RunError:
        return RunError(f"{self.path}: is no interrupted prediction; move it away, or name another --output-file")

    def add(self, found: "Prediction", columns: Mapping[str, Any], progress: "Progress") -> None:
        """Adds a row, and its columns where the input cannot be read again; the last row of a group ends it."""
        self.rows += 1
        self.bad += found.error is not None
        self._write([found.label, found.probs, found.error, found.set, *([columns] if self._origin is None else [])])
        if self.rows == progress.rows:
            self._write({"bad": self.bad, **vars(progress)})
            self._marked = self.rows
        self._file.flush()

    def _write(self, value: Any) -> None:
        self._file.write(json.dumps(value, default=str).encode() + b"\n")

    def read(self, again: Callable[[], Iterable[Row | BadRow]] | None) -> Iterator[PredictedInput]:
        """The rows with their predictions, in order.

        Args:
            again: the input's rows, where they are not kept here.
        """
        from loraft.evaluation.predict import Prediction

        given = iter(again()) if again is not None else None
        end, row = object(), 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.startswith(b"["):
                    continue
                row += 1
                label, probs, error, inside, columns = _parsed(line)
                item = next(given, end) if given is not None else None
                if item is end:
                    break
                if isinstance(item, Row):
                    columns = [item.columns]
                label, inside = (tuple(one) if isinstance(one, list) else one for one in (label, inside))
                found = Prediction(row, "", label, probs, error=error, set=inside)
                yield PredictedInput(columns[0] if columns else {}, found)
        if row != self.rows or (given is not None and next(given, end) is not end):
            raise RunError(
                f"{self.path}: does not have the input's number of rows (got {self.rows:,}); the input or this file"
                " changed meanwhile: delete this file and predict again"
            )

    def __enter__(self) -> Self:
        self._file = self.path.open("r+b" if self._marked else "wb")
        self._file.truncate(self._end)
        self._file.seek(self._end)
        if not self._marked:
            self._write({"origin": self._origin})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None or self._origin is None or not self._marked:
            self.path.unlink(missing_ok=True)
            if self._folder is not None:
                self._folder.cleanup()
            if error is not None and not isinstance(error, Exception):  # Ctrl-C, SIGTERM
                error.add_note("no rows are kept; the same command begins again")
        else:
            error.add_note(f"{self._marked:,} rows are kept in {self.path}; the same command with --resume goes on")


def _parsed(line: bytes) -> tuple[Any, dict[str, float], Any, Any, list[Any]]:
    """Label, probabilities, error, label set and columns of a row; ValueError or TypeError if it is none."""
    label, probs, error, inside, *columns = json.loads(line)
    if not isinstance(probs, dict):
        raise TypeError("a row has no probabilities")
    return label, probs, error, inside, columns
