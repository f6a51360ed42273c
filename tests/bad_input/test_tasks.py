"""Tasks that are not there, and task files with mistakes."""

import os
from pathlib import Path

import pytest
from helpers.bad_input import refusal

NONE = r"prompt\.task: no such task and no such file \(got "
NO_FILE = r"prompt\.task: exists, but is no file \(got "
NAMES = {
    "sentimental": rf"{NONE}'sentimental'\); did you mean sentiment\? allowed: app-reviews, sentiment, topic",
    "Sentiment": rf"{NONE}'Sentiment'",
    "sentiment.yaml": rf"{NONE}'sentiment\.yaml'",
    "không-có.yaml": rf"{NONE}'không-có\.yaml'",
    "": NONE,
    " ": NONE,
    "t" * 255: rf"{NONE}'t+\.\.\.'\)",
    "t" * 300: r"prompt\.task: is too long .*at most 255 bytes|no such task",
    "ữ" * 100: r"prompt\.task: is too long|no such task",
    ".": rf"{NO_FILE}'\.'\); a task is a YAML file like",
    "..": rf"{NO_FILE}'\.\.'\)",
    "/": rf"{NO_FILE}'/'\)",
    "/dev/null": rf"{NO_FILE}'/dev/null'\)",
    "thư-mục": rf"{NO_FILE}'thư-mục'\)",
    "ống": rf"{NO_FILE}'ống'\)",
    "https://example.org/task.yaml": NONE,
}


@pytest.mark.parametrize("name", NAMES, ids=[name[:20] for name in NAMES])
def test_a_task_that_is_not_there_is_told(name: str, work: Path) -> None:
    (work / "thư-mục").mkdir()
    os.mkfifo(work / "ống")
    refusal(["train", "--task", name], NAMES[name])


FILES = {
    "": r"labels: missing; see ",
    "labels:": r"labels: missing; see ",
    "template: 'Câu: {input}'": r"labels: missing; see ",
    "labels: khen": r"labels: not allowed \(got 'khen'\).*list",
    "labels: [khen]": r"labels: not allowed \(got \['khen'\]\).*at least 2 items",
    "labels: []": r"labels: .*at least 2 items",
    "labels: [khen, khen]": r"labels: must differ from each other",
    "labels: [khen, '']": r"labels\[1\]: is blank",
    "labels: [khen, ' chê']": r"labels: ' chê' has spaces around it",
    "labels: [true, false]": r"labels: holds a boolean",
    "labels: [khen, null]": r"labels: holds null",
    "labels: {khen: 0, chê: 1}": r"labels: .*list|labels: is a mapping",
    "labels: [khen, [chê]]": r"labels: holds a list",
    'labels: [khen, "ch\\0"]': r"labels: holds U\+0000",
    "labels: [khen, chê]\nlabel_words: [tốt]": r"label_words: 1 label_words for 2 labels",
    "labels: [khen, chê]\nlabel_words: [a, a]": r"label_words: must differ",
    "labels: [khen, chê]\nkind: nhiều": r"kind: not allowed \(got 'nhiều'\).*'single', 'ordinal' or 'multilabel'",
    "labels: [khen, chê]\nname: x": r"name: unknown key",
    "labels: [khen, chê]\nlabel: x": r"label: unknown key .*did you mean label",
    "labels: [khen, chê]\ntemplate: Câu": r"template: must contain \{input\} exactly once",
    "labels: [khen, chê]\ntemplate: '{input} {input}'": r"template: must contain \{input\} exactly once",
    "labels: [khen, chê]\nexample_template: '{input}'": r"example_template: must contain \{label\} exactly once",
    "labels: [khen, chê]\nfew_shot_template: '{input}'": r"few_shot_template: must contain \{few_shot_examples\}",
    "labels: [khen, chê]\nmax_length: 1000000000000": r"max_length: .*equal to 16777216",
    "labels: [khen, chê]\nsystem: [a]": r"system: is a list",
    "labels: [khen, chê]\nid_columns: a": r"id_columns: .*list",
    "labels: [khen, chê]\nyes_word: ''": r"yes_word: is blank",
    "prompt:\n  labels: [khen, chê]": r"prompt: unknown key|labels: missing",
    "[khen, chê]": r"not a mapping \(got \['khen', 'chê'\]\)",
    "labels: [khen, chê": r"not valid YAML \(line 1",
    "labels: &a [khen, *a]": r"not valid YAML .*an alias inside of its own value",
}


@pytest.mark.parametrize("text", FILES, ids=[text[-30:] for text in FILES])
def test_a_mistake_in_a_task_file_names_the_file(text: str, work: Path) -> None:
    (work / "việc.yaml").write_text(text, encoding="utf-8")
    refusal(["config", "--task", "việc.yaml"], rf"việc\.yaml: {FILES[text]}")
