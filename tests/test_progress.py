"""How work that takes time reports itself, and in which words."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from loraft import progress
from loraft.progress import ROWS, Listener, Stage, each, installed, rows_scored


class Recorder(Listener):
    """Keeps the positions of all open stages at every change."""

    def __init__(self) -> None:
        self.time = SimpleNamespace(now=100.0)
        super().__init__(lambda: self.time.now)
        self.seen: list[list[str]] = []

    def changed(self) -> None:
        self.seen.append([stage.position for stage in self.stages])


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    token = installed.set(recorder)
    yield recorder
    installed.reset(token)


def test_stages_lie_in_each_other_and_end_with_an_error(recorder: Recorder) -> None:
    with pytest.raises(ZeroDivisionError), Stage("trial", 3, note="hạng 4"), Stage("scoring test", 70, ROWS) as scoring:
        scoring.advance(64)
        raise ZeroDivisionError
    outer = "trial 1 of 3 (hạng 4)"
    assert recorder.seen == [
        [outer],
        [outer, "scoring test 0/70 rows"],
        [outer, "scoring test 64/70 rows"],
        [outer],
        [],
    ]


def test_items_are_numbered_from_one_and_each_comes_with_its_note(recorder: Recorder) -> None:
    assert list(each(["a", "b"], "trial", note=str.upper)) == ["a", "b"]
    assert recorder.seen[1:] == [["trial 1 of 2 (A)"], ["trial 2 of 2 (B)"], []]


def test_a_total_that_is_not_known_or_was_wrong_is_not_shown(recorder: Recorder) -> None:
    with Stage("training", unit="steps") as steps:
        assert steps.line(100.0) == "training"
        steps.begin(0, 8)
        assert steps.line(100.0) == "training 0/8 steps"
    with Stage("predicting", 2, ROWS) as rows:
        for shown in ("1/2", "2/2", "3"):
            rows.advance()
            assert rows.position == f"predicting {shown} rows"


def test_rows_that_are_scored_count_for_a_stage_that_counts_rows_alone(recorder: Recorder) -> None:
    rows_scored(5)  # outside of all stages
    with Stage("predicting", None, ROWS) as rows:
        rows_scored(5)
        with Stage("training", 10, "steps") as steps:
            rows_scored(5)
    assert (rows.done, steps.done) == (5, 0)


def test_a_line_has_time_left_and_speed_without_what_was_done_earlier(recorder: Recorder) -> None:
    with Stage("predicting", 1300, ROWS, done=1000) as stage:
        assert stage.line(100.0) == "predicting 1,000/1,300 rows"
        recorder.time.now += 4
        stage.advance(100)
        assert stage.line(104.0) == "predicting 1,100/1,300 rows, 8 s left, 25 rows/s"  # 100 rows in 4 s
        assert stage.line(107.0) == "predicting 1,100/1,300 rows, 5 s left, 25 rows/s"
        stage.advance(0, "loss 0.5")
        assert stage.line(104.0) == "predicting 1,100/1,300 rows, 8 s left, loss 0.5"
    with Stage("trial", 8) as trials:
        trials.done = 2
        recorder.time.now += 1200  # 600 s a trial
        trials.advance(0, "r4")
        assert trials.line(recorder.time.now) == "trial 3 of 8 (r4), 60 min left"
    with Stage("loading tiếng-việt") as loading:
        assert loading.line(recorder.time.now + 61) == "loading tiếng-việt, 61 s so far"


def test_a_thread_reports_to_none_nor_does_anything_after_the_end(recorder: Recorder) -> None:
    def work() -> None:
        with Stage("serving", 1, ROWS):
            rows_scored(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    progress.remove()
    work()
    assert recorder.seen == []
