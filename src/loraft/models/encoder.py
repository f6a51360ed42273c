r"""Turn sentences and answers into token ids, by the same code for training, evaluation and prediction.

A prompt is encoded in three pieces. `chat_template` splits the rendered chat around the user message into head, before,
after and tail; here is a Llama 3 prompt of the shipped task "sentiment", with the sentence "thầy dạy hay":

    piece 1  head      <|begin_of_text|> ... <|start_header_id|>user<|end_header_id|>
    piece 2  before    \n\n
             message   Predict the sentiment ... Sentence: thầy dạy hay
             after     (empty)
    piece 3  tail      <|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n

1. Head and tail come from the template alone. They are encoded once, and special tokens in them get their own ids.
2. Before, message and after are joined and encoded as ordinary text (`split_special_tokens=True`): "<|eot_id|>" in a
   sentence becomes the ids of its characters. A sentence can therefore not end the user's turn, and neither can a
   demonstration, which is part of the message.
3. The ids of the three pieces are joined. Tokenizers cut a text at its special tokens before anything else, and the
   pieces meet at special tokens, so the ids are those of the whole chat encoded at once. `Encoder` checks this for one
   sentence when it is built, because a tokenizer may, for example, remove spaces beside special tokens.

Letters: N sentences, K labels.
"""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from loraft.data.prompt import Task, messages, user_parts
from loraft.errors import BackboneError, DataError
from loraft.models.chat_template import MARK, ChatTemplate

PROBE = "thầy dạy rất nhiệt tình , dễ hiểu ."  # the sentence of the check in step 3


@dataclass(frozen=True)
class Prompt:
    """Token ids of one prompt, up to where the answer begins; `cut` characters of its sentence were left out."""

    ids: list[int]
    cut: int = 0


class Encoder:
    """Encodes sentences and answers of one task for one tokenizer.

    Attributes:
        tokenizer, task, date_string, max_length: as given.
        completions_K: token ids of each label's answer: answer prefix, label word, end-of-turn token.
        end_of_turn: id of the token after an assistant's answer.
        template_hash: SHA-256 of the chat template.
        prompt_hash: SHA-256 of all that surrounds the sentence (chat template, system message, date, instruction) and
            of the answers.

    Args:
        tokenizer: of the backbone.
        task: labels and prompt.
        date_string: the date for chat templates that print one.
        max_length: tokens of a prompt with its longest answer.

    Raises:
        BackboneError: the chat template refuses the chat or does not print the user message once, the tokenizer has no
            end-of-turn token, or encoding in pieces gives other ids than encoding the whole chat.
        DataError: not even an empty sentence fits `max_length`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, task: Task, *, date_string: str, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.task = task
        self.max_length = max_length
        self.date_string = date_string
        template = ChatTemplate(tokenizer, date_string)
        self.template_hash = template.hash
        chat = messages(task, PROBE)
        chat[-1]["content"] = chat[-1]["content"].strip()  # as in `encode`; not every template strips messages
        frame = template.frame(chat)
        self._before, self._after = frame.before, frame.after
        self._head_ids = self._ids(frame.head, special=True)
        self._tail_ids = self._ids(frame.tail, special=True)
        self.end_of_turn = self._end_of_turn(template)
        self.completions_K = [[*self._ids(task.answer_prefix + word), self.end_of_turn] for word in task.label_words]
        parts = [self._head_ids, self._before, task.template, self._after, self._tail_ids, self.completions_K]
        self.prompt_hash = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        middle = self._ids(self._piece(PROBE, user_parts(task)))
        if self._ids(template.render(chat), special=True) != [*self._head_ids, *middle, *self._tail_ids]:
            raise BackboneError(
                f"{tokenizer.name_or_path}: encoding the chat in pieces differs from encoding it whole, so user text "
                "could not be kept apart from special tokens; choose another backbone"
            )
        self.encode([PROBE])  # raises an error at once if `max_length` is too small for any sentence

    def encode(self, texts: Sequence[str], demonstrations: Sequence[tuple[str, str]] = ()) -> list[Prompt]:
        """Returns one prompt for each text, with the same demonstrations in each.

        Args:
            texts: N sentences in NFC.
            demonstrations: pairs of sentence and label word; with one or more the few-shot template is used.

        Raises:
            DataError: the prompt does not fit `max_length` even with an empty sentence.
        """
        around = user_parts(self.task, demonstrations)
        available = self.max_length - len(self._head_ids) - len(self._tail_ids) - max(map(len, self.completions_K))
        prompts: list[Prompt] = []
        for text, ids in zip(texts, self._batch_ids([self._piece(text, around) for text in texts]), strict=True):
            cut = 0
            if len(ids) > available:
                kept, ids = self._shorten(text, around, len(ids), available)
                cut = len(text) - kept
            prompts.append(Prompt([*self._head_ids, *ids, *self._tail_ids], cut))
        return prompts

    def _piece(self, sentence: str, around: tuple[str, str]) -> str:
        """Piece 2 of the prompt: before, message and after. `around` is the text on both sides of the sentence."""
        return self._before + (around[0] + sentence + around[1]).strip() + self._after

    def _shorten(self, text: str, around: tuple[str, str], length: int, available: int) -> tuple[int, list[int]]:
        """Returns the number of characters kept, and the ids of piece 2, for the longest start of a sentence that fits.

        Args:
            text: the sentence.
            around: the text on both sides of it in the message.
            length: tokens of piece 2 with the whole sentence.
            available: tokens that piece 2 may have.
        """

        def ids_of(characters: int) -> list[int]:
            return self._ids(self._piece(text[:characters].rstrip(), around))

        empty = ids_of(0)
        if len(empty) > available:
            rest = self.max_length - available
            raise DataError(
                f"prompt: {length + rest} tokens do not fit, and the instruction and demonstrations alone take "
                f"{len(empty) + rest} (got prompt.max_length={self.max_length}); use fewer shots or --set "
                "prompt.max_length=..."
            )
        low, high = 0, len(text)  # bisection: `low` characters fit, more than `high` do not
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if len(ids_of(middle)) <= available else (low, middle - 1)
        return low, ids_of(low)

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        """The ids of a text; with `special`, special tokens in it get their own ids."""
        if not text:
            return []
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=not special)["input_ids"])

    def _batch_ids(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, special tokens as ordinary text."""
        if not texts:
            return []
        return list(self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _end_of_turn(self, template: ChatTemplate) -> int:
        """Returns the first of the tokenizer's special tokens (EOS, pad, ...) after an answer; EOS if there is none."""
        chat = [*messages(self.task, PROBE), {"role": "assistant", "content": MARK}]
        rendered = template.render(chat, add_generation_prompt=False)
        ids = self._ids(rendered.split(MARK)[-1], special=True)
        special = set(self.tokenizer.all_special_ids)
        first = next((i for i in ids if i in special), self.tokenizer.eos_token_id)
        if first is None:
            raise BackboneError(
                f"{self.tokenizer.name_or_path}: has no end-of-turn or end-of-sequence token; choose another backbone"
            )
        return int(first)


def warn_of_cuts(prompts: Sequence[Prompt], what: str) -> int:
    """Warns if sentences were shortened, and returns their number; `what` says which sentences, for the message."""
    cut = sum(prompt.cut > 0 for prompt in prompts)
    if cut:
        warnings.warn(f"{cut} of {len(prompts)} {what} sentences were shortened to fit prompt.max_length", stacklevel=2)
    return cut
