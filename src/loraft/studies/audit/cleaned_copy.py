"""Writes a copy of an audited split without some of its rows: all columns, in the format of the input."""

import csv
import gzip
import io
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from loraft.config.data_section import DRAWN
from loraft.config.schema import Config
from loraft.data.readers import TABLE_SUFFIXES, delimiter_in, stem_of, suffix_of
from loraft.data.records import BadRow, FileSettings, Row
from loraft.data.sources import open_source
from loraft.errors import ConfigError, Note
from loraft.runs.atomic_files import to_json
from loraft.runs.output_paths import check_target, writing
from loraft.runs.study_folders import AuditFolder

KEPT = (*TABLE_SUFFIXES, *(suffix + ".gz" for suffix in TABLE_SUFFIXES), ".parquet")  # other formats become JSON lines


def target(config: Config, split: str, folder: AuditFolder, to: Path | None, *, force: bool) -> Path:
    """Where the copy goes: `to`, or a file in the audit's folder that is named after the input.

    Args:
        config: of the audit.
        split: as in `audit`.
        folder: of the audit.
        to: a file, or None.
        force: replace a foreign file.

    Raises:
        ConfigError: `to` is the input or in its folder, a file that must not be replaced, or has another format; or it
            is missing, and no sentence may be written into the audit's folder.
    """
    source = _rows_of(config, split)[1]
    suffix, inside = _format(source), to is None
    if to is None:
        if not config.output.texts:
            raise ConfigError(
                f"--drop-worst: the copy holds sentences, which output.texts=false keeps out of {folder.path}; name a"
                " file with --to FILE"
            )
        to = folder.path / f"{stem_of(Path(source)) if Path(source).is_file() else 'rows'}.cleaned{suffix}"
    if suffix_of(to) != suffix:
        raise ConfigError(f"--to: the copy has the format of its input (got {to.name}); name a file with {suffix}")
    place, data = to.resolve(), {Path(one).expanduser().resolve() for one in (config.data.source, source)}
    if data & {place, *place.parents} and not inside:
        raise ConfigError(f"--to: is the input, or in its folder (got {to}); name a file elsewhere")
    if not inside:
        check_target(to, "--to", own=None, force=force)
    return to


def write_without(config: Config, split: str, dropped: Collection[int], path: Path) -> int:
    """Writes the rows of a split but those with these numbers, and returns how many were written.

    Rows that were left out of the audit, as by a limit, are written too. Text is UTF-8.

    Args:
        config: names the source.
        split: as in `audit`.
        dropped: numbers of rows.
        path: as `target` gives it.
    """
    items, source = _rows_of(config, split)
    if config.data.encoding and suffix_of(path) != ".parquet":
        warnings.warn(f"{path}: is UTF-8; leave data.encoding out where it is read", Note, stacklevel=2)
    with writing(path, "--to") as temporary:
        if suffix_of(path) == ".parquet":
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(source)
            kept = [i for i in range(table.num_rows) if i + 1 not in dropped]
            pyarrow.parquet.write_table(table.take(kept), temporary)
            return len(kept)
        rows = [dict(one.columns) for one in items if not isinstance(one, BadRow) and one.row not in dropped]
        text = _text(rows, suffix_of(path).removesuffix(".gz"), config, Path(source))
        content = text.encode("utf-8", "surrogateescape")
        temporary.write_bytes(gzip.compress(content, mtime=0) if suffix_of(path).endswith(".gz") else content)
    return len(rows)


def _rows_of(config: Config, split: str) -> tuple[Iterable[Row | BadRow], str]:
    """The rows of a split as the source gives them, numbered as in the audit; and its file, or a description of it."""
    shares = dict(zip(DRAWN, config.data.split or (), strict=bool(config.data.split)))
    role = "train" if shares.get(split) else split
    return open_source(config.data, str(getattr(config.data, f"{role}_split", role)), (), role, ())


def _format(source: str) -> str:
    suffix = suffix_of(Path(source)) if Path(source).is_file() else ""
    return suffix if suffix in KEPT else ".jsonl"


def _text(rows: list[dict[str, Any]], suffix: str, config: Config, source: Path) -> str:
    if suffix == ".jsonl":
        return "".join(to_json(row, indent=None) + "\n" for row in rows)
    if suffix == ".json":
        return to_json(rows) + "\n"
    data = config.data
    columns = (data.text_column, data.label_column or config.prompt.label_column or "label")
    delimiter = delimiter_in(source, columns, FileSettings(data.encoding, data.delimiter))
    made = io.StringIO()
    writer = csv.DictWriter(made, list(dict.fromkeys(key for row in rows for key in row)), delimiter=delimiter,
                            lineterminator="\n")  # fmt: skip
    writer.writeheader()
    writer.writerows(rows)
    return made.getvalue()
