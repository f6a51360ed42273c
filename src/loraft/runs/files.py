"""Run directories: one folder a run, in which the existence of `metrics.json` means that the run finished.

    runs/<name>/  config.yaml  environment.json  log.jsonl  checkpoints/  adapter/  predictions.jsonl  plots/
                  metrics.json

Every file but the log is written beside its place and renamed into it, so that a killed process leaves no half file.
"""

import base64
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID


def utc_now() -> str:
    """The time in UTC to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_text(path: Path, text: str) -> None:
    """Puts a UTF-8 file into its place in one step, making its folder."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Puts `value` into its place as JSON in one step, making its folder."""
    write_text(path, to_json(value) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` at the end, and is removed on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def to_json(value: Any, indent: int | None = 2) -> str:
    """`value` as JSON with Vietnamese readable.

    Beside JSON's own types: numpy's numbers; paths, decimals and UUIDs as text; dates and times in ISO 8601; durations
    in seconds; bytes in base64; NaN and infinities as null.
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy's, which is not imported for that
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value) if isinstance(value, Path | Decimal | UUID) else value
