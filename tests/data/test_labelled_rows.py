"""Rows that are refused together: each keeps its whole value, and what to do is told once."""

from pathlib import Path

import pytest
from helpers.data import load

from loraft.config.resolve import resolve
from loraft.errors import DataError
from loraft.studies.dataset.statistics import misfit


def test_a_label_with_a_semicolon_is_told_whole(tmp_path: Path) -> None:
    rows = "sentence,sentiment\nthầy dạy hay,xấu; chê\nbài dễ,tích cực; khen\n"
    (tmp_path / "train.csv").write_text(rows, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    first, second = str(caught.value).splitlines()[:2]
    assert first.endswith("row 1: unknown label in 'sentiment' (got 'xấu; chê')")
    assert second.endswith("row 2: unknown label in 'sentiment' (got 'tích cực; khen')")
    reason = misfit(resolve(overrides=[f"data.source={tmp_path}"]))
    assert reason is not None
    assert reason.endswith("(got 'xấu; chê')")


def test_what_to_do_is_told_once_for_rows_of_one_kind(tmp_path: Path) -> None:
    content = b"sentence,sentiment\n" + "thầy dạy hay,positive\n".encode() + 2 * b"d\xff,positive\n" + 2 * b"a,b,c\n"
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    told = str(caught.value)
    assert [told.count(part) for part in ("not valid UTF-8", "save the file as UTF-8", "3 fields")] == [2, 1, 2]
    assert len({line.partition("has 2")[2] for line in told.splitlines() if "3 fields" in line} - {""}) == 1
