r"""Render chats with a tokenizer's chat template, and split the rendered text around the user message and the answer.

The text is split at special tokens (such as "<|eot_id|>"), here for a Llama 3 tokenizer:

    head    <|begin_of_text|> ... <|start_header_id|>user<|end_header_id|>       its last token is special
    before  \n\n                                                                 ordinary text
            the user message
    after   (empty)                                                              ordinary text
    tail    <|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n          its first token is special

`encoder` says why.
"""

import hashlib
import inspect
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from jinja2 import TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from loraft.errors import BackboneError, ConfigError, first_line, listed
from loraft.models.plain_text import ChatTokenizer
from loraft.models.thoughts import close_thoughts

# These replace the messages to find them again; letters, so that no template edits them.
MARK, SYSTEM_MARK = "LoraftUserMessageStandsHere", "LoraftSystemMessageStandsHere"
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


MOST_STEPS, MOST_CHARACTERS = 1_000_000, 10_000_000  # of rendering a chat: lines of Python, and length
MARKERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
# For a tokenizer that lacks these markers: the messages in plain words, and the answer on a line of its own.
PLAIN_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- message['content'] | trim }}{{- '\\n\\n' if message['role'] == 'system' else '\\n' }}"
    "{%- endfor %}"
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


@dataclass(frozen=True)
class AnswerFrame:
    """The rendered chat around the assistant's answer, in three parts.

    Attributes:
        prompt: the chat up to where the answer begins.
        before: what the template prints between that and the answer, for example a space or an empty block of thoughts.
        after: from the answer to the end of the next special token; empty if there is none.
        end: that special token; None if there is none.
    """

    prompt: str
    before: str
    after: str
    end: str | None


class ChatTemplate:
    """The chat template of a tokenizer, with a fixed date.

    Attributes:
        hash: SHA-256 of the template, in hexadecimal.
        tokens: encodes what it renders.

    Args:
        tokenizer: of the backbone.
        date_string: the date for chat templates that print one.
        name: one of the tokenizer's templates, or the text of another one; by default its template "default".
        arguments: further variables of the template.

    Raises:
        ConfigError: there is no such template, or the template does not know an argument.
        BackboneError: as in `ChatTokenizer`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        date_string: str,
        name: str | None = None,
        arguments: Mapping[str, bool | int | float | str] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._in_parts = False
        template = chosen_template(tokenizer, name)
        self._given = template == name
        self._who = "prompt.chat_template: the template" if self._given else f"{tokenizer.name_or_path}: its template"
        self.hash = hashlib.sha256(template.encode()).hexdigest()
        self.tokens = ChatTokenizer(tokenizer, template)
        self._refuse_unknown(template, arguments or {})
        if "strftime_now" in template:  # a function that reads the clock: define a macro of that name in its place
            template = f"{{%- macro strftime_now(format) -%}}{date_string}{{%- endmacro %}}{template}"
        fixed = {"chat_template": template, "date_string": date_string, "tokenize": False}
        self._arguments: dict[str, Any] = {**(arguments or {}), **fixed}

    def fit(self, *, system: bool, role: str) -> bool:
        """Finds the chats that the template renders whole; returns whether the system message is part of the user's.

        Messages are given as text, or where the template does not print that, as a list of content parts.

        Args:
            system: whether there is a system message.
            role: "system" and "user" say where it belongs; "auto" leaves that to the template.

        Raises:
            BackboneError: the template refuses every such chat, or does not print its messages.
        """
        problem: BackboneError | None = None
        raw = repr(_parts(MARK))[1:-1]  # what a template prints that takes the parts for a text
        for folded in {"system": (False,), "user": (True,)}.get(role, (False, True)) if system else (False,):
            roles = {"system": SYSTEM_MARK, "user": MARK} if system and not folded else {"user": MARK}
            for self._in_parts in (False, True):
                try:
                    rendered = self.render([{"role": role, "content": text} for role, text in roles.items()])
                    lost = [role for role, mark in roles.items() if mark not in rendered]
                    if not lost and rendered.count(MARK) == 1 and raw not in rendered:
                        return folded
                    raise self._error(
                        f"does not print the {lost[0]} message"
                        if lost
                        else "does not print the user message exactly once"
                    )
                except BackboneError as error:
                    problem = problem or error
        assert problem is not None
        raise problem

    def render(self, chat: list[dict[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Returns the chat as one text; with `add_generation_prompt`, up to where the assistant's answer begins.

        A block of thoughts that the template leaves open there is closed, since the answer stands after it.

        Raises:
            BackboneError: the template refuses the chat, what it prints after the message depends on the message, or
                nothing says how its block of thoughts ends.
        """
        prompt = self._rendered(chat, add_generation_prompt)
        if not add_generation_prompt:
            return prompt
        marked = [*chat[:-1], {**chat[-1], "content": MARK}]
        _, found, tail = self._rendered(marked, True).rpartition(MARK)
        if not found or not tail:  # `fit` refuses a template that does not print the message
            return prompt
        if not prompt.endswith(tail):
            raise BackboneError(
                f"{self._who} prints something else after a message with another text (got {prompt[-40:]!r}); set "
                "prompt.chat_template to another template"
            )
        try:
            before, mark, _ = self._rendered([*chat, {"role": "assistant", "content": MARK}], False).rpartition(MARK)
        except BackboneError:
            mark = ""
        known = "\n".join([str(self._arguments["chat_template"]), *self._tokenizer.get_added_vocab()])
        closed = close_thoughts(prompt, tail, before if mark else "", known)
        if closed is None:
            raise BackboneError(
                f"{self._who} opens a block of thoughts, and nothing says how it ends (got {tail.strip()!r}); switch "
                "thoughts off by prompt.template_kwargs, or set prompt.chat_template to another template"
            )
        return closed

    def _rendered(self, chat: list[dict[str, str]], add_generation_prompt: bool) -> str:
        messages: list[dict[str, Any]] = [*chat]
        if self._in_parts:
            messages = [{**one, "content": _parts(one["content"])} for one in chat]
        try:
            with _bounded_steps():
                text = str(
                    self._tokenizer.apply_chat_template(
                        messages, add_generation_prompt=add_generation_prompt, **self._arguments
                    )
                )
            if len(text) > MOST_CHARACTERS:
                raise ValueError(f"prints more than {MOST_CHARACTERS:,} characters")
            return text
        except TemplateSyntaxError as error:
            mend = "mend the file" if self._given else "set prompt.chat_template to another template"
            raise BackboneError(
                f"{self._who} has a mistake in line {error.lineno} ({error.message}); {mend}"
            ) from error
        except Exception as error:  # a template is code, and may raise anything
            raise self._error(f"refuses the chat ({first_line(error)})") from error

    def frame(self, chat: list[dict[str, str]]) -> Frame:
        """Returns the four parts around the user message, which is the last message of the chat."""
        left, right = self.render([*chat[:-1], {"role": "user", "content": MARK}]).split(MARK)
        start = max((end for _, end in self.tokens.find(left)), default=0)
        end = min((start for start, _ in self.tokens.find(right)), default=len(right))
        return Frame(left[:start], left[start:], right[:end], right[end:])

    def answer_frame(self, chat: list[dict[str, str]]) -> AnswerFrame:
        """Returns the parts around an answer to the chat.

        Where the template prints an answered chat in another way than it begins an answer, or no answer, the answer
        follows the prompt directly.
        """
        prompt = self.render(chat)
        answered = self.render([*chat, {"role": "assistant", "content": MARK}], add_generation_prompt=False)
        before, _, rest = answered.partition(MARK)
        found = self.tokens.find(rest)[:1]
        after, end = (rest[: found[0][1]], rest[slice(*found[0])]) if found else ("", None)
        return AnswerFrame(prompt, before.removeprefix(prompt) if before.startswith(prompt) else "", after, end)

    def _error(self, what: str) -> BackboneError:
        other = "prompt.chat_template to another template, or choose an instruction-tuned backbone"
        return BackboneError(
            f"{self._who} {what}; set prompt.system_role=user if it has no system role, "
            f"{'or mend the file' if self._given else other}"
        )

    def _refuse_unknown(self, template: str, arguments: Mapping[str, object]) -> None:
        own = {*inspect.signature(self._tokenizer.apply_chat_template).parameters, "messages", "date_string"}
        for name in arguments:
            if name in own:
                raise ConfigError(f"prompt.template_kwargs: {name} is set by loraft itself (got {name}); leave it out")
            if not re.search(rf"\b{re.escape(name)}\b", template):
                raise ConfigError(
                    f"prompt.template_kwargs: {self._who} has no such variable (got {name}); leave it out"
                )


@contextmanager
def _bounded_steps() -> Iterator[None]:
    """Stops a template that is rendered in the block after `MOST_STEPS` lines of the Python that Jinja makes of it.

    Raises:
        TimeoutError: it has taken so many.
    """
    steps, before = 0, sys.gettrace()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        if frame.f_code.co_filename != "<template>":
            return None
        steps += 1
        if steps > MOST_STEPS:
            raise TimeoutError(f"takes more than {MOST_STEPS:,} steps")
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _parts(text: str) -> list[dict[str, str]]:
    """A message's content as a list of parts."""
    return [{"type": "text", "text": text}]


def chosen_template(tokenizer: PreTrainedTokenizerBase, name: str | None) -> str:
    """The text of the template that is named, of the default one, or of one for a tokenizer that has none."""
    own = tokenizer.chat_template
    named: Mapping[str, str] = own if isinstance(own, Mapping) else {} if own is None else {"default": own}
    if name is None and named.keys() >= {"default"}:
        return str(named["default"])
    if name is None and not named:
        return _without_template(tokenizer)
    if name in named:
        return str(named[str(name)])
    if name is not None and "{" in name:  # the text of a template, as `config.schema` reads it from a file
        return name
    known = f"templates of {tokenizer.name_or_path}: {listed(named) or 'none'}"
    if name is not None and {".", "/"} & set(name):  # also of an earlier version's run, which kept the file's name
        raise ConfigError(f"prompt.chat_template: no such file (got {name}); write the template there; {known}")
    what = "no template is the default" if name is None else "no such template"
    raise ConfigError(
        f"prompt.chat_template: {what} (got {name}); {known}; --set prompt.chat_template={next(iter(named), './FILE')}"
    )


def _without_template(tokenizer: PreTrainedTokenizerBase) -> str:
    if all(tokenizer.convert_tokens_to_ids(marker) not in (None, tokenizer.unk_token_id) for marker in MARKERS):
        return FALLBACK_TEMPLATE
    warnings.warn(
        f"{tokenizer.name_or_path}: has no chat template, so the prompt is plain text; such a base model follows no "
        "instruction before it is tuned (prompt.chat_template=FILE gives it a template)",
        stacklevel=2,
    )
    return PLAIN_TEMPLATE
