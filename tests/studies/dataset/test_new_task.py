"""The task file that is written for a data source: it resolves, names every label, and is in the texts' language."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.data import write_rows

from loraft.config.resolve import resolve
from loraft.config.schema import PromptConfig
from loraft.data.dataset import load_data
from loraft.errors import DataError
from loraft.studies.dataset.new_task import label_words, task_text, train_command
from loraft.studies.dataset.overview import Overview, survey


def overview(folder: Path, *labels: str | int, text: str = "Máy chạy nóng", column: str = "loại") -> Overview:
    rows = [{"câu": f"{text} {i}", column: label} for label in labels for i in range(2)]
    return survey(resolve(flags={"data.source": str(write_rows(folder / "a.csv", rows))}))


def written(found: Overview, folder: Path, language: str | None = None) -> PromptConfig:
    path = folder / "task.yaml"
    path.write_text(task_text(found, language=language or found.language, train="loraft train"), encoding="utf-8")
    return resolve(flags={"prompt.task": str(path)}).prompt


def test_a_task_file_is_short_and_resolves_to_a_whole_prompt_in_the_texts_language(tmp_path: Path) -> None:
    found = overview(tmp_path, "khen", "lỗi")
    text = task_text(found, language="vi", train="loraft train --task task.yaml")
    assert text.startswith(
        "# loraft train --task task.yaml\n\n# The labels as the data has them, with their rows: khen (2), lỗi (2).\n"
    )
    assert [line.split(":")[0] for line in text.splitlines() if line[:1] not in ("", "#", " ")] == [
        "labels", "label_words", "label_column", "template"
    ]  # fmt: skip
    prompt = written(found, tmp_path)
    assert (prompt.labels, prompt.label_column) == (["khen", "lỗi"], "loại")
    assert '"khen" hoặc "lỗi"' in str(prompt.template)
    assert (prompt.answer_prefix, str(prompt.example_template)) == ("Loại: ", "Văn bản: {input}\nLoại: {label}\n")
    english = written(found, tmp_path, "en")
    assert '"khen" or "lỗi"' in str(english.few_shot_template)
    assert english.answer_prefix == "Label: "


@pytest.mark.parametrize(
    "labels",
    [
        ["yes", "no", "null"],
        ["1e3", "0o7", "1:30"],
        ["a: b", "#c", "'d", '"e"', "{f}"],
        ["off", "- g", "\\h"],
        [3, 1, 12],
    ],
)
def test_the_labels_are_the_datas_whatever_yaml_makes_of_such_words(tmp_path: Path, labels: list[str | int]) -> None:
    found = overview(tmp_path, *labels)
    assert set(written(found, tmp_path).labels or []) == {str(label) for label in labels}
    given = ["data.text_column=câu", "data.split=x"][:1]
    config = resolve(overrides=given, flags={"data.source": found.source, "prompt.task": str(tmp_path / "task.yaml")})
    assert sorted(load_data(config, "train").labels.tolist()) == sorted([*range(len(labels))] * 2)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            {"column": "c\x1b[2J<b>ột|"},
            r"column's name holds a control character, .* \(got 'c\\x1b\[2J<b>ột\|'\); rename the header",
        ),
        ({"text_column": "c\u202eột"}, r"column's name holds a control character, .*; rename the header"),
        (
            {"label": "kh\x9ben"},
            r"label's name holds a control character, .* \(got 'kh\\x9ben'\); rename it in the data",
        ),
    ],
    ids=str,
)
def test_names_that_a_config_refuses_make_no_task(tmp_path: Path, names: dict[str, str], says: str) -> None:
    found = overview(tmp_path, "chê", names.get("label", "khen"), column=names.get("column", "loại"))
    found = replace(found, text_column=names.get("text_column", found.text_column))
    with pytest.raises(DataError, match=rf"a\.csv: a {says}"):
        task_text(found, language="vi", train="loraft train")


def test_a_command_of_several_lines_stays_a_comment(tmp_path: Path) -> None:
    text = task_text(overview(tmp_path, "khen", "chê"), language="vi", train="loraft train 'câu\n(ghi rõ)'")
    assert text.startswith("# loraft train 'câu\n# (ghi rõ)'\n\n# The labels")


def test_eighty_labels_are_offered(tmp_path: Path) -> None:
    prompt = written(overview(tmp_path, *(f"mục đích số {i}" for i in range(80))), tmp_path)
    assert len(prompt.labels or []) == 80
    assert all(f'"mục đích số {i}"' in str(prompt.template) for i in range(80))


@pytest.mark.parametrize(
    ("labels", "language", "words"),
    [
        (["NEG", "neutral", "Positive"], "vi", ["tiêu cực", "trung tính", "tích cực"]),
        (["neg", "giao_hàng"], "en", ["negative", "giao hàng"]),
        (["pos", "positive"], "vi", ["pos", "positive"]),  # two labels need two words
        (["0", "1"], "vi", ["0", "1"]),
    ],
)
def test_the_words_are_those_of_the_language(labels: list[str], language: str, words: list[str]) -> None:
    assert label_words(labels, language) == words


def test_numbers_stay_the_labels_and_the_file_asks_for_words(tmp_path: Path) -> None:
    found = overview(tmp_path, 0, 1)
    assert written(found, tmp_path).labels == ["0", "1"]
    assert "does not say what they mean: write words" in " ".join(
        task_text(found, language="vi", train="").split("\n# ")
    )


def test_a_source_with_several_labels_a_row_gets_a_task_of_that_kind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("__label__khen máy tốt\n__label__chê __label__lỗi máy nóng\n", encoding="utf-8")
    found = survey(resolve(flags={"data.source": str(tmp_path / "a.txt")}))
    assert "\nkind: multilabel\n" in task_text(found, language="vi", train="")
    vietnamese, english = written(found, tmp_path, "vi"), written(found, tmp_path, "en")
    assert 'Các nhãn: "chê", "khen" hoặc "lỗi". ' in str(vietnamese.template)
    assert '"LABEL: yes" or "LABEL: no"' in str(english.template)
    assert (vietnamese.yes_word, english.yes_word, english.no_word) == ("có", "yes", "no")
    assert str(english.system).startswith("You are")


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        (["bài tập|thầy cô", "thầy cô", "bài tập", ""], None),
        (["['bài tập', 'thầy cô']", "['thầy cô']", "[]", '["bài tập"]'], None),
        (["bài tập / thầy cô", "thầy cô", "bài tập", "thầy cô/bài tập"], "/"),
    ],
)
def test_texts_with_several_labels_give_a_task_of_that_kind_that_reads_them(
    tmp_path: Path, cells: list[str], named: str | None
) -> None:
    rows = [{"sentence": f"Máy chạy nóng {i}", "nhãn": cell} for i, cell in enumerate(cells)]
    source = {"data.source": str(write_rows(tmp_path / "a.csv", rows))}
    found = survey(resolve(flags=source))
    assert found.labels == {label: {"train": 3 if named else 2} for label in ("bài tập", "thầy cô")}
    assert (found.several, found.separator, "kind: multilabel" in found.notes[0]) == (True, named, True)
    assert written(found, tmp_path).kind == "multilabel"
    command = train_command(found, "t.yaml", [])
    assert ("data.label_separator" in command) == (named is not None)
    given = [f"data.label_separator={json.dumps(named)}"] if named else []
    config = resolve(overrides=given, flags={**source, "prompt.task": str(tmp_path / "task.yaml")})
    assert [example.label for example in load_data(config, "train").examples][:2] == [(0, 1), (1,)]


def test_the_command_carries_the_columns_settings_and_splits(tmp_path: Path) -> None:
    found = overview(tmp_path, "khen", "lỗi")
    columns = ["data.text_column=nội dung", "data.label_column=loại"]
    assert train_command(found, "b c.yaml", [*columns, "data.encoding=cp1258"]) == (
        f"loraft train --task 'b c.yaml' --data {found.source} --set data.encoding=cp1258 --set 'data.text_column=câu'"
        " --set 'data.split=[0.8, 0.1, 0.1]'"
    )
    assert "data.split=[1, 0, 0]" in (one := train_command(found, "b.yaml", ["data.split=[1, 0, 0]"]))
    assert one.count("data.split") == 1


def test_a_label_that_is_a_slot_gets_a_word_without_braces(tmp_path: Path) -> None:
    prompt = written(overview(tmp_path, "{input}", "lỗi"), tmp_path)
    assert (prompt.labels, prompt.label_words) == (["lỗi", "{input}"], ["lỗi", "input"])


def test_without_two_labels_no_task_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"one label in column 'label' \(got 'khen' in all rows\), and a task needs two"
    ):
        task_text(overview(tmp_path, "khen", column="label"), language="vi", train="")
    with pytest.raises(DataError, match=r"no label column \(got câu, mã\); name another column with --set data.label"):
        task_text(overview(tmp_path, "khen", column="mã"), language="vi", train="")
    path = write_rows(tmp_path / "a.csv", [{"câu": "Máy nóng", "loại": "khen"}] * 2)
    one = survey(resolve(overrides=["data.label_column=loại"], flags={"data.source": str(path)}))
    with pytest.raises(DataError, match=r"one label \(got khen\)"):
        task_text(one, language="vi", train="")
