"""What is said of a source before it has a task, against counts made by hand."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from helpers.data import write_rows

from loraft.config.resolve import resolve
from loraft.display.page import cells
from loraft.errors import DataError
from loraft.studies.dataset.new_task import task_text
from loraft.studies.dataset.overview import Overview, overview_lines, overview_tables, survey
from loraft.studies.dataset.records import Lengths

ROWS: list[dict[str, Any]] = [
    {"nội dung": "Giao hàng nhanh", "loại": "khen", "nơi": "Huế"},
    {"nội dung": "Máy nóng ran", "loại": "Góp_ý", "nơi": "Huế"},
    {"nội dung": "Pin tụt nhanh quá", "loại": "lỗi", "nơi": "Vinh"},
    {"nội dung": "ok", "loại": "góp ý", "nơi": "Vinh"},
    {"nội dung": "Loa rè", "loại": "góp ý", "nơi": "Vinh"},
    {"nội dung": " ", "loại": "", "nơi": "Vinh"},
]


def seen(source: Path, *overrides: str) -> Overview:
    return survey(resolve(overrides=overrides, flags={"data.source": str(source)}))


def test_a_source_is_described_without_a_task(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", ROWS)
    write_rows(tmp_path / "test.csv", ROWS[:1])
    found = seen(tmp_path)
    assert (found.text_column, found.label_column, found.candidates) == ("nội dung", "loại", ("nơi",))
    assert found.rows == {"train": 6, "test": 1}
    assert found.labels == {
        "góp ý": {"train": 3, "test": 0}, "khen": {"train": 1, "test": 1}, "lỗi": {"train": 1, "test": 0}
    }  # fmt: skip
    assert (found.ids, found.language, found.vietnamese) == (False, "vi", pytest.approx(1 / 6))  # "tụt"
    assert found.words is not None
    assert (found.words.mean, found.words.longest) == (pytest.approx(16 / 6), 4)
    assert found.notes == (
        "1 rows without text", "1 rows without label", "one label in several spellings: góp ý, Góp_ý"
    )  # fmt: skip
    columns, labels, lengths = map(cells, overview_tables(found))
    assert columns[1][0] == ["nội dung", "6", "5", "text", "Giao hàng nhanh"]
    assert labels == (["label (loại)", "train", "test", "all"], [
        ["góp ý", "3", "0", "3"], ["khen", "1", "1", "2"], ["lỗi", "1", "0", "1"]
    ])  # fmt: skip
    assert [row[0] for row in lengths[1]] == ["words", "characters"]
    assert overview_lines(found)[1].endswith("(also possible: nơi)")


def test_the_configs_columns_come_before_a_guess(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.csv", ROWS)
    found = seen(path, "data.text_column=loại", "data.label_column=nơi")
    assert (found.text_column, found.label_column, [*found.labels]) == ("loại", "nơi", ["Huế", "Vinh"])


def test_ids_are_ids_unless_the_source_or_the_user_names_them(tmp_path: Path) -> None:
    rows = [{"text": "thầy dạy hay", "label": 10 * (i % 2)} for i in range(4)]
    assert list(seen(write_rows(tmp_path / "a.csv", rows)).labels) == ["0", "10"]
    assert seen(tmp_path / "a.csv").ids
    assert "data.label_names" not in " ".join(overview_lines(seen(tmp_path / "a.csv")))  # which names 0, 1, ...
    rows = [{"text": "thầy dạy hay", "label": i % 2} for i in range(4)]
    path = write_rows(tmp_path / "b.jsonl", rows)
    assert any(line.endswith("[NAME OF 0, NAME OF 1, ...]'") for line in overview_lines(seen(path)))
    named = seen(path, "data.label_names=[khen, chê]")
    assert (named.ids, named.labels) == (False, {"chê": {"train": 2}, "khen": {"train": 2}})
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["khen", "chê"])}
    )
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(tmp_path / "c.parquet"))
    assert (seen(tmp_path / "c.parquet").ids, seen(tmp_path / "c.parquet").labels) == (False, named.labels)


def test_a_source_without_labels_or_texts_or_names_for_columns_is_described(tmp_path: Path) -> None:
    bare = seen(write_rows(tmp_path / "a.csv", [{"câu": "the phone is hot"}, {"câu": "ok"}]))
    assert (bare.text_column, bare.label_column, bare.labels, bare.language) == ("câu", None, {}, "en")
    assert (bare.notes, bare.characters) == ((), Lengths.of(np.array([16, 2])))
    numbers = seen(write_rows(tmp_path / "b.csv", [{"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}]))
    assert (numbers.text_column, numbers.words, [*numbers.labels]) == (None, None, ["1", "2"])
    (tmp_path / "fasttext.txt").write_text(
        "__label__khen máy tốt\n__label__chê __label__lỗi máy nóng\n", encoding="utf-8"
    )
    several = seen(tmp_path / "fasttext.txt")
    assert ([*several.labels], several.notes) == (["chê", "khen", "lỗi"], ("1 rows with several labels",))


def test_bytes_that_are_no_utf8_are_counted_and_shown_as_question_marks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    content = "câu,loại\nà la mode,présent\nok,côté\n"
    path.write_bytes(content.replace("ạ", "a").encode("latin-1"))
    found = seen(path)
    note = "2 rows are not valid UTF-8; name the encoding: --set data.encoding=cp1258, latin-1 or tcvn3"
    assert (found.notes, found.undecodable, found.labels) == ((note,), 2, {})
    assert [one.name for one in found.columns] == ["c?u", "loai"]
    assert found.columns[0].example == "? la mode"
    "\n".join(overview_lines(found)).encode()
    with pytest.raises(DataError, match=r"or the encoding with --set data\.encoding=cp1258"):
        task_text(found, language="vi", train="")
    assert seen(path, "data.encoding=latin-1").notes == ()
    path.write_bytes("à,y\n1,2\n3,2\n1,4\n3,4\n".encode("latin-1"))  # without texts
    assert (seen(path).text_column, seen(path).undecodable, seen(path).labels) == (None, 4, {})


def test_unreadable_rows_are_counted_and_an_empty_or_missing_source_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "máy tốt", "label": "khen"}\n["?"]\n{"text": "nóng", "label": "chê"}\n', encoding="utf-8")
    assert seen(path).notes == ("1 rows cannot be read, such as row 2: not a JSON object (got list)",)
    path.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl: no rows with columns"):
        seen(path)
    with pytest.raises(DataError, match="no such file"):
        seen(tmp_path / "b.jsonl")
