"""Labels and their words in the config."""

import pytest
from helpers.bad_input import refusal

MANY = [f"nhãn{number}" for number in range(2000)]
CASES = {
    "prompt.labels=[a]": r"prompt\.labels: .*at least 2 items",
    "prompt.labels=[]": r"prompt\.labels: .*at least 2 items",
    "prompt.labels=[a, a]": r"prompt\.labels: must differ from each other, .*'a' does not",
    "prompt.labels=[08, 08]": r"prompt\.labels: must differ",
    'prompt.labels=["\\u1eef", "\\u01b0\\u0303"]': r"prompt\.labels: must differ from each other",
    "prompt.labels=['', b]": r"prompt\.labels\[0\]: is blank",
    "prompt.labels=[a, ' ']": r"prompt\.labels\[1\]: is blank",
    'prompt.labels=[a, "b\\n"]': r"prompt\.labels\[1\]: holds a line break or a tab",
    'prompt.labels=[a, "\\u00a0b"]': r"prompt\.labels: .*has spaces around it",
    'prompt.labels=[a, "\\0"]': r"prompt\.labels: holds U\+0000",
    'prompt.labels=[a, "\\ud800"]': r"prompt\.labels: holds U\+D800",
    f"prompt.labels=[{', '.join(MANY)}]": r"does not name every label word \(got 'nhãn0'\)",
    f"prompt.labels=[{', '.join(MANY)}, nhãn0]": r"prompt\.labels: must differ .*\(got \['nhãn0', .*\.\.\.",
    "prompt.labels=[x, y]": r"prompt\.template: .*does not name every label word \(got 'x'\)",
    "prompt.label_words=[x, y, z]": r"prompt\.template: .*does not name every label word",
    "prompt.label_words=[x]": r"prompt\.label_words: 1 label_words for 3 labels",
    "prompt.label_words=[x, x, y]": r"prompt\.label_words: must differ",
    f"prompt.labels=[a, {'b' * 3000}]": r"does not name every label word \(got 'a'\)",
    "prompt.kind=several": r"prompt\.kind: .*'single', 'ordinal' or 'multilabel'",
    "prompt.yes_word=''": r"prompt\.yes_word: is blank",
    "prompt.answer_prefix='Ý: '": r"prompt\.template: asks for an answer that begins otherwise than answer_prefix",
    "prompt.template='Câu {input} {input}'": r"prompt\.template: must contain \{input\} exactly once",
    "prompt.template=Câu": r"prompt\.template: must contain \{input\} exactly once",
    "prompt.few_shot_template='{input}'": r"prompt\.few_shot_template: must contain \{few_shot_examples\} exactly once",
    "prompt.example_template=x": r"prompt\.example_template: must contain \{input\} exactly once",
    "prompt.system_role=assistant": r"prompt\.system_role: .*'auto', 'system' or 'user'",
    "prompt.chat_template=.": r"prompt\.chat_template: exists, but is no file",
    "prompt.chat_template=''": r"prompt\.chat_template: .*at least 1 character",
}


@pytest.mark.parametrize("pair", CASES, ids=[pair[:40] for pair in CASES])
def test_labels_and_wording_that_contradict_are_refused(pair: str) -> None:
    refusal(["config", "--set", pair], CASES[pair])
