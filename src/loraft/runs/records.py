"""Write typed records to JSON files, and check them when they are read.

A record is a frozen dataclass. Its file holds its fields and `schema_version`, the version of the file layout. Files
without that number were written before it existed and count as version 0; fields that they lack take their defaults.
"""

import json
import stat
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

from pydantic import TypeAdapter, ValidationError, model_validator

from loraft.config.names import show
from loraft.errors import NewerFileError, RunError
from loraft.runs.atomic_files import write_json

if TYPE_CHECKING:
    from loraft.runs.folders import RunFolder

SCHEMA_VERSION = 1

Record = TypeVar("Record")


def as_json(record: Any) -> Any:
    """The record as nested dicts and lists for `json.dumps`, by its own `to_json` if it has one."""
    if hasattr(record, "to_json"):
        return record.to_json()
    if is_dataclass(record) and not isinstance(record, type):
        return {field.name: as_json(getattr(record, field.name)) for field in fields(record)}
    if isinstance(record, dict):
        return {key: as_json(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [as_json(value) for value in record]
    return record


def without_texts(content: Any) -> Any:
    """JSON content with "" in place of every sentence, which files hold under the key `text`."""
    if isinstance(content, list):
        return [without_texts(value) for value in content]
    if not isinstance(content, dict):
        return content
    sentence = isinstance(content.get("text"), str)
    return {key: "" if sentence and key == "text" else without_texts(value) for key, value in content.items()}


def flattened(record: Any, *inside: str) -> dict[str, Any]:
    """The record's fields as a dict, where the contents of the fields named `inside` replace these fields.

    With `inside` "scores", `Report(n=2, scores={"f1": 0.5})` becomes `{"n": 2, "f1": 0.5}`. A field that is None or
    empty leaves nothing.
    """
    content: dict[str, Any] = {}
    for field in fields(record):
        value = as_json(getattr(record, field.name))
        content |= (value or {}) if field.name in inside else {field.name: value}
    return content


def gathered(content: Any, **groups: Iterable[str]) -> Any:
    """The inverse of `flattened`, for a validator that runs before a record is built.

    With `scores=["f1"]`, `{"n": 2, "f1": 0.5}` becomes `{"n": 2, "scores": {"f1": 0.5}}`.

    Args:
        content: what is validated: a dict, or a record, which is returned as it is.
        **groups: for each field that was flattened, the keys that belong into it.
    """
    if not isinstance(content, dict):
        return content
    content = dict(content)
    for name, keys in groups.items():
        if name not in content and (inside := {key: content.pop(key) for key in keys if key in content}):
            content[name] = inside
    return content


class Flat:
    """Base of records whose JSON holds the contents of some fields beside the other fields, instead of below them.

    Class arguments: each of these fields, with the keys that belong into it; `class Row(Flat, scores=["f1"])`.
    """

    _inside: ClassVar[dict[str, tuple[str, ...]]]
    _gather: ClassVar[Any]

    def __init_subclass__(cls, **inside: Iterable[str]) -> None:
        super().__init_subclass__()
        cls._inside = {name: tuple(keys) for name, keys in inside.items()}
        # Pydantic looks for validators in the record's own class only.
        gather: Any = classmethod(_gather)
        cls._gather = model_validator(mode="before")(gather)

    def to_json(self) -> dict[str, Any]:
        """The fields for JSON, where the contents of the named ones replace these."""
        return flattened(self, *self._inside)


class FolderResult:
    """Base of the records that are the results of a folder."""

    @classmethod
    def of(cls, folder: "RunFolder") -> Self:
        """The results of the finished work in a folder.

        Raises:
            RunError: it is not finished, or its results are damaged or of a later version.
        """
        return record_from(folder.read_results(), cls, folder.results_path, folder.mend)


def _gather(cls: type[Flat], content: Any) -> Any:
    return gathered(content, **cls._inside)


def write_record(path: Path, record: Any) -> None:
    """Writes a record atomically as JSON, with `schema_version` as its first key."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **as_json(record)})


def read_record(path: Path, kind: type[Record], hint: str) -> Record:
    """The record in a file.

    Args:
        path: a file that `write_record` wrote, in this version or an earlier one.
        kind: class of the record; fields that an earlier version did not write need defaults.
        hint: what to do about a damaged file, for the message.

    Raises:
        RunError: the file cannot be read, holds another record, or was written by a later version.
    """
    return record_from(read_object(path, hint), kind, path, hint)


def read_object(path: Path, hint: str) -> dict[str, Any]:
    """The JSON object in a file, without its `schema_version`.

    Args:
        path: a file that `write_record` wrote, in this version or an earlier one.
        hint: what to do about a damaged file, for the message.

    Raises:
        RunError: the file cannot be read or holds no JSON object.
        NewerFileError: it was written by a later version.
    """
    content = from_json(read_text(path, hint), path, hint)
    if not isinstance(content, dict):
        raise RunError(f"{path}: does not hold a JSON object (got {type(content).__name__}); {hint}")
    version = content.pop("schema_version", 0)
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise RunError(f"{path}: schema_version must be a whole number from 0 (got {version!r}); {hint}")
    if version > SCHEMA_VERSION:
        raise NewerFileError(
            f"{path}: was written by a later version of loraft (got schema_version {version!r}; this version reads up"
            f" to {SCHEMA_VERSION}); upgrade loraft: pip install --upgrade loraft"
        )
    return content


def read_text(path: Path, hint: str) -> str:
    """The text of a file of a run or study; arguments and errors as of `read_object`."""
    try:
        if stat.S_ISFIFO(path.stat().st_mode):  # reading would wait for a writer
            raise RunError(f"{path}: is a pipe and no file; {hint}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); {hint}") from None
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); {hint}") from None


def from_json(text: str, path: Path, hint: str) -> Any:
    """The value of a JSON text, without NaN and infinities, which loraft does not write.

    Raises:
        RunError: it is not JSON, is nested too deeply, or has a number of thousands of digits; `path` names its file.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise RunError(f"{path}: is not JSON of loraft (nested too deeply); {hint}") from None
    except ValueError as error:
        raise RunError(f"{path}: is not JSON ({str(error).partition(';')[0]}); {hint}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def record_from(content: dict[str, Any], kind: type[Record], path: Path, hint: str) -> Record:
    """The record that a JSON object holds.

    Args:
        content: the object.
        kind: class of the record.
        path: file of the object, for the message.
        hint: what to do about a damaged file, for the message.

    Raises:
        RunError: a field is missing or of another type.
    """
    try:
        record: Record = _adapter(cast(Any, kind)).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        what = f"the key {where!r} is missing"
        if first["type"] != "missing":
            what = f"the value of {where!r} is damaged (got {show(first['input'])})"
        raise RunError(f"{path}: {what}; {hint}") from None
    return record


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Pydantic's validator of a record class. Kept: building one takes milliseconds, and files have many records."""
    return TypeAdapter(kind)
