"""Labels, their words and the texts around them that no model can answer with, or that hold special tokens."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

TWO = "prompt.labels=[khen, chê]"
TEXT = r"prompt.template='Chọn \"khen\" hay \"chê\": {input}'"
FEW = r"prompt.few_shot_template='Chọn \"khen\" hay \"chê\": {few_shot_examples} {input}'"
SPECIAL = r"holds a special token of .* \(got '<\|eot_id\|>'\), .*; leave it out"
CASES = {
    "no label": (["prompt.labels=[]"], r"prompt\.labels: .*(two|2)"),
    "one label": (["prompt.labels=[khen]"], r"prompt\.labels: .*(two|2)"),
    "labels that are a text": (["prompt.labels=khen"], r"prompt\.labels: "),
    "labels that are a mapping": (["prompt.labels={khen: 1, chê: 2}"], r"prompt\.labels: "),
    "labels that are null": (["prompt.labels=[null, null]"], r"prompt\.labels"),
    "labels that are lists": (["prompt.labels=[[khen], [chê]]"], r"prompt\.labels"),
    "an empty label": (["prompt.labels=['', chê]", "prompt.label_words=[khen, chê]", TEXT, FEW], r"prompt\.labels\[0\]: is blank"),
    "a label of blanks": (["prompt.labels=['  ', chê]", "prompt.label_words=[khen, chê]", TEXT, FEW], r"prompt\.labels\[0\]: is blank"),
    "spaces around a label": (["prompt.labels=[' khen', chê]", "prompt.label_words=[khen, chê]", TEXT, FEW], r"prompt\.labels: .*spaces around it"),
    "equal labels": (["prompt.labels=[khen, khen]", "prompt.label_words=[khen, chê]", TEXT, FEW], r"prompt\.labels: .*must differ"),
    "labels equal when composed": (["prompt.labels=[ché, che\u0301]", "prompt.label_words=[khen, chê]", TEXT, FEW], r"prompt\.labels: .*must differ"),
    "a word less": (["prompt.label_words=[khen, chê]"], r"prompt\.label_words: 2 label_words for 3 labels"),
    "a word more": ([TWO, "prompt.label_words=[khen, chê, thường]", TEXT], r"3 label_words for 2 labels"),
    "an empty word": ([TWO, "prompt.label_words=['', chê]", TEXT], r"prompt\.label_words\[0\]: is blank"),
    "a word of blanks": ([TWO, "prompt.label_words=[' ', chê]", TEXT], r"prompt\.label_words\[0\]: is blank"),
    "a line end at a word": ([TWO, 'prompt.label_words=["khen\\n", chê]', TEXT], r"prompt\.label_words\[0\]: holds a line break"),
    "equal words": ([TWO, "prompt.label_words=[khen, khen]", TEXT], r"prompt\.label_words: .*must differ"),
    "a special token as word": ([TWO, "prompt.label_words=['<|eot_id|>', chê]", TEXT, FEW], r"prompt\.label_words: .*" + SPECIAL),
    "a special token in a word": ([TWO, "prompt.label_words=['khen<|eot_id|>', chê]", TEXT, FEW], r"prompt\.label_words: .*" + SPECIAL),
    "a special token in the template": ([r"prompt.template='<|eot_id|>\"negative\", \"neutral\" or \"positive\": {input}'"], r"prompt\.template: .*" + SPECIAL),
    "a special token in the system message": (["prompt.system='Bạn là <|eot_id|>'"], r"prompt\.system: .*" + SPECIAL),
    "a special token in the prefix": (["prompt.answer_prefix='<|eot_id|>'", r"prompt.template='\"negative\", \"neutral\" or \"positive\": {input}'", r"prompt.few_shot_template='\"negative\", \"neutral\" or \"positive\": {few_shot_examples} {input}'", "prompt.example_template='{input} {label}'"], r"prompt\.answer_prefix: .*" + SPECIAL),
    "no sentence in the template": (["prompt.template='negative, neutral, positive'"], r"prompt\.template: .*\{input\} exactly once"),
    "two sentences in the template": (["prompt.template='negative, neutral, positive {input} {input}'"], r"prompt\.template: .*exactly once"),
    "an empty template": (["prompt.template=''"], r"prompt\.template: .*\{input\} exactly once"),
    "no examples in the template": (["prompt.few_shot_template='negative, neutral, positive {input}'"], r"prompt\.few_shot_template: .*exactly once"),
    "no label in an example": (["prompt.example_template='{input}'"], r"prompt\.example_template: .*\{label\} exactly once"),
    "a yes that is no": (["prompt.kind=multilabel", "prompt.yes_word=có", "prompt.no_word=có"], r"^error:(?s:.)*(yes_word|no_word|same)"),
    "an unknown kind": (["prompt.kind=nhiều"], r"prompt\.kind: .*'nhiều'"),
    "a prompt longer than its room": (["prompt.system='" + "dài " * 2000 + "'"], r"^error: .*(prompt\.max_length|do not fit|positions)"),
}  # fmt: skip


@pytest.mark.usefixtures("bundled_tokenizer")
@pytest.mark.parametrize(("sets", "says"), CASES.values(), ids=CASES)
def test_labels_and_texts_that_do_not_make_a_prompt_are_refused(sets: list[str], says: str) -> None:
    Path("a.csv").write_text("sentence,sentiment\nhay,0\n", encoding="utf-8")
    sets = [*sets, "data.label_names=[khen, chê]"] if TWO in sets else [*sets, "data.unlabelled=skip"]
    if TWO not in sets:
        Path("a.csv").write_text("sentence,sentiment\nhay,positive\n", encoding="utf-8")
    refusal(["eval", "--zero-shot", "--split", "a.csv", *(word for one in sets for word in ("--set", one))], says)
