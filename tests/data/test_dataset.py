"""Labelled splits: equal in every format, checked row by row, with everything left out counted."""

import hashlib
import json
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from helpers.data import LABELS, ROWS, TEXTS, load, write_rows

from loraft.config.data_section import DataConfig
from loraft.config.resolve import resolve
from loraft.data import dataset
from loraft.data.dataset import ADDED, Split, SplitSummary, load_data, load_split, training_splits, warn_of_notes
from loraft.data.records import Example
from loraft.errors import DataError, Note
from loraft.runs.atomic_files import write_text


def train_csv(folder: Path, content: str) -> Path:
    path = folder / "train.csv"
    path.write_text(content, encoding="utf-8")
    return path


# --- splits and labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_a_split_is_the_same_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = write_rows(tmp_path / f"train{suffix}")
    split = load(tmp_path)
    assert (split.texts, split.labels.tolist()) == (TEXTS, [2, 0, 1])
    assert (split.name, split.summary) == ("train", SplitSummary(str(path), 3, {}))
    assert list(split.examples[0].extra) == ["topic"]
    write_rows(tmp_path / "validation.jsonl")
    assert split.fingerprint == load(tmp_path, "validation").fingerprint


def test_the_fingerprint_changes_with_a_text_a_label_and_the_order(tmp_path: Path) -> None:
    changed = [{**ROWS[0], "sentence": "khác"}, *ROWS[1:]], [{**ROWS[0], "sentiment": 1}, *ROWS[1:]], ROWS[::-1]
    paths = [write_rows(tmp_path / f"{i}.jsonl", rows) for i, rows in enumerate([ROWS, *changed])]
    assert len({load(path).fingerprint for path in paths}) == 4


def test_splits_can_be_renamed_and_can_be_files(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "gold.csv")
    assert load(tmp_path, "test", test_split="gold").name == "test"
    assert len(load("feedback", "test", test_split=str(path))) == 3
    assert load("feedback", path).name == str(path)
    assert len(load(tmp_path, "gold")) == 3


def test_another_task_reads_its_own_column(tmp_path: Path) -> None:
    topics = ["lecturer", "training program", "facility", "others"]
    write_rows(tmp_path / "train.csv")
    assert load(tmp_path, labels=topics, label_column="topic").labels.tolist() == [0, 2, 3]


def test_the_configs_label_column_comes_before_the_tasks(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", [{"sentence": "hay", "nhãn": 2, "sentiment": 0}])
    section = DataConfig(source=str(tmp_path), label_column="nhãn")
    assert load_split(section, "train", labels=LABELS, label_column="sentiment").labels.tolist() == [2]


def test_a_config_gives_task_columns_and_the_limit_of_each_split(tmp_path: Path) -> None:
    topics = ["lecturer", "training program", "facility", "others"]
    for name in ("train", "validation", "test", "extra"):
        write_rows(tmp_path / f"{name}.csv", [{"câu": f"câu {i}", "topic": topics[i % 4]} for i in range(9)])
    limits = ["data.max_train_rows=3", "data.max_eval_rows=4", "data.max_test_rows=5"]
    overrides = ["prompt.task=topic", f"data.source={tmp_path}", "data.text_column=câu", *limits]
    config = resolve(overrides=overrides)
    splits = training_splits(config)
    assert {name: (split.name, len(split)) for name, split in splits.items()} == {
        "train": ("train", 3), "validation": ("validation", 4), "test": ("test", 5)
    }  # fmt: skip
    assert len(load_data(config, "extra")) == 9
    assert splits["train"].labels.tolist() == [0, 3, 2]  # rows 0, 3 and 6


def test_ids_of_other_data_never_take_the_names_of_a_shipped_task(tmp_path: Path) -> None:
    # Of this set 0 is positive: read as UIT-VSFC's ids, the labels would be reversed.
    write_rows(tmp_path / "train.csv", [{"sentence": "thầy dạy hay", "label": 0}, {"sentence": "dở", "label": 1}])
    own = [f"data.source={tmp_path}", "data.label_column=label"]
    with pytest.raises(
        DataError, match=r"a number that does not say which label it means in 'label' \(got '0'\)"
    ) as told:
        load_data(resolve(overrides=own), "train")
    assert "--set 'data.label_names=[NAME OF 0, NAME OF 1, ...]'" in str(told.value)
    assert str(told.value).endswith(f"or write a task for these labels: loraft task new --data {tmp_path}")
    assert "ids 0 to" not in str(told.value)
    named = resolve(overrides=[*own, "data.label_names=[positive, negative]"])
    assert load_data(named, "train").labels.tolist() == [2, 0]
    assert named.data.label_names == ["positive", "negative"]


def test_ids_of_the_bundled_layout_and_of_the_users_own_labels_count(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv")  # UIT-VSFC's columns: sentence, sentiment, topic
    assert load_data(resolve(flags={"data.source": str(tmp_path)}), "train").labels.tolist() == [2, 0, 1]
    write_rows(tmp_path / "train.csv", [{"sentence": "hay", "sentiment": 1}, {"sentence": "dở", "sentiment": 0}])
    own = resolve(overrides=["prompt.labels=[negative, positive]"], flags={"data.source": str(tmp_path)})
    assert own.prompt.id_columns is None
    assert load_data(own, "train").labels.tolist() == [1, 0]


# --- rows that are left out, and counted ------------------------------------------------------------------------------


def test_blank_rows_are_skipped_and_counted_whatever_their_label(tmp_path: Path) -> None:
    split = load(train_csv(tmp_path, "sentence,sentiment\n  ,2\n\n,\nhay,2\n,\n"))
    assert (split.texts, split.notes) == (["hay"], {"blank rows skipped": 2})


def test_duplicates_are_counted_and_dropped_only_on_request_and_only_from_train(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0], {**ROWS[0], "sentiment": 0}]
    write_rows(tmp_path / "train.csv", rows)
    write_rows(tmp_path / "test.csv", rows)
    assert (len(load(tmp_path)), load(tmp_path).notes) == (5, {"duplicate rows": 1})
    dropped = load(tmp_path, drop_duplicates=True)
    assert [example.row for example in dropped.examples] == [1, 2, 3, 5]
    assert dropped.notes == {"duplicate rows dropped": 1}
    test = load(tmp_path, "test", drop_duplicates=True)
    assert (len(test), test.notes) == (5, {"duplicate rows": 1})


def test_decomposed_and_composed_text_are_duplicates(tmp_path: Path) -> None:
    text = "thầy giảng rất nhiệt tình"
    rows = [{"sentence": unicodedata.normalize(form, text), "sentiment": 2} for form in ("NFC", "NFD")]
    split = load(write_rows(tmp_path / "train.csv", rows), drop_duplicates=True)
    assert (split.texts, split.notes) == ([text], {"duplicate rows dropped": 1})


NONE_TASK = ["none", "nan", "khen"]
# One row with the label "none" as a word, and rows without a label, as each format writes them.
UNLABELLED_FILES = {
    "train.jsonl": '{"sentence": "a", "sentiment": "None"}\n{"sentence": "b", "sentiment": null}\n'
    '{"sentence": "c", "sentiment": NaN}\n{"sentence": "d"}\n',
    "train.json": '[{"sentence": "a", "sentiment": "None"}, {"sentence": "b", "sentiment": null},'
    ' {"sentence": "c", "sentiment": NaN}, {"sentence": "d", "sentiment": ""}]',
    "train.csv": "sentence,sentiment\na,None\nb,\nc,\nd, \n",
    "train.tsv": 'sentence\tsentiment\na\tNone\nb\t\nc\t""\nd\t\n',
}


def unlabelled_file(folder: Path, name: str) -> Path:
    path = folder / name
    if name in UNLABELLED_FILES:
        path.write_text(UNLABELLED_FILES[name], encoding="utf-8")
    elif name == "words.parquet":
        pyarrow.parquet.write_table(pyarrow.table({"sentence": [*"abcd"], "sentiment": ["None", None, None, ""]}), path)
    elif name == "floats.parquet":  # a column of ids with gaps, as pandas writes it
        ids = pyarrow.array([0.0, float("nan"), None, float("nan")])
        pyarrow.parquet.write_table(pyarrow.table({"sentence": [*"abcd"], "sentiment": ids}), path)
    else:
        features = datasets.Features(
            {"sentence": datasets.Value("string"), "sentiment": datasets.ClassLabel(names=NONE_TASK)}
        )
        columns = {"sentence": [*"abcd"], "sentiment": [0, -1, None, -1]}
        datasets.Dataset.from_dict(columns, features=features).to_parquet(str(path))
    return path


@pytest.mark.parametrize("name", [*UNLABELLED_FILES, "words.parquet", "floats.parquet", "datasets.parquet"])
def test_a_row_without_label_is_refused_or_counted_and_never_the_label_none(tmp_path: Path, name: str) -> None:
    path = unlabelled_file(tmp_path, name)
    with pytest.raises(DataError) as error:
        load(path, labels=NONE_TASK)
    refused = [line for line in str(error.value).splitlines() if ": no label" in line]
    assert [line.split(":")[0] for line in refused] == [f"{path} row {row}" for row in (2, 3, 4)]
    assert str(error.value).endswith("or data.unlabelled=skip")
    split = load(path, labels=NONE_TASK, unlabelled="skip")
    assert (split.texts, split.labels.tolist()) == (["a"], [0])
    assert split.notes == {"unlabelled rows skipped": 3}


def test_skipping_unlabelled_rows_is_not_advised_where_no_row_would_be_left(tmp_path: Path) -> None:
    first, second = {"sentence": "hay"}, {"sentence": "dở"}
    for rows, skipping in (
        ([first, second], False),  # no such column
        ([{**first, "sentiment": None}, second], False),
        ([{**first, "sentiment": "0"}, second], True),
        ([{**first, "sentiment": "lạ"}, second], True),
    ):
        with pytest.raises(DataError, match=": no label") as error:
            load(write_rows(tmp_path / "train.jsonl", rows))
        assert ("data.unlabelled=skip" in str(error.value)) == skipping, rows


def test_a_source_without_any_label_is_refused_with_the_column(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", [{"sentence": "hay", "sentimen": 1}] * 2)
    with pytest.raises(DataError, match=r"got 2 unlabelled rows\); .* data.label_column \(now 'sentiment'\)"):
        load(path, unlabelled="skip")


@pytest.mark.parametrize("limit", [1, 2, 7, 10, 11])
def test_a_limit_keeps_so_many_rows_in_order_and_all_parts_of_a_sorted_file(tmp_path: Path, limit: int) -> None:
    path = write_rows(tmp_path / "train.csv", [{"sentence": f"câu {i}", "sentiment": i // 5} for i in range(10)])
    split = load(path, limit=limit)
    rows = [example.row for example in split.examples]
    assert len(rows) == min(limit, 10)
    assert rows == sorted(set(rows))
    assert limit == 1 or set(split.labels.tolist()) == {0, 1}
    assert split.notes == ({"rows left out by the limit": 10 - limit} if limit < 10 else {})


def test_a_limit_counts_the_rows_that_are_left_after_duplicates(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.csv", [ROWS[0], *ROWS])
    split = load(path, limit=3, drop_duplicates=True)
    assert (split.texts, split.notes) == (TEXTS, {"duplicate rows dropped": 1})


# --- what is reported of a split --------------------------------------------------------------------------------------


@pytest.fixture
def nothing_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_reported", set())


def said(*splits: Split) -> list[tuple[type[Warning], str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_notes(splits)
    return [(one.category, str(one.message)) for one in caught]


def split_of(rows: int, name: str = "test", source: str = "a.csv", **notes: int) -> Split:
    words = {what.replace("_", " "): number for what, number in notes.items()}
    return Split(name, (Example("hay", 0, 1),) * rows, source, words)


@pytest.mark.usefixtures("nothing_reported")
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("train", " (data.max_train_rows)"), ("validation", " (data.max_eval_rows)"),
        ("test", " (data.max_test_rows)"), ("gold", ""),
    ],
)  # fmt: skip
def test_a_limit_is_a_note_with_both_numbers_and_its_key(name: str, key: str) -> None:
    split = split_of(1725, name, rows_left_out_by_the_limit=1441)
    assert said(split) == [(Note, f"using 1,725 of 3,166 {name} rows{key}")]


@pytest.mark.usefixtures("nothing_reported")
def test_other_notes_are_a_warning_with_the_source() -> None:
    split = split_of(2, duplicate_rows=1234, rows_left_out_by_the_limit=5, blank_rows_skipped=2)
    assert said(split) == [
        (UserWarning, "a.csv: 1,234 duplicate rows, 2 blank rows skipped"),
        (Note, "using 2 of 7 test rows (data.max_test_rows)"),
    ]


@pytest.mark.usefixtures("nothing_reported")
def test_what_a_setting_skips_or_drops_is_a_note() -> None:
    split = split_of(2, unlabelled_rows_skipped=1, blank_rows_skipped=2, conflicting_rows_dropped=3)
    assert said(split) == [
        (UserWarning, "a.csv: 2 blank rows skipped"),
        (Note, "a.csv: 1 unlabelled rows skipped, 3 conflicting rows dropped"),
    ]


@pytest.mark.usefixtures("nothing_reported")
def test_the_same_notes_of_a_source_are_reported_once() -> None:
    first, other = split_of(1, duplicate_rows=1), split_of(1, source="b.csv", duplicate_rows=1)
    assert len(said(first, first, other)) == 2
    assert said(first, other) == []
    assert len(said(split_of(1, duplicate_rows=2))) == 1


@pytest.mark.usefixtures("nothing_reported")
def test_a_split_without_notes_is_not_reported() -> None:
    assert said(split_of(1)) == []


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no column 'sentence'"),
        ("sentence,sentiment\n", r"no row with text and label \(got an empty source\)"),
        ("sentence,sentiment\n ,1\n,2\n", r"no row with text and label \(got 2 blank rows\)"),
    ],
)
def test_a_split_without_rows_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"train\.csv: {message}"):
        load(train_csv(tmp_path, content))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_missing_column_is_refused_with_the_most_similar_one(tmp_path: Path, suffix: str) -> None:
    path = write_rows(tmp_path / f"train{suffix}", [{"Sentences": "hay", "sentiment": 1}])
    with pytest.raises(DataError, match=r"no column 'sentence'.*did you mean 'Sentences'\?(.|\n)*data\.text_column"):
        load(path)
    path = write_rows(path, [{"sentence": "hay", "sentimen": 1}])
    with pytest.raises(DataError, match=r"no column 'sentiment'.*did you mean 'sentimen'\?(.|\n)*data\.label_column"):
        load(path)


@pytest.mark.parametrize("value", [3, "tốt", True])
def test_unknown_labels_are_refused_with_file_row_and_what_is_allowed(tmp_path: Path, value: Any) -> None:
    path = write_rows(tmp_path / "train.jsonl", [ROWS[0], {"sentence": "hay", "sentiment": value}])
    with pytest.raises(DataError) as error:
        load(path)
    assert f"{path} row 2: unknown label in 'sentiment' (got {value!r})" in str(error.value)
    assert "allowed labels are negative, neutral, positive, or ids 0 to 2;" in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"sentence": "hay", "sentiment": 1}\n["hay", 1]\n', "row 2: not a JSON object"),
        ('{"sentence": 5, "sentiment": 1}\n', "row 1: 'sentence' is not text"),
        ('\n{"sentence": "\\ud800", "sentiment": 1}\n', "row 1: holds half of a surrogate pair"),
    ],
)
def test_unreadable_rows_are_refused_with_file_and_row(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"train\.jsonl {reason}"):
        load(path)


@pytest.mark.parametrize(("bad", "more"), [(5, []), (8, ["... and 3 more such rows"])])
def test_the_first_five_bad_rows_are_named_and_the_rest_counted(tmp_path: Path, bad: int, more: list[str]) -> None:
    path = write_rows(tmp_path / "train.csv", [ROWS[0], *[{**ROWS[0], "sentiment": "?"}] * bad])
    with pytest.raises(DataError) as error:
        load(path)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines[:5]] == [f"{path} row {row}" for row in range(2, 7)]
    assert lines[5:-1] == more


def test_half_of_many_validation_rows_are_set_aside_label_by_label(tmp_path: Path) -> None:
    rows = [
        {
            "sentence": f"{hashlib.md5(bytes([n % 256, n // 256])).hexdigest()} ạ",
            "sentiment": ("negative", "neutral", "positive")[n % 3],
        }
        for n in range(600)
    ]
    for name, content in {"train": rows, "validation": rows[:300], "test": rows[300:]}.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)), encoding="utf-8")

    def splits(*overrides: str) -> dict[str, Split]:
        return training_splits(resolve(overrides=[f"data.source={tmp_path}", *overrides]))

    found = splits()
    kept, aside = found["validation"], found["calibration"]
    assert Counter(kept.labels.tolist()) == Counter(aside.labels.tolist()) == {0: 50, 1: 50, 2: 50}
    assert sorted([*kept.texts, *aside.texts]) == sorted(row["sentence"] for row in rows[:300])
    assert kept.notes == {"rows set aside for calibration (data.calibration_share)": 150}
    assert (
        splits()["calibration"].fingerprint
        == aside.fingerprint
        != splits("data.split_seed=1")["calibration"].fingerprint
    )
    assert len(splits("data.calibration_share=0.2")["calibration"]) == 60
    assert "calibration" not in splits("data.calibration_share=0")
    assert "calibration" not in splits("data.max_eval_rows=199")
    assert "calibration" not in splits("data.fold=1/2")


# --- further training rows --------------------------------------------------------------------------------------------


@pytest.fixture
def with_extra_rows(tmp_path: Path) -> Callable[..., dict[str, Split]]:
    """Loads the splits of a folder and of a labelled file beside it; the folder's own files have semicolons."""
    for name in ("train", "validation", "test"):
        rows = [f"{name} {text};{LABELS[row['sentiment']]}" for text, row in zip(TEXTS, ROWS, strict=True)]
        write_text(tmp_path / "a" / f"{name}.csv", "\n".join(["sentence;sentiment", *rows]))
    extra = ["câu mới,positive", "câu chờ nhãn,", f"train {TEXTS[0]},positive", f"test {TEXTS[1]},negative"]
    write_text(tmp_path / "thêm.csv", "\n".join(["sentence,sentiment", *extra]))

    def load_all(*overrides: str) -> dict[str, Split]:
        given = [f"data.source={tmp_path}/a", "data.delimiter=;", f"data.extra_train=[{tmp_path}/thêm.csv]"]
        return training_splits(resolve(overrides=[*given, *overrides]))

    return load_all


def test_further_rows_are_trained_on_and_nothing_is_measured_on_them(
    with_extra_rows: Callable[..., dict[str, Split]],
) -> None:
    found, without = with_extra_rows(), with_extra_rows("data.extra_train=[]")
    assert [*found["train"].texts][:3] == [*without["train"].texts]
    assert [*found["train"].texts][3:] == ["câu mới", f"train {TEXTS[0]}", f"test {TEXTS[1]}"]
    assert found["train"].examples.rows.tolist() == [1, 2, 3, 4, 6, 7]  # through both files; 5 waits for a label
    assert found["train"].notes == {ADDED: 3, "unlabelled rows skipped": 1, "duplicate rows": 1}
    assert found["train"].source == without["train"].source
    for name in ("validation", "test"):
        assert found[name] == without[name]
    assert len(with_extra_rows("data.max_train_rows=1")["train"]) == 4  # the limit is one of the source's own rows


def test_further_rows_are_dropped_like_all_training_rows(with_extra_rows: Callable[..., dict[str, Split]]) -> None:
    train = with_extra_rows("data.drop_leaked=true", "data.drop_duplicates=true")["train"]
    assert [*train.texts] == [*with_extra_rows("data.extra_train=[]")["train"].texts, "câu mới"]
    dropped = {"rows of validation or test dropped": 1, "duplicate rows dropped": 1}
    assert train.notes == {ADDED: 3, "unlabelled rows skipped": 1, **dropped}


def test_further_rows_are_in_no_fold(with_extra_rows: Callable[..., dict[str, Split]], tmp_path: Path) -> None:
    write_text(
        tmp_path / "a" / "train.csv",
        "\n".join(["sentence;sentiment", *(f"câu {i};{LABELS[i % 3]}" for i in range(60))]),
    )
    texts = {name: [*split.texts] for name, split in with_extra_rows("data.fold=1/3").items()}
    assert texts["train"][-3:] == ["câu mới", f"train {TEXTS[0]}", f"test {TEXTS[1]}"]
    assert "câu mới" not in [*texts["validation"], *texts["test"]]


def test_further_rows_that_are_named_twice_are_read_once(
    with_extra_rows: Callable[..., dict[str, Split]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink("thêm.csv", "nữa.csv")
    named = f"data.extra_train=[thêm.csv, ./thêm.csv, {tmp_path}/a/../thêm.csv, nữa.csv]"
    assert with_extra_rows(named)["train"] == with_extra_rows()["train"]


def test_further_rows_in_another_encoding_are_to_be_saved_as_utf_8(
    with_extra_rows: Callable[..., dict[str, Split]], tmp_path: Path
) -> None:
    (tmp_path / "thêm.csv").write_bytes("sentence,sentiment\nphòng nóng,negative\n".encode("cp1258", "replace"))
    with pytest.raises(DataError, match="not valid UTF-8; save the file as UTF-8\n") as error:
        with_extra_rows()
    assert "data.encoding" not in str(error.value)


def test_another_source_has_further_rows_of_its_own(tmp_path: Path) -> None:
    base = resolve(overrides=["data.extra_train=[thêm.csv]"])
    assert resolve(base=base, flags={"data.source": "feedback"}).data.extra_train == ["thêm.csv"]
    assert resolve(base=base, flags={"data.source": "khác.csv"}).data.extra_train == []
