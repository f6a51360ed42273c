"""Where a split's rows come from: bundled data, folders, files and the hub."""

import gzip
from pathlib import Path
from typing import Any

import datasets
import openpyxl
import pytest
from helpers.data import LABELS, ROWS, TEXTS, write_rows

from loraft.bundled import bundled_data
from loraft.config.data_section import DataConfig
from loraft.data.records import Row
from loraft.data.sources import NoSplitError, open_source
from loraft.errors import DataError

REQUIRED = ("sentence", "sentiment")


def rows_of(
    source: Path | str, name: str = "train", role: str = "train", labels: list[str] = LABELS, **section: Any
) -> list[dict[str, Any]]:
    found, _ = open_source(DataConfig(source=str(source), **section), name, REQUIRED, role, labels)
    return [item.columns for item in found if isinstance(item, Row)]


def place_of(source: Path | str, name: str = "train") -> str:
    return open_source(DataConfig(source=str(source)), name, REQUIRED, "train", LABELS)[1]


# --- folders and files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_a_folder_has_a_file_for_each_split_in_any_format(tmp_path: Path, suffix: str) -> None:
    path = write_rows(tmp_path / f"train{suffix}")
    assert [row["sentence"] for row in rows_of(tmp_path)] == TEXTS
    assert place_of(tmp_path) == str(path)


@pytest.mark.parametrize("alias", ["validation", "valid", "dev", "val"])
def test_the_validation_split_has_several_file_names(tmp_path: Path, alias: str) -> None:
    write_rows(tmp_path / f"{alias}.csv")
    assert len(rows_of(tmp_path, "validation")) == 3


def test_of_several_names_for_validation_the_first_is_taken(tmp_path: Path) -> None:
    for alias in ("dev", "valid"):
        write_rows(tmp_path / f"{alias}.csv")
    assert place_of(tmp_path, "validation") == str(tmp_path / "valid.csv")


def test_a_file_is_read_whatever_the_source_is(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "gold.csv")
    assert place_of("feedback", str(path)) == str(path)


def test_one_file_is_the_train_split_and_no_other(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "all.csv")
    assert len(rows_of(path)) == 3
    with pytest.raises(NoSplitError, match=r"one file holds one split.*--set data\.test_split=FILE"):
        rows_of(path, "test", "test")


@pytest.mark.parametrize("name", ["reviews.txt", "owner/reviews.docx"])
def test_a_file_of_unknown_format_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("hay\n")
    for source, split in ((name, "train"), ("feedback", name)):
        with pytest.raises(DataError, match=r"unknown file format \(got \.(txt|docx)\); allowed are \.jsonl"):
            rows_of(source, split)


def test_a_bundled_name_means_the_bundled_data_and_a_dot_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "feedback").mkdir()
    write_rows(tmp_path / "feedback" / "train.csv")
    assert len(rows_of("./feedback")) == len(rows_of(tmp_path / "feedback")) == 3
    assert place_of("feedback") == str(bundled_data()["feedback"] / "train.jsonl")


def test_a_home_folder_may_be_written_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = write_rows(tmp_path / "train.csv")
    assert place_of("~") == place_of("~/train.csv") == place_of("feedback", "~/train.csv") == str(path)


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv")
    write_rows(tmp_path / "train.jsonl")
    with pytest.raises(DataError, match=r"several files for split train \(got train.jsonl, train.csv\)"):
        rows_of(tmp_path)


def test_sources_that_do_not_exist_say_what_could_be_given(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder or file.*feedback"):
        rows_of(tmp_path / "không có")
    with pytest.raises(DataError, match="no such folder or file"):
        rows_of(".hidden")
    with pytest.raises(DataError, match="no such file"):
        rows_of(tmp_path / "không có.csv")
    with pytest.raises(DataError, match="no such file"):
        rows_of("feedback", str(tmp_path / "không có.parquet"))
    write_rows(tmp_path / "train.csv")
    with pytest.raises(NoSplitError, match=r"no file for split test \(got train.csv\); expected test\{\.jsonl,"):
        rows_of(tmp_path, "test", "test")
    (tmp_path / "train.csv").unlink()
    with pytest.raises(NoSplitError, match=r"no file for split test \(got no data files\)"):
        rows_of(tmp_path, "test", "test")


@pytest.mark.parametrize(
    "name", ["data/train-0000{}-of-00002.parquet", "Train/{}.csv", "train-0000{}-of-00002-ab1.jsonl"]
)
def test_the_parts_of_a_split_are_one_split_with_rows_counted_through(tmp_path: Path, name: str) -> None:
    for part in (0, 1):
        path = tmp_path / name.format(part)
        path.parent.mkdir(exist_ok=True)
        write_rows(path)
    found, _ = open_source(DataConfig(source=str(tmp_path)), "train", REQUIRED, "train", LABELS)
    assert [(item.row, item.columns["sentence"]) for item in found if isinstance(item, Row)] == [
        *enumerate(TEXTS * 2, start=1)
    ]


def test_a_missing_part_of_a_split_is_told(tmp_path: Path) -> None:
    write_rows(tmp_path / "train-00000-of-00002.parquet")
    with pytest.raises(DataError, match=r"parts of split train are missing \(got 1 of 2\)"):
        rows_of(tmp_path)


def test_subset_split_names_in_any_case_and_compressed_files(tmp_path: Path) -> None:
    (tmp_path / "vi").mkdir()
    path = write_rows(tmp_path / "vi" / "Train.csv")
    (tmp_path / "vi" / "DEV.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert [row["sentence"] for row in rows_of(tmp_path, subset="vi")] == TEXTS
    assert [row["sentence"] for row in rows_of(tmp_path, "validation", "validation", subset="vi")] == TEXTS
    with pytest.raises(DataError, match=r"no such folder \(got data.subset='en'\)"):
        rows_of(tmp_path, subset="en")
    for source in ("feedback", tmp_path / "vi" / "Train.csv"):
        with pytest.raises(DataError, match=r"data.subset: .* has none \(got 'vi'\)"):
            rows_of(source, subset="vi")
    (tmp_path / "en" / "positive").mkdir(parents=True)
    (tmp_path / "en" / "positive" / "a.txt").write_text("hay", encoding="utf-8")
    assert [row["sentiment"] for row in rows_of(tmp_path, subset="en")] == ["positive"]


def test_texts_by_label_lie_in_folders_or_in_a_file_of_lines(tmp_path: Path) -> None:
    for name, text in (("positive/a.txt", "hay\nlắm"), ("negative/b.txt", "dở"), ("neutral.txt", "một\nhai\n")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    expected = [("dở", "negative"), ("hay\nlắm", "positive"), ("một", "neutral"), ("hai", "neutral")]
    assert [(row["sentence"].strip(), row["sentiment"]) for row in rows_of(tmp_path)] == expected
    with pytest.raises(NoSplitError, match="one file holds one split"):
        rows_of(tmp_path, "test", "test")


def test_each_split_may_be_a_folder_of_texts_by_label(tmp_path: Path) -> None:
    names = ("Train/positive/a.txt", "Train/negative/b.txt", "test/Neutral.txt", "dev/negative.txt", "README.txt")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(f"{Path(name).stem}\n", encoding="utf-8")
    assert [row["sentiment"] for row in rows_of(tmp_path)] == ["negative", "positive"]
    assert [row["sentiment"] for row in rows_of(tmp_path, "test", "test")] == ["Neutral"]
    assert [row["file"] for row in rows_of(tmp_path, "validation", "validation")] == ["negative.txt"]


def test_a_text_file_beside_data_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "README.txt").write_text("Về dữ liệu\n", encoding="utf-8")
    write_rows(tmp_path / "data" / "train-00000-of-00001.parquet")
    assert [row["sentence"] for row in rows_of(tmp_path)] == TEXTS


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".txt"])
def test_text_formats_may_be_compressed(tmp_path: Path, suffix: str) -> None:
    path = write_rows(tmp_path / f"gốc{suffix}")
    content = b"__label__positive hay\n" if suffix == ".txt" else path.read_bytes()
    (tmp_path / f"Train{suffix}.GZ").write_bytes(gzip.compress(content))
    assert [row["sentence"] for row in rows_of(tmp_path)] == (["hay"] if suffix == ".txt" else TEXTS)


def test_an_excel_file_is_a_split_and_its_sheet_a_key(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for rows in ([["sentence", "sentiment"], ["hay", 2]], [["ghi chú"]]):
        sheet = book.create_sheet()
        for row in rows:
            sheet.append(row)
    book.save(tmp_path / "train.xlsx")
    assert rows_of(tmp_path, sheet="Sheet1") == [{"sentence": "hay", "sentiment": 2}]
    with pytest.raises(DataError, match=r"choose with --set data\.sheet=NAME"):
        rows_of(tmp_path)


def test_saved_data_sets_name_their_labels(tmp_path: Path) -> None:
    made = with_label_names(["Positive", "neutral", "negative"])
    datasets.DatasetDict({"Train": made, "dev": made.select([0])}).save_to_disk(tmp_path / "all")
    made.save_to_disk(tmp_path / "one")
    for source in ("all", "one"):
        assert [row["sentiment"] for row in rows_of(tmp_path / source)] == ["negative", "Positive", "neutral"]
    assert len(rows_of(tmp_path / "all", "validation", "validation")) == 1
    with pytest.raises(NoSplitError, match=r"no file for split test \(got Train, dataset_dict.json, dev\)"):
        rows_of(tmp_path / "all", "test", "test")
    (tmp_path / "one" / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"one: cannot be loaded \(.*; save it again with save_to_disk"):
        rows_of(tmp_path / "one")


def test_a_fasttext_file_is_known_by_its_first_line(tmp_path: Path) -> None:
    for name in ("a.train", "train.txt", "valid.txt"):
        (tmp_path / name).write_text("__label__positive hay quá\n", encoding="utf-8")
    expected = [{"sentence": "hay quá", "sentiment": "positive"}]
    assert rows_of(tmp_path / "a.train") == rows_of(tmp_path) == rows_of(tmp_path, "validation", "validation")
    assert rows_of(tmp_path) == expected


# --- the hub, by a substitute for `datasets.load_dataset` -------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Answers every request with `hub["answer"]` (raised if an exception) and keeps the request."""
    state: dict[str, Any] = {}

    def load_dataset(name: str, **arguments: Any) -> Any:
        state["request"] = (name, arguments)
        if isinstance(state["answer"], Exception):
            raise state["answer"]
        return state["answer"]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return state


def with_label_names(names: list[str]) -> datasets.Dataset:
    features = {"sentence": datasets.Value("string"), "sentiment": datasets.ClassLabel(names=names)}
    rows = [{key: row[key] for key in features} for row in ROWS]
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


def test_a_hub_id_is_asked_for_with_revision_split_and_cache(hub: dict[str, Any]) -> None:
    hub["answer"] = datasets.Dataset.from_list(ROWS)
    section = DataConfig(
        source="uitnlp/vietnamese_students_feedback", revision="refs/convert/parquet", cache_dir="./cache"
    )
    found, place = open_source(section, "test", REQUIRED, "test", LABELS)
    assert list(found) == [Row(number, row) for number, row in enumerate(ROWS, start=1)]
    assert hub["request"] == (
        "uitnlp/vietnamese_students_feedback",
        {"split": "test", "revision": "refs/convert/parquet", "cache_dir": "./cache"},
    )
    assert place == "hub uitnlp/vietnamese_students_feedback at refs/convert/parquet, split test"


def test_a_subset_and_a_split_in_another_case_are_asked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(path: str, **arguments: Any) -> Any:
        asked.append((arguments["name"], arguments["split"]))
        if arguments["split"] != "Dev":
            raise ValueError("Unknown split \"validation\". Should be one of ['Train', 'Dev'].")
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(rows_of("owner/name", "validation", "validation", subset="vi")) == 3
    assert asked == [("vi", "validation"), ("vi", "Dev")]


@pytest.mark.parametrize(
    ("source", "failure", "hint"),
    [
        ("owner/name", RuntimeError("Dataset scripts are no longer supported"), "data.revision=refs/convert/parquet"),
        ("owner/name", ValueError('Unknown split "test"'), "check the name, the revision and the split"),
        ("feedbak", ValueError("cannot be read"), "did you mean the bundled 'feedback'?"),
    ],
)
def test_hub_failures_end_with_the_next_step(hub: dict[str, Any], source: str, failure: Exception, hint: str) -> None:
    hub["answer"] = failure
    with pytest.raises(DataError) as error:
        rows_of(source)
    assert str(failure) in str(error.value)
    assert hint in str(error.value)


def test_a_missing_split_on_the_hub_is_told_from_a_failure(hub: dict[str, Any]) -> None:
    hub["answer"] = ValueError("Unknown split \"test\". Should be one of ['train', 'dev'].")
    with pytest.raises(NoSplitError, match="Should be one of"):
        rows_of("owner/name", "test", "test")
    hub["answer"] = ConnectionError("offline")
    with pytest.raises(DataError) as error:
        rows_of("owner/name", "test", "test")
    assert not isinstance(error.value, NoSplitError)


# --- names of label ids -----------------------------------------------------------------------------------------------


def test_label_names_of_the_hub_settle_the_order_of_ids(hub: dict[str, Any]) -> None:
    hub["answer"] = with_label_names(["Positive", "neutral", "negative"])
    assert [row["sentiment"] for row in rows_of("owner/name")] == ["negative", "Positive", "neutral"]  # ids 2, 0, 1
    hub["answer"] = with_label_names(["POS", "NEG", "NEU"])
    with pytest.raises(DataError, match=r"^hub owner/name, split train: the label names of column 'sentiment'"):
        rows_of("owner/name")


def test_label_names_in_a_parquet_file_settle_the_order_of_ids(tmp_path: Path) -> None:
    with_label_names(["Positive", "neutral", "negative"]).to_parquet(tmp_path / "train.parquet")
    assert [row["sentiment"] for row in rows_of(tmp_path)] == ["negative", "Positive", "neutral"]  # ids 2, 0, 1
    with_label_names(["POS", "NEG", "NEU"]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet: the label names of column 'sentiment' are not the task's"):
        rows_of(tmp_path)
    assert [row["sentiment"] for row in rows_of(tmp_path, labels=["POS", "NEG", "NEU"])] == ["NEU", "POS", "NEG"]


def test_a_parquet_file_without_label_names_is_read_by_ids(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.parquet")
    assert [row["sentiment"] for row in rows_of(tmp_path)] == [2, 0, 1]
