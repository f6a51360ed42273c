"""A fast source gives full groups, and rows of a slow source are not held back."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from loraft.data.stream import FIRST, MOST_CHARACTERS, groups
from loraft.progress import Listener, installed

PATIENT = 30.0  # seconds; nothing below waits for them unless the code is broken


@pytest.mark.parametrize("wait", [None, PATIENT])
def test_a_fast_source_gives_a_small_group_and_then_full_ones(wait: float | None) -> None:
    found = list(groups(range(FIRST + 250), most=100, wait=wait))
    assert [len(group) for group in found] == [FIRST, 100, 100, 50]
    assert [row for group in found for row in group] == list(range(FIRST + 250))


@pytest.mark.parametrize("wait", [None, 0.0, PATIENT])
def test_a_source_without_rows_gives_no_group(wait: float | None) -> None:
    assert list(groups([], most=100, wait=wait)) == []


def test_a_slow_source_is_answered_while_it_is_still_open() -> None:
    answered = threading.Event()

    def rows() -> Iterator[int]:
        for row in range(3):
            yield row
            assert answered.wait(PATIENT), "the next row came only after the answer to the one before"
            answered.clear()

    found = []
    for group in groups(rows(), most=100, wait=0.01):
        found.append(group)
        if not group:  # only now it waits for the source
            answered.set()
    assert found == [[0], [], [1], [], [2], []]


def test_a_source_read_in_a_thread_sees_what_progress_is_shown() -> None:
    listener = Listener()
    token = installed.set(listener)
    try:
        assert next(groups((installed.get() for _ in range(1)), most=1, wait=0.0)) == [listener]
    finally:
        installed.reset(token)


@pytest.mark.parametrize("wait", [None, PATIENT])
def test_long_rows_make_small_groups_and_are_not_read_ahead(wait: float | None) -> None:
    read: list[int] = []

    def rows() -> Iterator[int]:
        for row in range(6):
            read.append(row)
            yield row

    source = groups(rows(), most=100, wait=wait, size=lambda row: MOST_CHARACTERS // 2)
    assert next(source) == [0, 1]
    assert len(read) <= 4  # one in the queue, and one that waits for it
    assert [group for group in source if group] == [[2, 3], [4, 5]]


def test_a_full_group_is_handed_on_while_the_source_waits_for_its_answer() -> None:
    answered = threading.Event()

    def rows() -> Iterator[int]:
        yield from range(FIRST)
        assert answered.wait(PATIENT / 6), "the full group was held back"
        yield FIRST

    source = groups(rows(), most=100, wait=PATIENT)
    assert next(source) == list(range(FIRST))
    answered.set()
    assert [group for group in source if group] == [[FIRST]]


def test_rows_that_came_meanwhile_are_handed_on_together() -> None:
    read = threading.Event()

    def rows() -> Iterator[int]:
        yield from range(50)
        read.set()

    source = groups(rows(), most=100, wait=0.0)
    sizes = [len(next(source))]
    assert read.wait(PATIENT)
    sizes += [len(group) for group in source]
    assert len(sizes) == 2  # whatever was there first, and all the others
    assert sum(sizes) == 50


def test_no_more_is_read_ahead_than_a_group() -> None:
    taken: list[int] = []

    def rows() -> Iterator[int]:
        for row in range(1000):
            taken.append(row)
            yield row

    source = groups(rows(), most=10, wait=PATIENT)
    next(source)
    assert len(taken) <= 10 + 10 + 2  # the group, those in the queue, and one in either hand


@pytest.mark.parametrize("wait", [None, PATIENT])
def test_an_error_of_the_source_comes_out_where_the_rows_are_used(wait: float | None) -> None:
    def rows() -> Iterator[int]:
        yield from range(FIRST)
        raise ValueError("hỏng")

    source = groups(rows(), most=100, wait=wait)
    assert next(source) == list(range(FIRST))
    with pytest.raises(ValueError, match="hỏng"):
        next(source)


def test_leaving_does_not_wait_for_a_stream_that_stays_open() -> None:
    script = (
        "import sys; from loraft.data.stream import groups\nprint(next(groups(sys.stdin, most=9, wait=0.01)), end='')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("một\n")
        process.stdin.flush()
        assert process.wait(PATIENT) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("['một\\n']", "")
