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
from loraft.data.dataset import KEEP_ALL, LIMITS, load_data
from loraft.data.examples import digest
from loraft.data.readers import TABLE_SUFFIXES, delimiter_in, stem_of, suffix_of
from loraft.data.records import BadRow, FileSettings, Row
from loraft.data.sources import open_source
from loraft.errors import ConfigError, Note, RunError
from loraft.runs.atomic_files import to_json
from loraft.runs.output_paths import check_target, writing
from loraft.runs.study_folders import AuditFolder
from loraft.studies.audit.audit import fingerprint

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
            is missing, and no sentence may be written into the audit's folder; or the rows are of several sources.
    """
    if config.data.extra_train and split == "train":
        raise ConfigError(
            "--drop-worst: a copy is made of one source (got data.extra_train, too); audit each source by itself"
        )
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


def with_copies(config: Config, split: str, worst: Collection[int], fingerprint_then: str) -> set[int]:
    """The numbers of these rows, and of all rows of the source with the text and label of one.

    `data.drop_duplicates` audits the first copy alone; without it the next one would be the first in the cleaned copy.

    Args:
        config: of the audit.
        split: as in `audit`.
        worst: numbers of audited rows.
        fingerprint_then: of the audited rows.

    Raises:
        RunError: the rows are not those that were audited.
    """
    rows = load_data(config, split)
    if fingerprint(rows) != fingerprint_then:
        raise RunError(f"{rows.source}: its rows changed since they were audited; loraft audit --force audits them")
    numbers = {*worst}
    wrong = {digest(one.text, one.label) for one in rows.examples if one.row in numbers}
    whole: dict[str, Any] = {**KEEP_ALL, **dict.fromkeys((*LIMITS.values(), "split", "fold")), "extra_train": []}
    data = config.data.model_copy(update=whole)
    everything = load_data(config.model_copy(update={"data": data}), _role(config, split))
    return {one.row for one in everything.examples if digest(one.text, one.label) in wrong}


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
    if _drawn(config, split):
        what = "holds the rows of all splits that are drawn; a training on it draws others"
        warnings.warn(f"{path}: {what}", Note, stacklevel=2)
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
    role, columns = _role(config, split), (config.data.text_column, _label_column(config))
    name = str(getattr(config.data, f"{role}_split", role))
    return open_source(config.data, name, columns, role, config.prompt.labels or [])


def _role(config: Config, split: str) -> str:
    """The split of the source that holds the rows of a split, which may be drawn from it."""
    return "train" if _drawn(config, split) else split


def _drawn(config: Config, split: str) -> bool:
    shares = dict(zip(DRAWN, config.data.split or (), strict=bool(config.data.split)))
    return bool(shares.get(split)) or (config.data.fold is not None and split in DRAWN)


def _label_column(config: Config) -> str:
    return config.data.label_column or config.prompt.label_column or "label"


def _format(source: str) -> str:
    suffix = suffix_of(Path(source)) if Path(source).is_file() else ""
    return suffix if suffix in KEPT else ".jsonl"


def _text(rows: list[dict[str, Any]], suffix: str, config: Config, source: Path) -> str:
    if suffix == ".jsonl":
        return "".join(to_json(row, indent=None) + "\n" for row in rows)
    if suffix == ".json":
        return to_json(rows) + "\n"
    data = config.data
    columns = (data.text_column, _label_column(config))
    delimiter = delimiter_in(source, columns, FileSettings(data.encoding, data.delimiter))
    made = io.StringIO()
    writer = csv.DictWriter(made, list(dict.fromkeys(key for row in rows for key in row)), delimiter=delimiter,
                            lineterminator="\n")  # fmt: skip
    writer.writeheader()
    writer.writerows(rows)
    return made.getvalue()
