"""A cell with any number of labels is read whatever way it is written; no label is a label set, null is none."""

from pathlib import Path
from typing import Any

import pytest
from helpers.data import TEXTS, write_rows

from loraft.config.data_section import DataConfig
from loraft.data.dataset import Split, load_split
from loraft.data.label_sets import label_set_reader, separator_in
from loraft.data.labels import label_reader
from loraft.errors import DataError

LABELS = ["giảng viên", "phòng, máy", "học phí", "tích cực"]


def load(path: Path, **section: Any) -> Split:
    return load_split(
        DataConfig(source=str(path), **section), "train", labels=LABELS, label_column="nhãn", several=True
    )


@pytest.mark.parametrize(
    ("cell", "ids"),
    [
        ([], ()),
        ("", ()),
        ("  ", ()),
        ("[]", ()),
        (["tích cực"], (3,)),
        ("Tích_cực", (3,)),
        (["tích cực", "giảng viên", "tích cực"], (0, 3)),
        ("tích cực | giảng viên", (0, 3)),
        ("giảng viên;học phí;tích cực", (0, 2, 3)),
        ("giảng viên, học phí", (0, 2)),
        ("phòng, máy", (1,)),  # a label itself
        ("phòng, máy|học phí", (1, 2)),
        ("['giảng viên', \"phòng, máy\"]", (0, 1)),  # a list in a CSV file, by pandas or by JSON
        ([0, 2], (0, 2)),
        (2, (2,)),
        ("0|2", (0, 2)),
        ("[0, 2]", (0, 2)),
        (None, None),
        (float("nan"), None),
        ([None], None),
        (["lạ"], None),
        ("giảng viên|lạ", None),
    ],
)
def test_a_cell_gives_the_ids_of_its_labels(cell: Any, ids: tuple[int, ...] | None) -> None:
    assert label_set_reader(label_reader(LABELS))(cell) == ids


@pytest.mark.parametrize(
    ("values", "separator"),
    [
        (["học phí|thầy cô", "thầy cô"], "|"),
        (["phòng, máy|học phí", "học phí", "phòng, máy"], "|"),
        (["học phí, thầy cô", "thầy cô, bài tập", "học phí"], ","),
        (["kinh tế, xã hội", "chính trị, xã hội", "thể thao"], None),  # one label each
        (["1,5", "2", "2,5", "1", "5"], None),
        (["0|1", "1"], "|"),
        (["khen", "chê"], None),
        (["học phí+thầy cô", "thầy cô", "học phí"], "+"),
    ],
)
def test_a_separator_is_seen_where_the_parts_recur(values: list[str], separator: str | None) -> None:
    assert separator_in(values) == separator


def test_a_separator_that_is_given_is_the_only_one() -> None:
    read = label_set_reader(label_reader(["a", "b, c", "d"]), " ")
    assert read("d a") == (0, 2)
    assert read("a|d") is None


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_every_format_gives_the_same_label_sets(tmp_path: Path, suffix: str) -> None:
    sets: list[list[str]] = [["tích cực", "giảng viên"], [], ["giảng viên", "phòng, máy", "học phí"]]
    cells = ["|".join(one) for one in sets] if suffix == "csv" else sets
    rows = [{"sentence": text, "nhãn": cell} for text, cell in zip(TEXTS, cells, strict=True)]
    split = load(write_rows(tmp_path / f"train.{suffix}", rows))
    assert [example.label for example in split.examples] == [(0, 3), (), (0, 1, 2)]
    assert split.label_sets(4).astype(int).tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]]
    assert split.notes == {}


def test_ids_have_the_names_that_the_user_gives_in_lists_and_in_texts(tmp_path: Path) -> None:
    rows = [{"sentence": TEXTS[0], "nhãn": [0, 1]}, {"sentence": TEXTS[1], "nhãn": "0|1"}]
    split = load(write_rows(tmp_path / "train.jsonl", rows), label_names=["tích cực", "học phí"])
    assert [example.label for example in split.examples] == [(2, 3), (2, 3)]


def test_ids_in_a_list_have_the_names_that_a_parquet_file_knows(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["tích cực", "học phí"])
    features = datasets.Features({"sentence": datasets.Value("string"), "nhãn": datasets.Sequence(names)})
    made = datasets.Dataset.from_dict({"sentence": TEXTS[:2], "nhãn": [[0], [0, 1]]}, features=features)
    made.to_parquet(str(tmp_path / "train.parquet"))
    made.save_to_disk(str(tmp_path / "saved" / "train"))
    for source in (tmp_path / "train.parquet", tmp_path / "saved"):
        assert [example.label for example in load(source).examples] == [(3,), (2, 3)]


def test_null_and_unknown_labels_are_told_by_row(tmp_path: Path) -> None:
    rows = [{"sentence": TEXTS[0], "nhãn": None}, {"sentence": TEXTS[1], "nhãn": ["lạ"]}]
    path = write_rows(tmp_path / "train.jsonl", [*rows, {"sentence": TEXTS[2], "nhãn": []}])
    with pytest.raises(DataError, match=r"row 1: no label in 'nhãn'(.|\n)*row 2: unknown label in 'nhãn' .*lạ"):
        load(path)
    with pytest.raises(DataError, match="row 2"):
        load(path, unlabelled="skip")


def test_a_text_conflicts_where_its_label_set_differs(tmp_path: Path) -> None:
    rows = [{"sentence": TEXTS[0], "nhãn": cell} for cell in (["học phí"], ["học phí", "tích cực"])]
    path = write_rows(tmp_path / "train.jsonl", [*rows, {"sentence": TEXTS[1], "nhãn": []}])
    split = load(path, drop_conflicts=True)
    assert [example.label for example in split.examples] == [()]
    assert split.notes == {"conflicting rows dropped": 2}
