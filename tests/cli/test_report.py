"""`loraft report` on the command line: what is parsed, printed where, and refused."""

from pathlib import Path

from helpers.command_line import Says
from helpers.folders import make_data, make_fewshot, make_run


def test_report_prints_the_path_of_the_page(tmp_path: Path, loraft_says: Says) -> None:
    make_run(tmp_path / "chạy")
    page = tmp_path / "chạy" / "report.html"
    assert loraft_says("report", "--output", str(tmp_path))[:2] == (0, f"{page}\n")
    assert "tích cực" in page.read_text(encoding="utf-8")
    assert loraft_says("report", str(tmp_path / "chạy"), "--to", str(tmp_path / "b.html"))[0] == 0
    assert (tmp_path / "b.html").read_bytes() == page.read_bytes()


def test_report_in_markdown_goes_to_stdout(tmp_path: Path, loraft_says: Says) -> None:
    folder = make_data(tmp_path)
    code, out, _ = loraft_says("report", str(folder), "--markdown")
    assert code == 0
    assert "| lecturer |" in out
    assert not (folder / "report.html").exists()
    code, out, err = loraft_says("report", str(folder), "--markdown", "--to", "a.md")
    assert (code, out) == (2, "")
    assert "--markdown and --to: Markdown goes to stdout" in err


def test_report_of_nothing_names_what_is_there(tmp_path: Path, loraft_says: Says) -> None:
    make_fewshot(tmp_path / "nghiên-cứu")
    code, _, err = loraft_says("report", "nghien-cuu", "--output", str(tmp_path))
    assert code == 1
    assert "did you mean nghiên-cứu?" in err


def test_report_speaks_vietnamese_where_asked_and_no_other_language(tmp_path: Path, loraft_says: Says) -> None:
    folder = make_run(tmp_path / "chạy")
    assert loraft_says("report", str(folder), "--lang", "vi")[0] == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<html lang="vi">' in page
    assert "<h2>Kết quả</h2>" in page
    assert loraft_says("report", str(folder))[0] == 0
    assert '<html lang="en">' in (folder / "report.html").read_text(encoding="utf-8")
    assert "## Kết quả" in loraft_says("report", str(folder), "--lang", "vi", "--markdown")[1]
    assert loraft_says("report", str(folder), "--lang", "fr")[::2] == (
        2,
        "error: --lang: not allowed (got 'fr'); one of en, vi\n",
    )
