r"""Render chats with a tokenizer's chat template, and split the rendered text around the user message.

The text is split at special tokens (such as "<|eot_id|>"), here for a Llama 3 tokenizer:

    head    <|begin_of_text|> ... <|start_header_id|>user<|end_header_id|>       its last token is special
    before  \n\n                                                                 ordinary text
            the user message
    after   (empty)                                                              ordinary text
    tail    <|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n          its first token is special

`encoder` says why.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from loraft.errors import BackboneError

MARK = (
    "LoraftUserMessageStandsHere"  # replaces the user message to find it again; letters, so that no template edits it
)
# The layout of Llama 3.2, for tokenizers without a chat template.
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
class Frame:
    """The rendered chat around the user message, in four parts.

    Attributes:
        head: from the start to the end of the last special token before the message.
        before: from there to the message.
        after: from the message to the next special token.
        tail: from there to the end.
    """

    head: str
    before: str
    after: str
    tail: str


class ChatTemplate:
    """The chat template of a tokenizer, with a fixed date.

    Attributes:
        hash: SHA-256 of the template, in hexadecimal.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, date_string: str) -> None:
        self._tokenizer = tokenizer
        template = str(tokenizer.chat_template or FALLBACK_TEMPLATE)
        self.hash = hashlib.sha256(template.encode()).hexdigest()
        if "strftime_now" in template:  # a function that reads the clock: define a macro of that name in its place
            template = f"{{%- macro strftime_now(format) -%}}{date_string}{{%- endmacro %}}{template}"
        self._arguments: dict[str, Any] = {"chat_template": template, "date_string": date_string, "tokenize": False}

    def render(self, chat: list[dict[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Returns the chat as one text; with `add_generation_prompt`, up to where the assistant's answer begins.

        Raises:
            BackboneError: the template refuses the chat.
        """
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    chat, add_generation_prompt=add_generation_prompt, **self._arguments
                )
            )
        except TemplateError as error:
            raise BackboneError(
                f"{self._tokenizer.name_or_path}: its chat template refuses the chat ({error}); a template without a "
                'system role needs --set prompt.system=""'
            ) from error

    def frame(self, chat: list[dict[str, str]]) -> Frame:
        """Returns the four parts around the user message, which is the last message of the chat.

        Raises:
            BackboneError: the template does not print the user message exactly once.
        """
        rendered = self.render([*chat[:-1], {"role": "user", "content": MARK}])
        if rendered.count(MARK) != 1:
            raise BackboneError(
                f"{self._tokenizer.name_or_path}: its chat template does not print the user message exactly once; "
                "choose an instruction-tuned backbone whose template does"
            )
        left, right = rendered.split(MARK)
        pattern = self._special_tokens()
        ends_left = [found.end() for found in pattern.finditer(left)] if pattern else []
        starts_right = [found.start() for found in pattern.finditer(right)] if pattern else []
        start, end = (ends_left or [0])[-1], (starts_right or [len(right)])[0]
        return Frame(left[:start], left[start:], right[:end], right[end:])

    def _special_tokens(self) -> re.Pattern[str] | None:
        """A pattern that matches any special token; None if the tokenizer has none."""
        words = sorted(self._tokenizer.all_special_tokens, key=len, reverse=True)
        words += [str(token.content) for token in self._tokenizer.added_tokens_decoder.values() if token.special]
        return re.compile("|".join(re.escape(word) for word in dict.fromkeys(words))) if words else None
