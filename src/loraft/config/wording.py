"""Default wording of a task: everything around its labels, in Vietnamese or English.

A task needs its labels only. What it does not give is worded here, in the language of what it gives; what it gives is
checked for contradictions, such as a template that asks for "Loại: " beside an answer prefix "Kết quả: ".
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loraft.config.names import Mistake

# Letters that Vietnamese has and its neighbours on a keyboard (French, German, English) have not.
VIETNAMESE = re.compile(r"[ăđơư\u1ea0-\u1ef9]", re.IGNORECASE)
# The begin of an answer as templates give it: in quotes, with a colon at its end.
ANSWER_BEGIN = re.compile(r"[\"“«`]\s?([^\"“”«»`\n]{1,60}:)\s?[\"”»`]")
WORDS_SLOT = "{label_words}"  # in a template: all label words in quotes, with "or" before the last


@dataclass(frozen=True)
class Wording:
    """The sentences of one language around labels and text."""

    system: str
    instruction: str
    answer: str
    rule: str
    either: str  # "or", before the last word
    text: str
    examples: str
    several: str  # the instruction and the rule where a text may have several labels, with {words}, {yes} and {no}
    yes: str
    no: str


VI = Wording(
    system="Bạn là trợ lý hữu ích và làm đúng theo yêu cầu của người dùng.",
    instruction="Hãy xếp loại văn bản sau đây.",
    answer="Loại: ",
    rule='Câu trả lời phải bắt đầu bằng "Loại: ", theo sau là một trong các từ khóa: {label_words}.',
    either="hoặc",
    text="Văn bản: {input}",
    examples="Dưới đây là vài ví dụ:",
    several="Hãy cho biết những nhãn nào đúng với văn bản sau đây; có thể có nhiều nhãn hoặc không có nhãn nào.\n\n"
    'Các nhãn: {words}. Câu trả lời cho mỗi nhãn có dạng "NHÃN: {yes}" hoặc "NHÃN: {no}".',
    yes="có",
    no="không",
)
EN = Wording(
    system="You are a helpful assistant. You must fulfill the user request.",
    instruction="Predict the label of the following text.",
    answer="Label: ",
    rule='The response must begin with "Label: ", followed by one of these keywords: {label_words}.',
    either="or",
    text="Text: {input}",
    examples="Here are a few examples:",
    several="Say which labels apply to the following text; several may apply, or none.\n\n"
    'The labels: {words}. The answer for each label has the form "LABEL: {yes}" or "LABEL: {no}".',
    yes="yes",
    no="no",
)


def number_in_vietnamese(texts: Iterable[str]) -> int:
    """The number of texts with a letter that only Vietnamese has."""
    return sum(VIETNAMESE.search(unicodedata.normalize("NFC", text)) is not None for text in texts)


def wording_of(template: str | None, words: Iterable[str]) -> Wording:
    """The language of a template; without one, that of the label words."""
    texts = [template] if template is not None else words
    return VI if number_in_vietnamese(texts) else EN


def template_of(wording: Wording) -> str:
    """The default user message, with `{label_words}` and `{input}`."""
    return f"{wording.instruction}\n\n{wording.rule}\n\n{wording.text}"


def with_words(template: str, words: Sequence[str]) -> str:
    """The template with the label words in the place of `{label_words}`; any other template as it is."""
    quoted = [f'"{word}"' for word in words]
    either = wording_of(template, ()).either
    return template.replace(WORDS_SLOT, f"{', '.join(quoted[:-1])} {either} {quoted[-1]}" if quoted else "")


def questions_of(words: Sequence[str] | None, wording: Wording, yes: str, no: str) -> str:
    """The user message that asks which of these label words apply, with `{label_words}` for None, to an `{input}`."""
    listed = WORDS_SLOT if words is None else ", ".join(f'"{word}"' for word in words)
    return f"{wording.several.format(words=listed, yes=yes, no=no)}\n\n{wording.text}"


def worded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a task with every text that it does not give.

    Args:
        values: `labels`, and any other keys of a task file, checked already.

    Returns:
        All of these, with the default for each text that is missing. The prompt with examples, one example and the
        begin of the answer follow the template, also where it is the task's own. `{label_words}` stays in templates.
    """
    given = {key: value for key, value in values.items() if value is not None}
    words: list[str] = given.setdefault("label_words", given["labels"])
    wording = wording_of(given.get("template"), words)
    if given.get("kind") == "multilabel":
        yes, no = given.setdefault("yes_word", wording.yes), given.setdefault("no_word", wording.no)
        given.setdefault("template", questions_of(words, wording, yes, no))
        given.setdefault("answer_prefix", "")
    given.setdefault("template", template_of(wording))
    given.setdefault("system", wording.system)
    begins = _begins_asked(given["template"])
    given.setdefault("answer_prefix", f"{begins[0]} " if len(begins) == 1 else wording.answer)
    # The line that holds {input} is what one example repeats, and what the examples stand before.
    start = given["template"].rfind("\n", 0, given["template"].index("{input}")) + 1
    before, line = given["template"][:start], given["template"][start:]
    given.setdefault("few_shot_template", f"{before}{wording.examples}\n\n{{few_shot_examples}}\n{line}")
    given.setdefault("example_template", line.partition("\n")[0] + "\n" + given["answer_prefix"] + "{label}\n")
    return given


def _begins_asked(template: str) -> list[str]:
    """How a template says that the answer begins: what it quotes, and a last line such as "Loại:" below the text."""
    _, below, last = template.partition("{input}")[2].rstrip().rpartition("\n")
    ends = [last.strip()] if below and re.fullmatch(r"\w+( \w+){0,2}:", last.strip()) else []
    return list(dict.fromkeys([*ANSWER_BEGIN.findall(template), *ends]))


def contradictions(prompt: Mapping[str, Any]) -> list[Mistake]:
    """One message for each text of a prompt that asks for another begin of the answer than `answer_prefix`.

    Args:
        prompt: the keys of a task; what is no text is left to the check of types.
    """
    prefix = prompt.get("answer_prefix")
    if not isinstance(prefix, str):
        return []
    asked = {key: _begins_asked(text) for key in ("template", "few_shot_template")
             if isinstance(text := prompt.get(key), str)}  # fmt: skip
    example = prompt.get("example_template")
    if isinstance(example, str):
        shown = example.partition("{label}")[0].rpartition("\n")[2].strip()
        asked["example_template"] = [shown] if shown.endswith(":") else []
    return [
        Mistake(
            f"prompt.{key}: asks for an answer that begins otherwise than answer_prefix"
            f" (got {begins[0]!r} and {prefix!r})",
            "write the same in both",
        )
        for key, begins in asked.items()
        if begins and prefix.strip() not in begins
    ]
