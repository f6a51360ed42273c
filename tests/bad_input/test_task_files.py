"""Task files that are missing, damaged, or of another shape."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

GOOD = "labels: [khen, chê]\n"
FILES = {
    "empty": ("", r"labels"),
    "a list": ("- khen\n- chê\n", r"not a mapping"),
    "a word": ("khen\n", r"not a mapping \(got 'khen'\)"),
    "a number": ("5\n", r"not a mapping \(got 5\)"),
    "no YAML": ("labels: [khen\n", r"not valid YAML \(line \d+"),
    "a tab": ("labels:\n\t- khen\n", r"not valid YAML \(line 2"),
    "a key twice": (GOOD + GOOD, r"the key 'labels' twice"),
    "an object of Python": ("!!python/object/apply:os.system ['true']\n", r"not valid YAML|could not determine"),
    "an anchor to itself": ("labels: &a [*a, chê]\n", r"an alias inside of its own value"),
    "an unknown key": (GOOD + "nhãn: [khen]\n", r"nhãn"),
    "a key of another section": (GOOD + "lora:\n  r: 4\n", r"lora"),
    "a config": ("prompt:\n  labels: [khen, chê]\n", r"prompt"),
    "one label": ("labels: [khen]\n", r"labels: .*(2|two)"),
    "labels as text": ("labels: khen\n", r"labels: "),
    "labels as a mapping": ("labels: {0: khen, 1: chê}\n", r"labels: "),
    "labels of lists": ("labels: [[khen], [chê]]\n", r"labels"),
    "equal labels": ("labels: [khen, khen]\n", r"must differ"),
    "a label of blanks": ("labels: [' ', chê]\n", r"blank"),
    "fewer words": (GOOD + "label_words: [hay]\n", r"1 label_words for 2 labels"),
    "equal words": (GOOD + "label_words: [hay, hay]\n", r"must differ"),
    "words as a text": (GOOD + "label_words: hay\n", r"label_words: "),
    "no sentence": (GOOD + "template: khen hay chê\n", r"template: .*\{input\} exactly once"),
    "a template as a list": (GOOD + "template: [a, '{input}']\n", r"template: "),
    "a number as system": (GOOD + "system: {a: 1}\n", r"system: "),
    "an unknown kind": (GOOD + "kind: nhiều\n", r"kind: "),
    "a label column that is a list": (GOOD + "label_column: [a]\n", r"label_column: "),
    "id columns as a text": (GOOD + "id_columns: a\n", r"id_columns: "),
}
NAMES = {
    "not there": "./không có.yaml", "not there and plain": "cảm_xúc", "misspelt": "sentimnt", "a folder": ".", "empty": "",
    "a device": "/dev/null", "a table": "a.csv", "a home": "~không_có/a.yaml", "a blank": " ",
}  # fmt: skip


@pytest.mark.parametrize(("text", "says"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_task_is_refused(text: str, says: str) -> None:
    Path("a.csv").write_text("sentence,label\nhay,khen lắm\n", encoding="utf-8")
    Path("của tôi.yaml").write_text(text, encoding="utf-8")
    refusal(["train", "--data", "a.csv", "--task", "./của tôi.yaml"], says)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_of_no_task_is_refused(name: str) -> None:
    Path("a.csv").write_text("sentence,label\nhay,khen\n", encoding="utf-8")
    refusal(["config", "--task", name], r"^error:")
