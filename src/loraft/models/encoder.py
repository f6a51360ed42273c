"""From text to token ids: one path for training, evaluation, few-shot and prediction.

The user's sentence is data. A special token written inside it ("<|eot_id|>") stays text, because everything between
the last special token of the template's head and the first one of its tail is encoded with special tokens split.
Special tokens are hard borders for every tokenizer, so the ids are those of the rendered chat as a whole; `Encoder`
verifies that on a harmless sentence when it is built.

Tensor and array suffixes: N examples, K labels, T tokens.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from loraft.data.prompt import Task, messages
from loraft.engine.layout import common_prefix
from loraft.errors import BackboneError, DataError

# Stands for the user message while the template is rendered; letters only, so that no template changes it.
MARK = "LoraftUserMessageStandsHere"
PROBE = "thầy dạy rất nhiệt tình , dễ hiểu ."
# The Llama-3.2 layout, for tokenizers without a chat template of their own.
FALLBACK_TEMPLATE = (
    "{{- bos_token }}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}"
    "{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\nToday Date: ' }}"
    "{{- date_string + '\\n\\n' + system + '<|eot_id|>' }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim }}"
    "{{- '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class Prompt:
    """One encoded prompt, ready for the answer. `cut` is the number of characters cut off the sentence."""

    ids: list[int]
    cut: int = 0


class Encoder:
    """Encodes sentences and answers of one task for one tokenizer.

    Attributes:
        completions_K: token ids of each label's whole answer, end-of-turn token included.
        forced: how many leading ids all the answers share: the answer prefix.
        prompt_hash: of everything around the sentence: template, system message, date, instruction and answers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, task: Task, *, date_string: str, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.task = task
        self.max_length = max_length
        self.date_string = date_string
        template = str(tokenizer.chat_template or FALLBACK_TEMPLATE)
        self.template_hash = hashlib.sha256(template.encode()).hexdigest()
        if "strftime_now" in template:  # it asks the clock: the macro answers in its place
            template = f"{{%- macro strftime_now(format) -%}}{date_string}{{%- endmacro %}}{template}"
        self._render_kwargs: dict[str, Any] = {
            "chat_template": template,
            "date_string": date_string,
            "tokenize": False,
        }
        chat = messages(task, PROBE)
        chat[-1]["content"] = chat[-1]["content"].strip()  # as `encode` does, whether or not the template trims
        rendered = self._render([*chat[:-1], {"role": "user", "content": MARK}])
        if rendered.count(MARK) != 1:
            raise BackboneError(
                f"{tokenizer.name_or_path}: its chat template does not print the user message exactly once; "
                "choose an instruction-tuned backbone whose template does"
            )
        head, tail = rendered.split(MARK)
        self._head, self._before = self._split_after_last_special(head)
        self._after, self._tail = self._split_before_first_special(tail)
        self._head_ids = self._ids(self._head, special=True)
        self._tail_ids = self._ids(self._tail, special=True)
        self.end_of_turn = self._end_of_turn()
        self.completions_K = [[*self._ids(task.answer_prefix + word), self.end_of_turn] for word in task.label_words]
        self.forced = common_prefix(self.completions_K)
        asked = [self._head_ids, self._before, task.template, self._after, self._tail_ids, self.completions_K]
        self.prompt_hash = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        probe = self._render(chat)
        if self._ids(probe, special=True) != self.encode([PROBE])[0].ids:
            raise BackboneError(
                f"{tokenizer.name_or_path}: encoding the chat in parts differs from encoding it whole, so user text "
                "could not be kept apart from special tokens; choose another backbone"
            )

    def encode(self, texts: Sequence[str], demonstrations: Sequence[tuple[str, str]] = ()) -> list[Prompt]:
        """Returns one prompt a text, with the same demonstrations in each.

        Args:
            texts: N sentences in NFC.
            demonstrations: (sentence, label word) pairs that go into the few-shot template.

        Raises:
            DataError: if the prompt does not fit `max_length` even with an empty sentence.
        """
        contents = [messages(self.task, text, demonstrations)[-1]["content"].strip() for text in texts]
        middles = [self._before + content + self._after for content in contents]
        room = self.max_length - len(self._head_ids) - len(self._tail_ids) - max(map(len, self.completions_K))
        prompts: list[Prompt] = []
        for text, ids in zip(texts, self._batch_ids(middles), strict=True):
            cut = 0
            if len(ids) > room:
                kept, ids = self._shorten(text, demonstrations, len(ids), room)
                cut = len(text) - kept
            prompts.append(Prompt([*self._head_ids, *ids, *self._tail_ids], cut))
        return prompts

    def completion(self, label: int) -> list[int]:
        """Returns the ids of the label's answer: answer prefix, label word, end-of-turn token."""
        return self.completions_K[label]

    def _shorten(
        self, text: str, demonstrations: Sequence[tuple[str, str]], length: int, room: int
    ) -> tuple[int, list[int]]:
        """Returns (characters kept, ids) of the longest start of the sentence that fits, by bisection."""

        def ids_of(characters: int) -> list[int]:
            content = messages(self.task, text[:characters].rstrip(), demonstrations)[-1]["content"].strip()
            return self._ids(self._before + content + self._after)

        empty = ids_of(0)
        if len(empty) > room:
            raise DataError(
                f"prompt: {length + self.max_length - room} tokens do not fit, and the instruction and demonstrations "
                f"alone take {len(empty) + self.max_length - room} (got prompt.max_length={self.max_length}); "
                "use fewer shots or --set prompt.max_length=..."
            )
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if len(ids_of(middle)) <= room else (low, middle - 1)
        return low, ids_of(low)

    def _render(self, chat: list[dict[str, str]]) -> str:
        return self._apply(chat, add_generation_prompt=True)

    def _apply(self, chat: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    chat, add_generation_prompt=add_generation_prompt, **self._render_kwargs
                )
            )
        except TemplateError as error:
            raise BackboneError(
                f"{self.tokenizer.name_or_path}: its chat template refuses the chat ({error}); a template without a "
                'system role needs --set prompt.system=""'
            ) from error

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        if not text:
            return []
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=not special)["input_ids"])

    def _batch_ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return list(self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _specials(self) -> re.Pattern[str] | None:
        words = sorted(self.tokenizer.all_special_tokens, key=len, reverse=True)
        words += [str(t.content) for t in self.tokenizer.added_tokens_decoder.values() if t.special]
        return re.compile("|".join(re.escape(word) for word in dict.fromkeys(words))) if words else None

    def _split_after_last_special(self, text: str) -> tuple[str, str]:
        specials = self._specials()
        found = list(specials.finditer(text)) if specials else []
        end = found[-1].end() if found else 0
        return text[:end], text[end:]

    def _split_before_first_special(self, text: str) -> tuple[str, str]:
        specials = self._specials()
        found = specials.search(text) if specials else None
        start = found.start() if found else len(text)
        return text[:start], text[start:]

    def _end_of_turn(self) -> int:
        """Returns the id that the template puts after an assistant's answer; the tokenizer's EOS if there is none."""
        chat = [*messages(self.task, PROBE), {"role": "assistant", "content": MARK}]
        rendered = self._apply(chat, add_generation_prompt=False)
        ids = self._ids(rendered.split(MARK)[-1], special=True)
        special = set(self.tokenizer.all_special_ids)
        first = next((i for i in ids if i in special), self.tokenizer.eos_token_id)
        if first is None:
            raise BackboneError(f"{self.tokenizer.name_or_path}: has no end-of-turn or end-of-sequence token")
        return int(first)


def warn_of_cuts(prompts: list[Prompt], what: str) -> int:
    """Says how many sentences were shortened, and returns that number."""
    cut = sum(prompt.cut > 0 for prompt in prompts)
    if cut:
        warnings.warn(f"{cut} of {len(prompts)} {what} sentences were shortened to fit prompt.max_length", stacklevel=2)
    return cut
