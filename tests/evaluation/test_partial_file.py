"""`OUTPUT.partial` of `loraft predict`: a damaged one is refused, and what an interruption says about it."""

import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest
from helpers.command_line import Says, finished

from loraft.cli.app import main
from loraft.data.records import BadRow, Example
from loraft.errors import Note
from loraft.evaluation.predict import Prediction
from loraft.evaluation.shift import Progress

SENTENCES = "\n".join(f"câu {row} hay" for row in range(20))


class Grouped:
    """Stands for `predict`: groups of 3 and then 4 rows; raises before the row `last`."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last

    def __call__(
        self, inputs: Iterable[Example | BadRow], *, progress: Progress, **named: object
    ) -> Iterator[Prediction]:
        rows, size = iter(inputs), 4 if progress.rows else 3
        progress.predicted = Counter(progress.predicted)
        while group := list(islice(rows, size)):
            progress.rows, size = progress.rows + len(group), 4
            for item in group:
                if item.row == self.last:
                    raise KeyboardInterrupt
                yield Prediction(item.row, "", "tích cực", {"tích cực": 1 / item.row})


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """20 rows, in the working folder; the only run there has an adapter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    (finished(tmp_path / "runs" / "one") / "adapter").mkdir()
    (tmp_path / "vào.txt").write_text(SENTENCES, encoding="utf-8")
    return tmp_path / "vào.txt"


@pytest.fixture
def loraft_says(capsys: pytest.CaptureFixture[str]) -> Iterator[Says]:
    """Calls the command line; returns exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    with patch.dict(os.environ):
        yield call


def _without_a_row(lines: list[bytes]) -> list[bytes]:
    return [line for row, line in enumerate(lines) if row != 2]


def _marked(field: bytes) -> bytes:
    """The end of a group of no rows, with this field instead of its own."""
    return b'{"bad": 0, "rows": 3, "prefix": [], "predicted": {}, "confidences": [], ' + field + b"}\n"


DAMAGE = {
    "a row that is gone": (_without_a_row, "2 rows where 3 should be"),
    "a row twice": (lambda lines: [*lines[:2], *lines[1:]], "4 rows where 3 should be"),
    "a row that is none": (lambda lines: [lines[0], b"[1]\n", *lines[2:]], "not enough values"),
    "no end of a group": (lambda lines: [one for row, one in enumerate(lines) if row != 4], ""),
    "another object": (lambda lines: [*lines, b'{"x": 1}\n'], "the end of a group lacks a field"),
    "no list of numbers": (lambda lines: [*lines, _marked(b'"confidences": ["x"]')], "a field that is no number of"),
    "no counts": (lambda lines: [*lines, _marked(b'"predicted": {"vui": [1]}')], "a field that is no number of rows"),
    "fewer than no rows": (lambda lines: [*lines, _marked(b'"confidences": [-3, 6]')], "a field that is no number of"),
    "an empty origin": (lambda lines: [b'{"origin": {}}\n', *lines[1:]], "it does not say of which input"),
    "an origin that is a number": (lambda lines: [b'{"origin": 3}\n', *lines[1:]], ""),
}  # fmt: skip


def test_a_damaged_partial_file_is_refused(table: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    def says(*arguments: str, double: Grouped | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr("loraft.evaluation.predict.predict", double or Grouped())
        return loraft_says("predict", "--input", table.name, "--output-file", "ra.csv", *arguments)

    says(double=Grouped(12))
    partial = Path("ra.csv.partial")
    lines = partial.read_bytes().splitlines(keepends=True)
    assert [line[:1] for line in lines[:6]] == [b"{", b"[", b"[", b"[", b"{", b"["]
    for name, (damaged, what) in DAMAGE.items():
        partial.write_bytes(b"".join(damaged(lines)))
        code, _, err = says("--resume")
        if name == "no end of a group":  # the next one has the same rows before it
            assert (code, Path("ra.csv").exists()) == (0, True)
            Path("ra.csv").unlink()
            continue
        assert (code, Path("ra.csv").exists()) == (1, False), name
        assert "error: ra.csv.partial: a damaged interrupted prediction (" in err, err
        assert what in err
        assert "delete it" in err


def test_a_partial_file_of_an_earlier_version_is_called_that(table: Path, loraft_says: Says) -> None:
    command = ("predict", "--input", table.name, "--output-file", "ra.csv", "--resume")
    lines = [b'{"origin": {}}\n', b'["positive", {"positive": 1.0}, null]\n', b'{"bad": 0, "rows": 1, "prefix": []}\n']
    Path("ra.csv.partial").write_bytes(b"".join(lines))
    _, _, err = loraft_says(*command)
    assert "interrupted prediction of an earlier version (got no confidences, predicted); delete it, and" in err


def test_an_input_that_changes_during_the_prediction_is_told(
    table: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changing(Grouped):
        def __call__(self, inputs: Iterable[Example | BadRow], **named: Any) -> Iterator[Prediction]:
            yield from super().__call__(inputs, **named)
            table.write_text("thầy giảng hay\n", encoding="utf-8")

    monkeypatch.setattr("loraft.evaluation.predict.predict", Changing())
    code, _, err = loraft_says("predict", "--input", table.name, "--output-file", "ra.csv")
    assert (code, Path("ra.csv").exists()) == (1, False)
    assert "error: ra.csv.partial: does not have the input's number of rows (got 20)" in err


def test_an_interruption_before_the_first_group_says_that_nothing_is_kept(
    table: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loraft.evaluation.predict.predict", Grouped(1))
    _, _, err = loraft_says("predict", "--input", table.name, "--output-file", "ra.csv")
    assert err.splitlines()[-1] == "interrupted; no rows are kept; the same command begins again"
    assert not list(Path().glob("ra*"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no parent process that lives on")
def test_a_second_process_on_one_output_is_refused_with_the_id_of_the_first(
    table: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Seen(Grouped):
        def __call__(self, inputs: Iterable[Example | BadRow], **named: Any) -> Iterator[Prediction]:
            seen.append(json.loads(Path("ra.csv.partial.lock").read_bytes()))
            yield from super().__call__(inputs, **named)

    seen: list[dict[str, Any]] = []
    monkeypatch.setattr("loraft.evaluation.predict.predict", Seen())
    command = ["predict", "--input", table.name, "--output-file", "ra.csv"]
    assert loraft_says(*command)[0] == 0
    assert sorted(path.name for path in Path().glob("ra*")) == ["ra.csv"]
    Path("ra.csv").unlink()
    other = psutil.Process(os.getppid())
    owner = {**seen[0], "pid": other.pid, "process_started": other.create_time()}
    Path("ra.csv.partial.lock").write_text(json.dumps(owner), encoding="utf-8")
    code, _, err = loraft_says(*command)
    assert (code, len(seen)) == (1, 1)
    assert f"error: ra.csv.partial: process {other.pid} on " in err
    assert err.endswith("works there; wait for it or end it, or choose another name\n")
    Path("ra.csv.partial.lock").write_text(json.dumps({**owner, "process_started": 1.0}), encoding="utf-8")
    with pytest.warns(Note, match="ra.csv.partial: took over the lock of process"):  # a killed one leaves its lock
        assert loraft_says(*command)[0] == 0
