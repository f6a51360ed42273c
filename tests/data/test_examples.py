"""Examples in columns are the examples that were put in, and take little more memory than their text."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loraft.config.resolve import resolve
from loraft.data.dataset import load_data
from loraft.data.examples import Examples, Texts, conflicting_texts, digest, first_rows
from loraft.data.records import Example

ROWS = [
    Example("thầy dạy rất hay", 2, 1, {"chủ đề": "thầy cô", "điểm": 4.5}),
    Example("phòng học nóng", 0, 3, {"chủ đề": "phòng học"}),
    Example("thầy dạy rất hay", (0, 2), 7, {"mã": ["a", 1], "điểm": 4.5}),
    Example("lone \ud83d surrogate 😀", None, 2**40),
]


def test_examples_come_back_as_they_were_put_in() -> None:
    found = Examples(ROWS)
    assert list(found) == ROWS
    assert [found[i] for i in range(-4, 4)] == ROWS * 2
    assert found[1:3] == ROWS[1:3]
    assert (list(found.texts), found.labels) == ([row.text for row in ROWS], [row.label for row in ROWS])
    assert found.texts[1:] == [row.text for row in ROWS[1:]]
    with pytest.raises(IndexError):
        found.texts[4]


def test_a_column_has_the_cells_of_the_rows_that_have_it() -> None:
    found = Examples(ROWS)
    assert found.columns == ["chủ đề", "điểm", "mã"]
    assert (found.column("điểm"), found.column("mã"), found.column("giá")) == ([4.5, 4.5], [["a", 1]], [])


def test_equal_values_are_kept_once_and_types_stay_apart() -> None:
    rows = [Example("a", 0, 1, {"x": "".join(["mã ", "1"])}), Example("b", 0, 2, {"x": "".join(["mã ", "1"])})]
    first, second = Examples(rows).column("x")
    assert first is second
    mixed = Examples(Example("a", 0, n, {"x": value}) for n, value in enumerate([1, 1.0, True, "1"]))
    assert [type(value) for value in mixed.column("x")] == [int, float, bool, str]


def test_equal_values_that_are_written_otherwise_come_back_as_they_were() -> None:
    cells: list[Any] = [0.0, -0.0, (1,), (True,), ([1],), {"mã": 1}]
    found = Examples(Example("thầy hay", (0, 2), n, {"điểm": cell}) for n, cell in enumerate(cells))
    assert repr(found.column("điểm")) == repr(cells)
    assert found.labels[0] is found.labels[1]
    assert found.rows.tolist() == [0, 1, 2, 3, 4, 5]


def test_digests_differ_where_values_do() -> None:
    values: list[tuple[object, ...]] = [("a",), ("a", 0), ("a", 1), ("a", (1,)), ("a", None), ("a0",), ("a', 0",), ()]
    assert len({digest(*value) for value in values}) == len(values)
    assert digest("thầy", 1) == digest("th" + "ầy", 1)


def test_copies_and_conflicts_are_found_by_text_and_label() -> None:
    rows = Examples([Example("a", 0), Example("b", 1), Example("a", 0), Example("a", 1), Example("b", 1)])
    assert list(first_rows(rows)) == [0, 1, 3]
    assert conflicting_texts([rows]) == {digest("a")}
    assert conflicting_texts([Examples([Example("b", 1)]), Examples([Example("b", 0)])]) == {digest("b")}


def test_no_texts_are_no_rows() -> None:
    assert (list(Texts()), list(Examples()), Examples().texts == []) == ([], [], True)


def peak(work: Callable[[], Any]) -> int:
    """The most memory that Python objects took during the work, in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_split_takes_its_text_and_little_more(tmp_path: Path) -> None:
    def read(rows: int) -> int:
        path = tmp_path / f"{rows}.csv"
        lines = [f"thầy dạy hay lắm nhóm {n:06},{n % 3},phòng {n % 7}" for n in range(rows)]
        path.write_text("\n".join(["sentence,sentiment,topic", *lines]), encoding="utf-8")
        config = resolve(overrides=[f"data.source={path}"])
        return peak(lambda: load_data(config, "train"))

    # 38 bytes of UTF-8, and while copies are searched an object for the digest of each row. An `Example` with its text
    # and its dictionary takes 700 and more.
    assert (read(3000) - read(1000)) / 2000 < 350
