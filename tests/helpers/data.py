"""A small labelled data set, written to files of any format and loaded as a split."""

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from loraft.config.data_section import DataConfig
from loraft.data.dataset import Split, load_split

LABELS = ["negative", "neutral", "positive"]
ROWS: list[dict[str, Any]] = [
    {"sentence": "thầy dạy rất dễ hiểu .", "sentiment": 2, "topic": 0},
    {"sentence": "phòng học nóng quá .", "sentiment": 0, "topic": 2},
    {"sentence": "bình thường .", "sentiment": 1, "topic": 3},
]
TEXTS = [row["sentence"] for row in ROWS]


def write_rows(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    """The rows in the format of the path's suffix; returns the path."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def load(
    source: Path | str,
    name: str | Path = "train",
    limit: int | None = None,
    labels: Sequence[str] = LABELS,
    label_column: str = "sentiment",
    **section: Any,
) -> Split:
    """A split by `load_split`, with `section` for further keys of `data`."""
    config = DataConfig(source=str(source), **section)
    return load_split(config, name, labels=labels, label_column=label_column, limit=limit)


SUBJECTS = (
    "thầy",
    "cô",
    "phòng học",
    "giáo trình",
    "bài tập",
    "căn tin",
    "thư viện",
    "máy chiếu",
    "lịch thi",
    "đề thi",
)
WORDS = ("rất", "khá", "hơi", "quá", "chưa", "đã", "dễ", "khó", "hiểu", "nhiều", "ít", "sạch", "mới", "cũ", "nhanh",
         "chậm", "vui", "chán", "bổ ích", "đầy đủ", "tận tâm")  # fmt: skip


def sentences(count: int, seed: int = 0) -> list[str]:
    """Different sentences of seven random words each; hardly any two are nearly the same."""
    rng = random.Random(seed)
    return [f"{rng.choice(SUBJECTS)} {' '.join(rng.choices(WORDS, k=6))} {rng.randrange(10**6)}" for _ in range(count)]
