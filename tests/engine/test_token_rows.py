"""Rows in one flat array are the rows that were put in."""

import pytest

from loraft.engine.token_rows import TokenRows

ROWS = [[1, 2, 128255], [], [7]]


def test_rows_come_back_as_lists() -> None:
    found = TokenRows(ROWS)
    assert (list(found), len(found), found[-1], found[1:]) == (ROWS, 3, [7], ROWS[1:])
    with pytest.raises(IndexError):
        found[3]


def test_a_row_may_come_in_parts() -> None:
    found = TokenRows()
    found.append([1, 2], (), [128255])
    assert list(found) == ROWS[:1]
