"""The section `prompt` of the config: the task, its labels, and the prompt around a sentence."""

import os
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from loraft.config.names import show
from loraft.config.section import BareWord, ColumnName, FileName, Name, Section

SLOTS = {
    "template": ("{input}",),
    "few_shot_template": ("{few_shot_examples}", "{input}"),
    "example_template": ("{input}", "{label}"),
}


class PromptConfig(Section):
    """The task: labels, their words, and the prompt around a sentence. Keys that are not set come from `task`."""

    task: FileName = Field("sentiment", description="sentiment, topic, or a YAML file with this section's keys")
    kind: Literal["single", "ordinal", "multilabel"] = Field(
        "single", description="one label a row; ordinal: of labels in order; multilabel: any number of labels a row"
    )
    labels: Annotated[list[Name], Field(min_length=2)] | None = Field(None, description="label names, in id order")
    label_words: list[Name] | None = Field(None, description="the model's answers; default: the label names")
    label_column: ColumnName | None = Field(None, description="column of the labels where data.label_column is not set")
    id_columns: list[ColumnName] | None = Field(
        None, description="whole numbers are label ids only in rows with all these columns; null: in all rows"
    )
    system: str | None = Field(None, description="system message; null: the task's")
    template: str | None = Field(
        None, description="user message; null: the task's; {input} is the sentence, {label_words} all words in quotes"
    )
    few_shot_template: str | None = Field(None, description="user message with {few_shot_examples} and {input}")
    example_template: str | None = Field(None, description="one demonstration, with {input} and {label}")
    answer_prefix: str | None = Field(None, description="text before the label in the answer")
    yes_word: Name | None = Field(None, description="multilabel: the answer where a label applies")
    no_word: Name | None = Field(None, description="multilabel: the answer where it does not")
    date_string: str = Field("26 Jul 2024", description="the date that chat templates write into the prompt")
    chat_template: str | None = Field(
        None, min_length=1, description="one of the tokenizer's templates, or a Jinja file (./FILE); null: the default"
    )
    template_kwargs: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="for the chat template, for example {enable_thinking: false}"
    )
    system_role: Literal["auto", "system", "user"] = Field(
        "auto", description="user: in the user message; auto: there if the chat template has no system role"
    )
    score_end_of_turn: bool = Field(False, description="label scores count the end of turn after the answer, too")
    max_length: int = Field(
        1024, ge=32, le=2**24, description="tokens of prompt and answer; longer sentences are shortened"
    )
    truncation: Literal["tail", "head", "middle"] = Field(
        "tail", description="the part of a too long sentence that is cut out; middle keeps its start and its end"
    )

    @field_validator("labels", "label_words")
    @classmethod
    def _distinct(cls, names: list[str] | None) -> list[str] | None:
        composed = [unicodedata.normalize("NFC", name) for name in names or []]
        counts = Counter(composed)
        for name, same in zip(names or [], composed, strict=True):
            if counts[same] > 1:
                raise ValueError(f"must differ from each other, also in composed form (NFC); {show(name)} does not")
            if name != name.strip():
                raise ValueError(f"{show(name)} has spaces around it; remove the spaces")
        return names

    @field_validator("label_words")
    @classmethod
    def _one_word_per_label(cls, words: list[str] | None, info: ValidationInfo) -> list[str] | None:
        labels = info.data.get("labels")
        if labels is not None and words is not None and len(labels) != len(words):
            raise ValueError(f"{len(words)} label_words for {len(labels)} labels; give one word for each label")
        return words

    @field_validator("chat_template")
    @classmethod
    def _text_of_file(cls, name: str | None) -> str | None:
        # A run keeps the text, since the file may go. Only a path is a file: none hides a template of the same name.
        if name is None or not {".", "/", os.sep} & set(name):
            return name
        path = Path(os.path.expanduser(name))
        if os.path.isdir(path):
            raise ValueError("exists, but is no file; give a Jinja file")
        if not os.path.isfile(path):
            return name
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot be read ({error}); give a UTF-8 text file") from None
        if "{" not in text:
            raise ValueError("is a file without Jinja; give one that prints the messages")
        return text

    @field_validator("template_kwargs", mode="before")
    @classmethod
    def _no_words_for_booleans(cls, given: Any) -> Any:
        for name, value in given.items() if isinstance(given, dict) else ():
            if isinstance(value, BareWord) or (isinstance(value, str) and value.lower() in ("true", "false")):
                raise ValueError(f"{name}: {value!r} is text, which templates take for true; write true or false")
        return given

    @field_validator("template", "few_shot_template", "example_template")
    @classmethod
    def _has_slots(cls, text: str | None, info: ValidationInfo) -> str | None:
        for slot in SLOTS[str(info.field_name)]:
            if text is not None and text.count(slot) != 1:
                raise ValueError(f"must contain {slot} exactly once")
        return text
