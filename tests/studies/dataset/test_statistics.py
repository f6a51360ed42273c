"""What is said of a data source, against counts made by hand."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from helpers.data import sentences, write_rows
from transformers import tokenization_utils_base

from loraft.config.resolve import resolve
from loraft.data.checks import Duplicates
from loraft.data.dataset import Split
from loraft.data.records import Example
from loraft.display.page import cells
from loraft.errors import DataError, RunError
from loraft.models import load as encoders
from loraft.models.load import build_encoder
from loraft.runs.records import SCHEMA_VERSION
from loraft.runs.study_folders import DatasetFolder
from loraft.studies.dataset import statistics
from loraft.studies.dataset.records import CrossTable, DatasetStatistics
from loraft.studies.dataset.tables import conflict_total, data_notes, data_tables, shares

ROWS = {
    "train": [
        ("thầy dạy rất nhiệt tình và dễ hiểu .", 2, 0),
        ("thầy dạy rất nhiệt tình và dễ hiểu .", 2, 0),
        ("phòng học nóng , máy chiếu mờ .", 0, 2),
        ("phòng học nóng , máy chiếu mờ .", 1, 2),
        ("bình thường .", 1, 3),
        ("cô nên nói chậm hơn một chút để cả lớp kịp ghi bài .", 0, 0),
    ],
    "validation": [("bình thường .", 0, 3), ("tài liệu đầy đủ", 2, 1)],
    "test": [
        ("thầy dạy rất nhiệt tình và dễ hiểu .", 2, 0),
        ("thầy dạy rất nhiệt tình , và dễ hiểu", 2, 0),
        ("em không có ý kiến", 1, 3),
    ],
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "góp ý"
    folder.mkdir()
    for name, rows in ROWS.items():
        lines = [json.dumps({"sentence": s, "sentiment": a, "topic": b}, ensure_ascii=False) for s, a, b in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def describe(source: Path | str, output: Path, *overrides: str, **options: Any) -> DatasetStatistics:
    config = resolve(overrides=[f"output={output}", *overrides], flags={"data.source": str(source)})
    return statistics.describe(config, **options)


def test_shares_are_topic_by_sentiment_over_all_rows(source: Path, tmp_path: Path) -> None:
    found = describe(source, tmp_path)
    assert (found.rows, found.by, found.label_column) == (11, "topic", "sentiment")
    assert found.shares == CrossTable(
        rows=("lecturer", "training program", "facility", "others"),
        columns=("negative", "neutral", "positive"),
        counts=((1, 0, 4), (0, 0, 1), (1, 1, 0), (1, 2, 0)),
    )
    heads, rows = cells(shares(found))
    assert heads == ["topic / sentiment (%)", "negative", "neutral", "positive", "total"]
    assert rows[0] == ["lecturer", "9.09", "0.00", "36.36", "45.45"]  # 1, 0, 4 and 5 of 11
    assert rows[-1] == ["total", "27.27", "27.27", "45.45", "100.00"]


def test_the_other_task_is_set_against_its_topics_the_other_way_round(source: Path, tmp_path: Path) -> None:
    found = describe(source, tmp_path, "prompt.task=topic")
    assert found.by == "sentiment"
    assert np.array_equal(np.transpose(found.shares.counts), describe(source, tmp_path).shares.counts)


def test_splits_count_rows_and_labels(source: Path, tmp_path: Path) -> None:
    train, validation, test = describe(source, tmp_path).splits
    assert (train.rows, validation.rows, test.rows) == (6, 2, 3)
    assert train.labels == {"negative": 2, "neutral": 2, "positive": 2}
    assert validation.share == pytest.approx(2 / 11)


def test_every_split_and_every_pair_of_splits_is_checked(source: Path, tmp_path: Path) -> None:
    found = describe(source, tmp_path)  # the checks themselves are tested in tests/data/test_checks.py
    none = Duplicates(same=0, other=0)
    assert found.duplicates == {"train": Duplicates(same=1, other=1), "validation": none, "test": none}
    assert (found.conflicts.sentences, found.conflicts.rows) == (2, 4)
    pairs = {(leak.left, leak.right): (leak.exact, leak.near) for leak in found.leaks}
    assert pairs == {("train", "validation"): (1, 0), ("train", "test"): (1, 1), ("validation", "test"): (0, 0)}


def test_near_duplicates_are_left_out_on_request(source: Path, tmp_path: Path) -> None:
    found = describe(source, tmp_path, near=False)
    assert [(leak.exact, leak.near) for leak in found.leaks] == [(1, None), (1, None), (0, None)]
    assert any("not looked for" in row for table in data_tables(found) for row in cells(table)[1])


def test_rows_are_seen_whole_whatever_training_would_leave_out(source: Path, tmp_path: Path) -> None:
    overrides = ("data.drop_duplicates=true", "data.max_train_rows=2", "data.max_test_rows=1")
    assert describe(source, tmp_path, *overrides) == describe(source, tmp_path)


def test_shares_up_to_n_words_count_every_row_and_words_between_blanks(source: Path, tmp_path: Path) -> None:
    found = describe(source, tmp_path)
    counts = {name: [len(text.split()) for text, *_ in rows] for name, rows in ROWS.items()}
    counts["all"] = [n for of_split in counts.values() for n in of_split]
    assert found.words_up_to == {
        name: {n: sum(count <= n for count in of_split) / len(of_split) for n in (5, 10, 15, 20, 30)}
        for name, of_split in counts.items()
    }
    assert found.words_up_to["train"][5] == 1 / 6  # "bình thường ." alone has at most 5 words
    assert DatasetStatistics.of(DatasetFolder(Path(found.path))) == found  # JSON has text as keys


def test_lengths_are_in_words_and_quantiles_are_lengths_that_occur(source: Path, tmp_path: Path) -> None:
    found = describe(source, tmp_path)
    words = sorted(len(text.split()) for rows in ROWS.values() for text, *_ in rows)
    assert found.lengths["all"].longest == max(words) == 14
    assert found.lengths["all"].quantiles["50%"] == words[5]  # 6 of 11 rows are at most as long, 5 are not half of them
    assert found.lengths["all"].mean == pytest.approx(np.mean(words))
    assert found.longest[0].place.text.startswith("cô nên nói chậm hơn")
    assert found.longest[0].place.split == "train"


def test_tokens_are_those_of_the_prompts_that_training_sees(source: Path, tmp_path: Path) -> None:
    found = describe(source, tmp_path).tokens
    assert found is not None
    encoder = build_encoder(resolve())
    text = "cô nên nói chậm hơn một chút để cả lớp kịp ghi bài ."
    longest = len(encoder.encode([text])[0].ids) + max(map(len, encoder.completions_K))
    assert (found.longest[0].place.text, found.longest[0].prompt) == (text, longest)
    assert found.prompt.longest == longest
    assert found.sentence.longest == len(encoder.tokenizer(text, add_special_tokens=False)["input_ids"])
    assert found.shortened == 0
    short = describe(source, tmp_path, f"prompt.max_length={longest - 1}").tokens
    assert short is not None
    assert (short.shortened, short.prompt.longest) == (1, longest - 1)


def test_without_the_backbones_tokenizer_the_rest_is_described(source: Path, tmp_path: Path) -> None:
    found = describe(source, tmp_path, "model.name=owner/backbone")  # the tests are offline
    assert found.tokens is None
    (note,) = found.notes
    assert note.startswith("lengths in tokens are not measured: ")
    assert "owner/backbone" in note
    assert note in data_notes(found)
    assert cells(data_tables(found)[-1])[0][1] == "words"


def test_tokens_can_be_left_out(source: Path, tmp_path: Path) -> None:
    found = describe(source, tmp_path, tokens=False)
    assert (found.tokens, found.notes) == (None, ())


def test_figures_4_and_5_and_the_numbers_lie_in_the_folder(source: Path, tmp_path: Path) -> None:
    found = describe(source, tmp_path)
    folder = tmp_path / "data-góp ý-sentiment"
    assert found.path == str(folder)
    assert {path.name for path in (folder / "plots").iterdir()} == {
        "lengths_by_sentiment.png", "lengths_by_topic.png"
    }  # fmt: skip
    assert DatasetStatistics.of(DatasetFolder(folder)) == found


def test_one_file_is_one_split_and_a_table_without_a_second_column(tmp_path: Path) -> None:
    path = tmp_path / "khảo sát.csv"
    path.write_text("sentence,sentiment\nthầy tốt,positive\nphòng nóng,negative\n", encoding="utf-8")
    found = describe(path, tmp_path)
    assert [split.name for split in found.splits] == ["train"]
    assert (found.by, found.leaks) == (None, ())
    assert cells(shares(found))[1] == [["total", "50.00", "0.00", "50.00", "100.00"]]
    assert len(data_tables(found)) == 5  # nothing to say of leaks and conflicts
    (note,) = found.notes
    assert note.startswith(f"no validation and no test split: {path}: one file holds one split")
    assert note.endswith("; --set 'data.split=[0.8, 0.1, 0.1]' draws what is missing from the train split")


def test_a_folder_without_a_validation_split_is_described(source: Path, tmp_path: Path) -> None:
    (source / "validation.jsonl").unlink()
    found = describe(source, tmp_path)
    assert [split.name for split in found.splits] == ["train", "test"]
    (note,) = found.notes
    assert note == f"no validation split: {source}: no file for split validation (got test.jsonl, train.jsonl);" + (
        " --set 'data.split=[0.9, 0.1, 0]' draws what is missing from the train split"
    )


def test_a_hub_source_without_a_test_split_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, *, split: str, **arguments: Any) -> datasets.Dataset:
        if split == "test":
            raise ValueError("Unknown split \"test\". Should be one of ['train', 'validation'].")
        return datasets.Dataset.from_list([{"sentence": s, "sentiment": a, "topic": b} for s, a, b in ROWS[split]])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = describe("owner/gop-y", tmp_path, tokens=False, near=False)
    assert [split.rows for split in found.splits] == [6, 2]
    assert found.notes[0].startswith("no test split: hub owner/gop-y, split test: cannot be loaded (Unknown split")


def test_a_source_without_any_of_the_splits_is_refused(source: Path, tmp_path: Path) -> None:
    for name in ROWS:
        (source / f"{name}.jsonl").rename(source / f"{name}-cũ.jsonl")
    with pytest.raises(DataError, match="no file for split train"):
        describe(source, tmp_path)


def test_a_split_that_cannot_be_read_is_not_taken_for_a_missing_one(source: Path, tmp_path: Path) -> None:
    (source / "test.jsonl").write_text('{"sentence": "hay", "sentiment": "tốt"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="unknown label"):
        describe(source, tmp_path)


def test_what_was_left_out_on_reading_and_the_conflicts_are_told(source: Path, tmp_path: Path) -> None:
    with (source / "test.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"sentence": " ", "sentiment": 1, "topic": 1}\n')
    found = describe(source, tmp_path)
    assert data_notes(found) == ["train: 1 duplicate rows", "test: 1 blank rows skipped"]
    assert conflict_total(found) == "sentences with several labels: 2, in 4 rows"


def test_two_sources_of_one_name_do_not_share_a_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = describe(source, tmp_path, tokens=False)
    other = tmp_path / "khác" / source.name
    shutil.copytree(source, other)
    with pytest.raises(DataError, match=r"describes another source \(got .*góp ý\); --force replaces it, --set name="):
        describe(other, tmp_path)
    assert describe(other, tmp_path, "name=khác-ý", tokens=False).path == str(tmp_path / "khác-ý")
    monkeypatch.chdir(tmp_path)
    assert describe("góp ý/", tmp_path, tokens=False).path == first.path  # the same source, written otherwise
    (tmp_path / "chạy").mkdir()
    (tmp_path / "chạy" / "config.yaml").touch()
    with pytest.raises(DataError, match="chạy: a run or a study is there"):
        describe(source, tmp_path, "name=chạy")
    assert [path.name for path in (tmp_path / "chạy").iterdir()] == ["config.yaml"]
    assert describe(other, tmp_path, tokens=False, near=False, force=True).source == str(other)


def test_splits_that_are_drawn_otherwise_do_not_share_a_folder(tmp_path: Path) -> None:
    names = ("negative", "neutral", "positive")
    rows = [{"sentence": text, "sentiment": names[i % 3]} for i, text in enumerate(sentences(30))]
    path = write_rows(tmp_path / "góp ý.csv", rows)
    fast: dict[str, Any] = {"tokens": False, "near": False}
    assert describe(path, tmp_path, **fast).drawn is None
    with pytest.raises(DataError, match=r"other splits of the source \(got its own then, data\.split=\[0\.8.*--force"):
        describe(path, tmp_path, "data.split=[0.8, 0.1, 0.1]", **fast)
    found = describe(path, tmp_path, "data.split=[0.8, 0.1, 0.1]", force=True, **fast)
    assert found.drawn == "data.split=[0.8, 0.1, 0.1], data.split_seed=42"
    assert describe(path, tmp_path, "data.split=[0.8, 0.1, 0.1]", **fast) == found


def test_any_column_can_be_set_against_the_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "sentence,sentiment,khoa\nthầy tốt,positive,CNTT\nphòng nóng,negative,Toán\nổn,neutral,CNTT\n", encoding="utf-8"
    )
    found = describe(path, tmp_path, by="khoa")
    assert (found.shares.rows, found.shares.counts) == (("CNTT", "Toán"), ((0, 1, 1), (1, 0, 0)))
    assert (tmp_path / "data-a.csv-sentiment" / "plots" / "lengths_by_khoa.png").exists()
    with pytest.raises(DataError, match=r"--by: no column 'lớp' in 3 rows \(got khoa\)"):
        describe(path, tmp_path, by="lớp")


def extras(*values: object) -> Split:
    """Rows with the column "topic", and with the column "lớp"."""
    rows = (Example(f"câu {n}", 0, n, {"topic": value, "lớp": value}) for n, value in enumerate(values, start=1))
    return Split("train", tuple(rows), "a.csv")


def test_values_of_a_tasks_column_are_its_labels_or_their_ids() -> None:
    topics = resolve(flags={"prompt.task": "topic"}).prompt.labels
    column, names, ids = statistics.second_column(resolve(), [extras(" 1 ", "lecturer"), extras(3)], None)
    assert (column, names, ids.tolist()) == ("topic", topics, [1, 0, 3])
    # Any other value makes it a column like others: its values are sorted and none is an id.
    column, names, ids = statistics.second_column(resolve(), [extras("1", "lecturer", "khác")], None)
    assert (column, names, ids.tolist()) == ("topic", ["1", "khác", "lecturer"], [0, 2, 1])
    column, names, ids = statistics.second_column(resolve(), [extras("1", "0")], "lớp")
    assert (names, ids.tolist()) == (["0", "1"], [1, 0])


def test_a_column_with_too_many_values_is_refused() -> None:
    many = [extras(*range(50))]
    assert len(statistics.second_column(resolve(), many, "lớp")[1]) == 50
    with pytest.raises(DataError, match=r"--by: 'lớp' has 51 values \(got for example '0'\).* up to 50"):
        statistics.second_column(resolve(), [extras(*range(51))], "lớp")


def test_tokens_that_control_a_chat_are_counted_as_the_text_that_they_are_in_a_sentence() -> None:
    rows = (Example("một <|eot_id|> hai", 0, 1), Example("một hai", 0, 2))
    plain, longer = statistics.prompt_tokens(resolve(), [Split("train", rows, "a.csv")]).longest[::-1]
    assert (plain.place.row, longer.place.row) == (2, 1)
    assert longer.tokens > plain.tokens + 1
    assert longer.prompt - plain.prompt == longer.tokens - plain.tokens


def test_the_longest_rows_by_tokens_are_those_with_the_longest_sentences_also_where_prompts_are_shortened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # No library says that a sentence is too long for the tokenizer.
    monkeypatch.setattr(tokenization_utils_base.logger, "warning", lambda *said: pytest.fail(str(said)))
    load = encoders.load_tokenizer

    def limited(*given: Any) -> Any:
        tokenizer = load(*given)
        tokenizer.model_max_length = 30
        return tokenizer

    monkeypatch.setattr(encoders, "load_tokenizer", limited)
    rows = tuple(Example("từ " * n, 0, n) for n in (40, 60, 50))
    found = statistics.prompt_tokens(resolve(overrides=["prompt.max_length=120"]), [Split("train", rows, "a.csv")])
    assert [row.place.row for row in found.longest] == [60, 50, 40]
    assert found.shortened == 3
    assert 0 < found.cut < 1


def test_counts_of_two_columns_add_up_rows_that_are_alike() -> None:
    found = statistics.cross_table(np.array([1, 1, 0, 1]), ["a", "b"], np.array([2, 2, 0, 1]), ["x", "y", "z"])
    assert found == CrossTable(("a", "b"), ("x", "y", "z"), ((1, 0, 0), (0, 1, 2)))


@pytest.mark.parametrize("config_file", ["config.yaml", "sweep.yaml", "fewshot.yaml"])
def test_the_folder_of_a_run_or_a_study_is_left_alone(tmp_path: Path, config_file: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / config_file).touch()
    with pytest.raises(DataError, match="a: a run or a study is there; --set name=NAME names another folder"):
        statistics.folder_of(resolve(overrides=[f"output={tmp_path}", "name=a"]))


def test_statistics_of_a_later_version_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    content = {"source": "feedback", "schema_version": SCHEMA_VERSION + 1}
    (tmp_path / "a" / "data.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunError, match=r"a/data\.json: .* later version"):
        statistics.folder_of(resolve(overrides=[f"output={tmp_path}", "name=a"]))


def test_sentences_with_brackets_are_text_in_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("sentence,sentiment\n[/b] thầy [red]tốt,positive\n", encoding="utf-8")
    assert cells(data_tables(describe(path, tmp_path))[-1])[1][0][-1] == "[/b] thầy [red]tốt"


@pytest.mark.skipif("LORAFT_VSFC" not in os.environ, reason="LORAFT_VSFC does not name the folder of UIT-VSFC")
def test_table_1_of_the_real_corpus(tmp_path: Path) -> None:
    found = describe(os.environ["LORAFT_VSFC"], tmp_path, near=False)
    assert found.rows == 16_175
    assert [split.rows for split in found.splits] == [11_426, 1_583, 3_166]
    _, rows = cells(shares(found))
    # Published: positive 49.69, negative 45.99, neutral 4.32; the topics' totals in this order.
    assert rows[-1] == ["total", "45.99", "4.32", "49.69", "100.00"]
    assert [(row[0], row[-1]) for row in rows[:-1]] == [
        ("lecturer", "71.76"), ("training program", "18.79"), ("facility", "4.40"), ("others", "5.04")
    ]  # fmt: skip
    assert rows[0][1:4] == ["25.38", "1.81", "44.57"]
