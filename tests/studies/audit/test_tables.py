"""The tables and the page of an audit: both labels, their probabilities, what rows alike have; HTML is escaped."""

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.runs.study_folders import AuditFolder
from loraft.studies import report
from loraft.studies.audit import tables
from loraft.studies.audit.records import AuditResult, Conflict, SuspectRow

ROW = SuspectRow(
    17, "thầy giảng <b>rất</b> dễ hiểu nên em hiểu hết bài ngay tại lớp", "negative", "positive", 0.0123, 0.0123, 0.95,
    {"positive": 2, "negative": 1},
)  # fmt: skip
RESULT = AuditResult(
    path="runs/kiểm tra", backbone="loraft-vi-tiny", data="feedback", task="sentiment",
    labels=("negative", "neutral", "positive"), split="train", source="train.csv", rows=100, fingerprint="f", folds=5,
    seconds=1.5, agreement=0.91,
    suspects=(ROW, replace(ROW, row=18, alike={}), *(replace(ROW, row=20 + i, label="neutral") for i in range(30))),
    conflicts=(Conflict("căn tin & thư viện", {"neutral": (3, 4), "positive": (9,)}),), duplicates=6,
)  # fmt: skip


def test_the_terminal_shows_the_first_rows_in_80_columns() -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(tables.suspects(RESULT))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == tables.SHOWN + 2
    assert lines[2].split()[:5] == ["17", "negative", "0.01", "positive", "0.95"]
    assert "…" in lines[2]


def test_the_notes_count_rows_and_conflicts() -> None:
    text = " ".join(tables.notes(RESULT))
    assert "32 of 100 labels are probably wrong (32.0%)" in text
    assert "the most probable label is the given one in 91.0% of all rows" in text
    assert (
        "sentences with several labels: 1 (3 rows); rows that repeat the sentence and label of an earlier one: 6."
        in text
    )


def test_the_page_says_why_and_escapes_what_comes_from_the_data(tmp_path: Path) -> None:
    folder = AuditFolder(tmp_path / "kiểm tra")
    folder.path.mkdir()
    folder.config_path.write_text(dump_config(resolve()), encoding="utf-8")
    folder.finish(RESULT)
    page = report.write_page(folder.path).read_text(encoding="utf-8")
    assert "positive 0.950, negative 0.012; the same or nearly the same sentence: 2 positive, 1 negative" in page
    assert "&lt;b&gt;rất&lt;/b&gt;" in page
    assert "<b>rất" not in page
    assert "neutral: 3, 4; positive: 9" in page
    assert report.find(None, tmp_path) == folder.path
    markdown = report.markdown(folder.path)
    assert "| negative | positive | 2 |" in markdown
    assert AuditResult.of(folder) == RESULT


def test_an_audit_without_suspects_has_a_page_too(tmp_path: Path) -> None:
    clean = replace(RESULT, suspects=(), conflicts=())
    assert tables.page_suspects(clean) == tables.page_conflicts(clean) == []
    assert "0 of 100 labels" in tables.notes(clean)[0]
