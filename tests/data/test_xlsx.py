"""Excel files, written here part by part as the standard describes them."""

import zipfile
from datetime import datetime
from pathlib import Path

import pytest

from loraft.data.records import BadRow, Row
from loraft.data.xlsx import xlsx_rows
from loraft.errors import DataError

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
LINKS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def book(path: Path, *sheets: str) -> Path:
    """An Excel file with the rows of its sheets in XML."""
    names = "".join(f'<sheet name="Tờ{n}" sheetId="{n}" r:id="r{n}"/>' for n in range(1, len(sheets) + 1))
    links = "".join(f'<Relationship Id="r{n}" Target="worksheets/s{n}.xml"/>' for n in range(1, len(sheets) + 1))
    parts = {
        "workbook.xml": f'<workbook {MAIN} xmlns:r="{LINKS}"><sheets>{names}</sheets></workbook>',
        "_rels/workbook.xml.rels": f"<Relationships>{links}</Relationships>",
        "sharedStrings.xml": f"<sst {MAIN}><si><t>sentence</t></si><si><r><t>dễ </t></r><r><t>hiểu</t></r></si></sst>",
        "styles.xml": f'<styleSheet {MAIN}><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs></styleSheet>',
    }
    parts |= {
        f"worksheets/s{n}.xml": f"<worksheet {MAIN}><sheetData>{rows}</sheetData></worksheet>"
        for n, rows in enumerate(sheets, start=1)
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(f"xl/{name}", text)
    return path


HEADER = '<row><c r="A1" t="s"><v>0</v></c><c r="C1" t="inlineStr"><is><t>nhãn</t></is></c></row>'


def test_cells_of_every_kind_are_read(tmp_path: Path) -> None:
    rows = (
        HEADER + '<row/><row><c r="A3" t="s"><v>1</v></c><c r="C3"><v>2</v></c></row>'
        '<row><c r="A4" t="str"><v>x_x000D_y</v></c><c r="C4"><v>0.5</v></c></row>'
        '<row><c r="A5" t="b"><v>1</v></c><c r="C5" s="1"><v>45292.5</v></c></row>'
        '<row><c r="C6"><v>1</v></c></row><row><c r="A7" t="e"><v>#N/A</v></c></row>'
    )
    assert list(xlsx_rows(book(tmp_path / "a.xlsx", rows, ""), None, ("sentence",))) == [
        Row(1, {"sentence": "dễ hiểu", "nhãn": 2}),
        Row(2, {"sentence": "x\ry", "nhãn": 0.5}),
        Row(3, {"sentence": True, "nhãn": datetime(2024, 1, 1, 12)}),  # day 45,292 of Excel is 1 January 2024
        Row(4, {"sentence": None, "nhãn": 1}),
        BadRow(5, "a cell holds the error #N/A"),
    ]


def test_a_sheet_is_chosen_by_name_and_never_silently(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", HEADER, HEADER + '<row><c r="A2"><v>7</v></c></row>')
    assert list(xlsx_rows(path, "Tờ2", ("sentence",))) == [Row(1, {"sentence": 7, "nhãn": None})]
    with pytest.raises(DataError, match=r"several sheets have cells \(got Tờ1, Tờ2\); choose with --set data.sheet"):
        list(xlsx_rows(path, None, ("sentence",)))
    with pytest.raises(DataError, match="no such sheet"):
        list(xlsx_rows(path, "x", ("sentence",)))
    with pytest.raises(DataError, match="no column 'câu'"):
        list(xlsx_rows(path, "Tờ1", ("câu",)))


def test_what_is_no_excel_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("sentence\nhay\n", encoding="utf-8")
    with pytest.raises(DataError, match="not a readable Excel file"):
        list(xlsx_rows(tmp_path / "a.xlsx", None, ()))
    with pytest.raises(DataError, match="no such file"):
        list(xlsx_rows(tmp_path / "b.xlsx", None, ()))
