"""Build the chat messages of a task and a sentence, and read the label from a generated answer.

Everything here is text; `loraft.models.encoder` turns it into token ids.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loraft.config.prompt_section import PromptConfig
from loraft.errors import ConfigError

INPUT_SLOT = "{input}"
EXAMPLES_SLOT = "{few_shot_examples}"
LABEL_SLOT = "{label}"


@dataclass(frozen=True)
class Task:
    """A classification task: K labels, their words in answers, and the prompt around a sentence.

    All strings are in Unicode's composed form (NFC), as the sentences are, so that equal words are equal strings on
    whatever system they were typed. `user_preamble` is text at the start of every user message: the system message of
    a chat template without a system role. The keys from `chat_template` on are those of the config.
    """

    name: str
    labels: tuple[str, ...]
    label_words: tuple[str, ...]
    system: str
    template: str
    few_shot_template: str
    example_template: str
    answer_prefix: str
    user_preamble: str = ""
    chat_template: str | None = None
    template_kwargs: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    system_role: str = "auto"
    score_end_of_turn: bool = False
    truncation: str = "tail"
    kind: str = "single"
    yes_word: str = ""
    no_word: str = ""

    def __post_init__(self) -> None:
        """Refuses fewer than two labels, which a config made by `model_copy` can still have.

        Raises:
            ConfigError: there is one label or none.
        """
        if len(self.labels) < 2:
            raise ConfigError(f"prompt.labels: a classifier needs two labels (got {list(self.labels)}); add one")

    @classmethod
    def from_config(cls, section: PromptConfig) -> "Task":
        """The task that a resolved `prompt` section describes.

        Args:
            section: every text filled in; `label_words` may be missing and are then the labels.

        Raises:
            ConfigError: a text is missing, or a label or its word is blank or has space around it.
        """
        labels = section.labels
        if labels is None:
            raise _unfilled("labels")
        words = labels if section.label_words is None else section.label_words
        several = section.kind == "multilabel"
        yes, no = (_filled(section, key) if several else "" for key in ("yes_word", "no_word"))
        answers = (("yes_word", [yes]), ("no_word", [no])) if several else ()
        for key, values in (("labels", labels), ("label_words", words), *answers):
            for value in values:
                if not value or value != value.strip():
                    raise ConfigError(
                        f"prompt.{key}: a label is blank or has spaces around it (got {value!r}); remove the spaces"
                    )
        return cls(
            name=section.task,
            labels=tuple(map(_nfc, labels)),
            label_words=tuple(map(_nfc, words)),
            system=_filled(section, "system"),
            template=_filled(section, "template"),
            few_shot_template=_filled(section, "few_shot_template"),
            example_template=_filled(section, "example_template"),
            answer_prefix=_filled(section, "answer_prefix"),
            chat_template=section.chat_template,
            template_kwargs=section.template_kwargs,
            system_role=section.system_role,
            score_end_of_turn=section.score_end_of_turn,
            truncation=section.truncation,
            kind=section.kind,
            yes_word=yes,
            no_word=no,
        )


def user_parts(task: Task, demonstrations: Sequence[tuple[str, str]] = ()) -> tuple[str, str]:
    """The text before and the text after the sentence in the user message.

    The encoder needs them apart from the sentence, which it may shorten and in which special tokens are plain text.

    Args:
        task: the prompt.
        demonstrations: pairs of sentence and label word; with one or more the few-shot template is used.

    Returns:
        The text before `{input}` and the text after it.
    """
    template = task.few_shot_template if demonstrations else task.template
    before, _, after = template.partition(INPUT_SLOT)
    examples = "\n".join(
        _fill(task.example_template, {INPUT_SLOT: sentence, LABEL_SLOT: word}) for sentence, word in demonstrations
    )
    # The template is split at {input} before the examples are filled in, since an example may contain "{input}".
    return task.user_preamble + _fill(before, {EXAMPLES_SLOT: examples}), _fill(after, {EXAMPLES_SLOT: examples})


def messages(task: Task, text: str, demonstrations: Sequence[tuple[str, str]] = ()) -> list[dict[str, str]]:
    r"""The chat up to the answer: the system message (left out if empty) and the user message.

    Args:
        task: the prompt.
        text: the sentence; slots such as `{input}` in it are not filled in.
        demonstrations: pairs of sentence and label word.

    Source:
        The layout with examples, `Sentence: ...\nSentiment: ...\n` joined by one more newline, is the tutorial's.
    """
    before, after = user_parts(task, demonstrations)
    user = {"role": "user", "content": before + text + after}
    return [{"role": "system", "content": task.system}, user] if task.system else [user]


def answer(task: Task, label_id: int) -> str:
    """The assistant's message for a label, for example `Sentiment: positive`."""
    return task.answer_prefix + task.label_words[label_id]


def answers(task: Task) -> list[str]:
    """All assistant's messages that are scored or trained, in the order of `Encoder.completions_K`.

    One for each label. Of a task with several labels a row 2 K: that each label applies, `facility: yes`, and then that
    each does not, `facility: no`. The two answers to a label's question differ in their last word alone.
    """
    one_each = [answer(task, k) for k in range(len(task.labels))]
    if task.kind != "multilabel":
        return one_each
    return [f"{asked}: {word}" for word in (task.yes_word, task.no_word) for asked in one_each]


def parse_answer(task: Task, generated: str) -> int | None:
    """The label id that a generated answer names, None if it names none.

    The tutorial's rule: the label word is the text after the last colon, stripped, compared exactly. It fails where the
    answer prefix has no colon or a label word has one, so the text after the answer prefix is tried first.

    Args:
        task: the prompt.
        generated: decoded text of the answer without special tokens.
    """
    generated = _nfc(generated).strip()
    after_colon = generated.rpartition(":")[2].strip()
    after_prefix = generated.removeprefix(task.answer_prefix.strip()).strip()
    for candidate in (after_prefix, after_colon):
        if candidate in task.label_words:
            return task.label_words.index(candidate)
    return None


def _fill(template: str, values: dict[str, str]) -> str:
    # One pass over all slots, so that text filled into a slot is not searched for slots.
    return re.sub("|".join(map(re.escape, values)), lambda match: values[match[0]], template)


def _filled(section: PromptConfig, key: str) -> str:
    value = getattr(section, key)
    if value is None:
        raise _unfilled(key)
    return _nfc(value)


def _unfilled(key: str) -> ConfigError:
    return ConfigError(f"prompt.{key}: not set (got None); set it, or choose prompt.task=sentiment or topic")


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
