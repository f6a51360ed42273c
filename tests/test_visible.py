"""What a stranger's text may do to a terminal, a page or Markdown: nothing."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from loraft.cli import console
from loraft.cli.app import main
from loraft.config.resolve import load_config, resolve
from loraft.config.yaml_io import dump_config
from loraft.display.figure import drawing
from loraft.display.page import Code, Document, markdown, page
from loraft.display.table import listing, show, show_lines
from loraft.runs.atomic_files import to_json
from loraft.visible import visible

# Colour, cursor, window title, an 8-bit CSI, a line that overwrites itself, right-to-left override, half a pair.
MARKS = "\u061c\u200e\u200f\u2028\u2029"  # of direction, and Unicode's own ends of lines and paragraphs
HOSTILE = "\x1b[31mđỏ\x1b]0;tên\x07\x9b2J\x7f an toàn\rnguy hiểm \u202egpj.exe\u2069 \udc80"
SHOWN = r"\x1b[31mđỏ\x1b]0;tên\x07\x9b2J\x7f an toàn\rnguy hiểm \u202egpj.exe\u2069 \udc80".replace(r"\r", r"\x0d")
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def test_control_characters_are_shown_and_all_else_stays() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible(MARKS) == r"\u061c\u200e\u200f\u2028\u2029"
    plain = "Thầy dạy hay\n\tlắm \r\n👩‍🏫 [red] \\x1b e\u0302 שלום"
    assert visible(plain) == plain


def test_what_people_read_on_stdout_and_stderr_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    show([listing([HOSTILE], [[HOSTILE + "[bold]"]])])
    show_lines([HOSTILE])
    console.say(HOSTILE)
    sys.stderr.write(console._one_line(HOSTILE, UserWarning))
    with pytest.raises(SystemExit):
        main(["train", "--set", f"data.fold={HOSTILE}"])
    with pytest.raises(SystemExit):
        main(["report", HOSTILE])
    out, err = capsys.readouterr()
    assert not RAW.search(out + err), RAW.findall(out + err)
    assert out.count(SHOWN) == 3
    assert err.count(SHOWN) == 2
    assert "[bold]" in out


def test_a_page_and_markdown_show_it_and_run_nothing() -> None:
    hostile = f'{HOSTILE} <script>alert(1)</script> <img src=x onerror="alert(1)"> [a](javascript:b) `x` | &lt;'
    document = Document(hostile, hostile, [(hostile, [hostile, listing([hostile], [[hostile]])])])
    made = page(document)
    assert not RAW.search(made)
    assert "<script" not in made
    assert "<img" not in made
    assert made.count("&lt;script&gt;") == 7  # the title twice, then subtitle, heading, text, column and cell
    assert "<pre>" in page(Document("a", "b", [("c", [Code("<pre>")])]))
    text = markdown(document)
    assert not RAW.search(text)
    assert not re.search(r"(?<!\\)([<`&]|\](?=[(\[:]))", text)
    assert text.count(r"[a\](javascript:b) \`x\` \| \&lt;") == 6


def test_json_is_exact_and_has_no_control_character() -> None:
    text = to_json({"câu": HOSTILE})
    assert not RAW.search(text)
    assert json.loads(text) == {"câu": HOSTILE}


def test_a_config_is_printed_without_them_and_loads_back(tmp_path: Path) -> None:
    config = resolve(flags={"prompt.system": f"{HOSTILE[:-1]}\nhai dòng"})
    text = dump_config(config)
    assert not RAW.search(text)
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    assert load_config(tmp_path / "c.yaml") == config
    assert yaml.safe_load(text)["prompt"]["system"] == config.prompt.system


def test_a_figure_takes_a_dollar_for_a_dollar(tmp_path: Path) -> None:
    with drawing(tmp_path / "a.png", (2, 1)) as figure:
        figure.subplots().set_title(r"nhãn $\frac$ ")
    assert (tmp_path / "a.png").is_file()
