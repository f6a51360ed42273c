"""Files are written whole or not at all, and JSON keeps what it is given."""

import json
import os
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from loraft.runs.atomic_files import replacing, to_json, utc_now, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"nhãn": "tích cực"})
    with pytest.raises(TypeError), replacing(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        to_json({"nhãn": {1, 2}})
    assert json.loads(path.read_text(encoding="utf-8")) == {"nhãn": "tích cực"}
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_the_old_file_is_there_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"  # whose folder is made
    write_text(path, "cũ")
    os.link(path, tmp_path / "opened before")
    with replacing(path) as temporary:
        temporary.write_text("mới", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "cũ"
        assert (temporary.parent, temporary.suffix) == (path.parent, ".json")
        assert temporary.name.startswith(".")  # so that a folder with only that counts as empty
    assert path.read_text(encoding="utf-8") == "mới"
    assert os.listdir(path.parent) == ["b.json"]
    assert (tmp_path / "opened before").read_text(encoding="utf-8") == "cũ"  # replaced, not overwritten


def test_text_files_have_the_same_bytes_on_every_system(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "đẹp\nquá\n")
    assert (tmp_path / "a").read_bytes() == "đẹp\nquá\n".encode()
    write_json(tmp_path / "b", {"a": [1]})
    assert (tmp_path / "b").read_bytes() == b'{\n  "a": [\n    1\n  ]\n}\n'


def test_json_keeps_vietnamese_and_numbers_of_numpy_and_is_strict() -> None:
    value = {"câu": "thầy dạy hay", "a": np.float64(0.1), "n": np.int64(3), "m": np.eye(2), "loss": float("nan")}
    text = to_json(value)
    assert "thầy dạy hay" in text
    assert json.loads(text, parse_constant=pytest.fail) == {
        "câu": "thầy dạy hay",
        "a": 0.1,
        "n": 3,
        "m": [[1.0, 0.0], [0.0, 1.0]],
        "loss": None,
    }
    assert json.loads(to_json([np.array([np.inf, 1.0]), (float("-inf"),)], None)) == [[None, 1.0], [None]]


def test_json_takes_what_parquet_columns_hold() -> None:
    value = {
        "lúc": datetime(2024, 7, 26, 8, 30, tzinfo=UTC),
        "ngày": date(2024, 7, 26),
        "giờ": time(8, 30),
        "dài": timedelta(minutes=1.5),
        "ảnh": b"\x89PNG",
        "giá": Decimal("12.50"),
        "mã": UUID(int=7),
        3: Path("a/b"),
    }
    assert json.loads(to_json([value])) == [
        {
            "lúc": "2024-07-26T08:30:00+00:00",
            "ngày": "2024-07-26",
            "giờ": "08:30:00",
            "dài": 90.0,
            "ảnh": "iVBORw==",
            "giá": "12.50",
            "mã": "00000000-0000-0000-0000-000000000007",
            "3": str(Path("a/b")),
        }
    ]


def test_without_indent_json_is_one_line() -> None:
    assert to_json({"a": [1, "hai\n"]}, indent=None) == '{"a": [1, "hai\\n"]}'


def test_times_are_utc_to_the_second() -> None:
    found = datetime.fromisoformat(utc_now())
    assert found.utcoffset() == timedelta(0)
    assert found.microsecond == 0
    assert abs(datetime.now(UTC) - found) < timedelta(minutes=1)
