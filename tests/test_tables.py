"""Tables of all commands in narrow and wide terminals: what they print is kept in `snapshots/`.

`LORAFT_SNAPSHOTS=write pytest tests/test_tables.py` writes the files again; look at their diff before it is committed.
"""

import io
import os
import re
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
from helpers.folders import fewshot_result
from helpers.printed_tables import TABLES, compared, curve
from helpers.sweeps import result
from rich.table import Table

from loraft.display.table import LONGEST_WORD, show
from loraft.studies.compare import tables as compare_tables
from loraft.studies.fewshot import tables as fewshot_tables
from loraft.studies.sweep import curve_tables
from loraft.studies.sweep import tables as sweep_tables

SNAPSHOTS = Path(__file__).parent / "snapshots"
SCREENS = ("60", "80", "120", "piped", "60-no-color", "80-dumb")
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
NUMBER = re.compile(r"(?<![\w.,-])[-+±]?[\d.,]*\d%?(?![\w.,-])")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(tables: list[Table], screen: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the tables look like there, escapes included."""
    out = io.StringIO() if screen == "piped" else Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    for variable in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(variable, raising=False)
    if screen.endswith("no-color"):
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb" if screen.endswith("dumb") else "xterm")
    monkeypatch.setenv("COLUMNS", screen.partition("-")[0] if screen != "piped" else "60")
    show(deepcopy(tables))
    return out.getvalue()


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in ESCAPE.sub("", text).splitlines()]


@pytest.mark.parametrize("name", TABLES)
def test_tables_fit_every_screen_and_look_as_they_did(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = TABLES[name]()
    shown = {screen: printed(tables, screen, monkeypatch) for screen in SCREENS}
    piped = lines(shown["piped"])
    numbers, words = set(NUMBER.findall("\n".join(piped))), set("\n".join(piped).split())
    heads = {head for table in tables for column in table.columns for head in str(column.header).split()}
    for screen in SCREENS[:3]:
        found = "\n".join(lines(shown[screen]))
        assert max(map(len, found.splitlines())) <= int(screen)
        told = re.sub(r"left out: .*?shows\s+all", "", found, flags=re.DOTALL)
        assert set(NUMBER.findall(told)) <= numbers  # no part of one stands by itself
        left = re.findall(r"left out: (.*?);", found, flags=re.DOTALL)
        gone = {word for names in left for word in re.split(r"[,\s]+", names)}
        assert heads - gone <= set(found.split()) | {word.removesuffix(":") for word in found.split()}
        assert "…" not in set(found) - set("".join(piped))
        parts = {word for word in told.split() if word.isalpha()} - words - heads
        assert all(any(part in word and len(word) > LONGEST_WORD for word in words) for part in parts)
    assert "\x1b" not in shown["80-dumb"] + shown["piped"]
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", shown["60-no-color"])
    assert lines(shown["60-no-color"]) == lines(shown["60"])
    assert lines(shown["80-dumb"]) == lines(shown["80"])
    for screen in ("60", "80", "120", "piped"):
        file, text = SNAPSHOTS / f"{name}-{screen}.txt", "\n".join(lines(shown[screen])) + "\n"
        if os.environ.get("LORAFT_SNAPSHOTS") == "write":
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert text == file.read_text(encoding="utf-8"), f"{file}: see the first lines of this file"


@pytest.mark.parametrize(
    ("notes", "word", "heads"),
    [
        (lambda gone: sweep_tables.sweep_notes(result((4, 8)), gone), "MiB: ", {"MiB"}),
        (lambda gone: curve_tables.curve_notes(curve(), gone), "energy: ", {"energy"}),
        (lambda gone: compare_tables.comparison_notes(compared(), gone), "broken: ", {"broken"}),
        (lambda gone: fewshot_tables.fewshot_notes(fewshot_result(), gone), "macro averages", {"recall", "prec."}),
    ],
    ids=["sweep", "sweep --from", "compare", "fewshot"],
)
def test_a_column_that_is_left_out_is_not_explained(
    notes: Callable[[set[str]], list[str]], word: str, heads: set[str]
) -> None:
    assert word in "\n".join(notes(set()))
    assert word not in "\n".join(notes(heads))


def test_the_order_in_which_columns_are_left_out_is_documented() -> None:
    orders = {", ".join(drop) for make in TABLES.values() for table in make() if (drop := getattr(table, "drop", ()))}
    page = (Path(__file__).parents[1] / "docs" / "footguns.md").read_text(encoding="utf-8")
    told = page.partition("| left out, the first ones first |")[2].splitlines()[2:]
    assert {row.split(" | ")[1].removesuffix(" |") for row in told if row} == orders


def test_no_snapshot_is_left_over() -> None:
    expected = {f"{name}-{screen}.txt" for name in TABLES for screen in ("60", "80", "120", "piped")}
    assert {path.name for path in SNAPSHOTS.iterdir()} == expected
