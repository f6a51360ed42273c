r"""Turn sentences and answers into token ids, by the same code for training, evaluation and prediction.

A prompt is encoded in three pieces. `chat_template` splits the rendered chat around the user message into head, before,
after and tail; here is a Llama 3 prompt of the shipped task "sentiment", with the sentence "thầy dạy hay":

    piece 1  head      <|begin_of_text|> ... <|start_header_id|>user<|end_header_id|>
    piece 2  before    \n\n
             message   Predict the sentiment ... Sentence: thầy dạy hay
             after     (empty)
    piece 3  tail      <|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n

1. Head and tail come from the template alone. They are encoded once, and special tokens in them get their own ids.
2. Before, message and after are encoded as one text, in which only the template's special tokens are special
   (`plain_text` has the way): "<|eot_id|>" in a sentence becomes the ids of its characters. A sentence can therefore
   not end the user's turn, and neither can a demonstration, which is part of the message.
3. The ids of the three pieces are joined. Tokenizers cut a text at its special tokens before anything else. Piece 2 is
   encoded between the special tokens that stand beside it, whose ids are then left out, since a tokenizer may treat the
   start of a text in another way, or remove spaces beside a special token. So the ids are those of the whole chat
   encoded at once; `Encoder` checks this for one sentence when it is built.

An answer's ids are those that the template gives the assistant's message, where it prints one after the same prompt.

A prompt that does not fit is shortened, first its demonstrations (`Encoder.fit`), then its sentence; instruction,
labels and answer never are.

Letters: N sentences, K labels.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, combinations, islice

from transformers import PreTrainedTokenizerBase

from loraft.data.prompt import Task, answers, messages, parse_answer, user_parts
from loraft.errors import BackboneError, ConfigError, DataError
from loraft.models import shortening
from loraft.models.chat_template import AnswerFrame, ChatTemplate
from loraft.models.prompts import Prompts, Shown, refuse_special_tokens
from loraft.models.suitability import FEWEST, warn_of_tokenizer

PROBE = "thầy dạy rất nhiệt tình , dễ hiểu ."  # the sentence of the check in step 3
KEPT_CALLS = 3  # of `Encoder.encode`: train, validation and test
AT_ONCE = 1024  # texts that the tokenizer gets in one call: what it returns beside the ids takes 100 bytes a token


class Encoder:
    """Encodes sentences and answers of one task for one tokenizer.

    Attributes:
        tokenizer, date_string, max_length: as given.
        task: as given; without a system role in the chat template, its system message is part of the user message.
        completions_K: token ids of each of `prompt.answers`: answer prefix, label word, end-of-turn token; with several
            labels a row, yes for each label and then no for each.
        end_of_turn: id of the token after an assistant's answer.
        head_ids, before, after, tail_ids: what the template puts around the message, see 1 and 2 above.
        unscored: number of tokens at the end of each completion that label scores leave out: the end of turn, or none
            with `prompt.score_end_of_turn`.
        template_hash: SHA-256 of the chat template.
        prompt_hash: SHA-256 of the answers and all around the sentence (template, system message, date, instruction).

    Args:
        tokenizer: of the backbone.
        task: labels and prompt.
        date_string: the date for chat templates that print one.
        max_length: tokens of a prompt with its longest answer.

    Raises:
        BackboneError: the chat template refuses the chat or does not print the user message once, the tokenizer has no
            end-of-turn token, or encoding in pieces gives other ids than encoding the whole chat.
        ConfigError: two labels have the same tokens, or `prompt.chat_template` or `prompt.template_kwargs` name
            something that does not exist.
        DataError: not even an empty sentence fits `max_length`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, task: Task, *, date_string: str, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.date_string = date_string
        self._warned = False
        self._encoded: dict[bytes, Prompts] = {}  # the last few calls by a hash of their texts, see `encode`
        template = ChatTemplate(tokenizer, date_string, task.chat_template, task.template_kwargs)
        self._tokens = template.tokens
        refuse_special_tokens(task, template.tokens, tokenizer.name_or_path)
        self.template_hash = template.hash
        if template.fit(system=bool(task.system), role=task.system_role):
            task = replace(task, system="", user_preamble=task.system + "\n\n")
        self.task = task
        chat = messages(task, PROBE)
        chat[-1]["content"] = chat[-1]["content"].strip()  # as in `encode`; not every template strips messages
        frame = template.frame(chat)
        self.before, self.after = frame.before, frame.after
        self.head_ids, self.tail_ids = self._tokens.ids(
            [self._tokens.rename(part) for part in (frame.head, frame.tail)]
        )
        # The special tokens on both sides of piece 2: the last one of the head, and the first one of the tail.
        self._opening = frame.head[slice(*self._tokens.find(frame.head)[-1])] if frame.head else ""
        self._closing = frame.tail[slice(*self._tokens.find(frame.tail)[0])] if frame.tail else ""
        answer_frame = template.answer_frame([*chat[:-1], {"role": "user", "content": PROBE}])
        end = tokenizer.eos_token_id if answer_frame.end is None else tokenizer.convert_tokens_to_ids(answer_frame.end)
        if end is None:
            raise BackboneError(
                f"{tokenizer.name_or_path}: has no end-of-turn or end-of-sequence token; choose another backbone"
            )
        self.end_of_turn = int(end)
        self.completions_K, end_tokens = self._completions(answer_frame)
        self.unscored = 0 if task.score_end_of_turn else end_tokens
        self._refuse_equal_answers(end_tokens)
        instruction = task.user_preamble + task.template
        parts = [self.head_ids, self.before, instruction, self.after, self.tail_ids, self.completions_K]
        self.prompt_hash = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        (middle,) = self._middle_ids([self._piece(PROBE, user_parts(task))])
        given = {"add_special_tokens": False, "split_special_tokens": False, "verbose": False}
        whole = tokenizer(template.render(chat), **given)["input_ids"]
        if whole != [*self.head_ids, *middle, *self.tail_ids]:
            who, other = tokenizer.name_or_path, "backbone"
            if task.chat_template is not None:
                who, other = "prompt.chat_template", "template"
            raise BackboneError(
                f"{who}: encoding the chat in pieces differs from encoding it whole, so user text could not be kept "
                f"apart from special tokens; choose another {other}"
            )
        self.encode([PROBE])  # raises an error at once if `max_length` is too small for any sentence

    def encode(self, texts: Sequence[str], demonstrations: Sequence[tuple[str, str]] = ()) -> Prompts:
        """Returns one prompt for each text, with the same demonstrations in each.

        Prompts that do not fit are shortened: their demonstrations as `fit` does it, then their sentence. A prompt does
        not depend on the other sentences. Prompts without demonstrations are kept for the next call with the same
        texts: the trials of a sweep share their splits and their encoder. Warns once if the tokenizer does not suit the
        sentences.

        Args:
            texts: N sentences in NFC.
            demonstrations: pairs of sentence and label word; with one or more the few-shot template is used.

        Raises:
            DataError: the prompt does not fit `max_length` even with an empty sentence.
        """
        key = b"" if demonstrations else _hash_of(texts)
        if key in self._encoded:
            return self._encoded[key]
        if len(texts) >= FEWEST and not self._warned:
            self._warned = True
            warn_of_tokenizer(
                self.tokenizer.name_or_path,
                texts,
                self._tokens.ids,
                lambda ids: self.tokenizer.batch_decode(ids, skip_special_tokens=True),
            )
        whole = Shown(tuple(demonstrations), sum(self._count(text) for text, _ in demonstrations))
        around = user_parts(self.task, demonstrations)
        short: Shown | None = None  # of the prompts that do not fit
        prompts, pieces = Prompts(), self._pieces(texts, around)
        empty = len(next(pieces))
        for text, ids in zip(texts, pieces, strict=True):
            shown, kept, cut = whole, ids, 0
            if len(ids) > self._available:
                shown = short = short or self.fit(demonstrations)
                kept, cut = self._shorten(text, user_parts(self.task, shown.pairs))
            prompts.append(self.head_ids, kept, self.tail_ids, counts=(len(ids) - empty, cut, *shown[1:]))
        if not demonstrations:
            self._encoded = dict([*self._encoded.items(), (key, prompts)][-KEPT_CALLS:])
        return prompts

    @property
    def longest_answer(self) -> int:
        """Tokens of the longest answer with its end of turn."""
        return max(map(len, self.completions_K))

    @property
    def shortest(self) -> int:
        """Tokens of the prompt with an empty sentence and the longest answer."""
        (middle,) = self._middle_ids([self._piece("", user_parts(self.task))])
        return len(self.head_ids) + len(middle) + len(self.tail_ids) + self.longest_answer

    def fit(self, demonstrations: Sequence[tuple[str, str]]) -> Shown:
        """Returns the demonstrations of a prompt that does not fit.

        Of the tokens that the prompt has for sentences, an equal share is the sentence's own: 1 / (k + 1) beside k
        demonstrations. Where the demonstrations do not fit the rest, the longest of them are cut to a common limit, by
        whole words and as `prompt.truncation` says; none vanishes. They do not depend on the sentence, so that all
        prompts that do not fit have the same ones.

        Args:
            demonstrations: k pairs of sentence and label word.

        Raises:
            DataError: the limit is below `shortening.FEWEST` tokens.
        """
        pairs = tuple(demonstrations)
        if not pairs:
            return Shown(())
        frame = user_parts(self.task, [("", word) for _, word in pairs])
        left = self._available - len(self._middle_ids([self._piece("", frame)])[0])
        texts, words = zip(*pairs, strict=True)
        short, limit = shortening.shared(
            texts, left * len(pairs) // (len(pairs) + 1), self._count, self.task.truncation
        )
        if limit < shortening.FEWEST:
            raise DataError(
                f"prompt: {len(pairs)} demonstrations leave {max(0, limit)} tokens for each of their sentences, of at"
                f" least {shortening.FEWEST} (got prompt.max_length={self.max_length}); use fewer shots or --set"
                " prompt.max_length=..."
            )
        tokens = sum(map(self._count, texts))
        return Shown(tuple(zip(short, words, strict=True)), tokens, tokens - sum(map(self._count, short)))

    def read(self, answers: Sequence[Sequence[int]]) -> list[tuple[str, int | None]]:
        """Returns each generated answer as text, and the id of the label that it names, None if it names none.

        An uncased vocabulary does not give back the words that it was given. So an answer with the ids of a label's own
        answer names that label, and words are compared with what the tokenizer makes of the label words, too.

        Args:
            answers: ids up to and without the end of turn.
        """

        def kept(text: str) -> str:
            """What is left of a text that was encoded and decoded."""
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            return unicodedata.normalize("NFC", str(self.tokenizer.decode(ids, skip_special_tokens=True))).strip()

        words = tuple(kept(word) or word for word in self.task.label_words)
        decoded = replace(self.task, answer_prefix=kept(self.task.answer_prefix), label_words=words)
        own = {tuple(ids[:-1]): k for k, ids in enumerate(self.completions_K)}
        found: list[tuple[str, int | None]] = []
        texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        for ids, text in zip(answers, texts, strict=True):
            label = own.get(tuple(ids))
            for task in (self.task, decoded):
                label = parse_answer(task, text) if label is None else label
            found.append((text, label))
        return found

    def _pieces(self, texts: Sequence[str], around: tuple[str, str]) -> Iterator[list[int]]:
        """Yields the ids of piece 2 with an empty sentence, and then with each of the sentences."""
        sentences = chain([""], texts)
        while some := list(islice(sentences, AT_ONCE)):
            yield from self._middle_ids([self._piece(sentence, around) for sentence in some])

    def _piece(self, sentence: str, around: tuple[str, str]) -> str:
        """Piece 2 of the prompt: before, message and after. `around` is the text on both sides of the sentence."""
        return self.before + (around[0] + sentence + around[1]).strip() + self.after

    @property
    def _available(self) -> int:
        """The tokens that piece 2 may have."""
        return self.max_length - len(self.head_ids) - len(self.tail_ids) - self.longest_answer

    def _shorten(self, text: str, around: tuple[str, str]) -> tuple[list[int], int]:
        """Returns the ids of piece 2 with as much of the sentence as fits, and the number of tokens left out.

        Args:
            text: the sentence.
            around: the text on both sides of it in the message.
        """
        units, available = shortening.characters(text), self._available

        def ids_of(sentence: str) -> list[int]:
            return self._middle_ids([self._piece(sentence, around)])[0]

        def with_units(count: int) -> list[int]:
            return ids_of(shortening.kept(units, count, self.task.truncation))

        empty, whole = ids_of(""), ids_of(text)
        if len(whole) <= available:
            return whole, 0
        if len(empty) > available:
            rest = self.max_length - available
            raise DataError(
                f"prompt: {len(whole) + rest} tokens do not fit, and the instruction and demonstrations alone take "
                f"{len(empty) + rest} (got prompt.max_length={self.max_length}); use fewer shots, a shorter "
                "prompt.template, or --set prompt.max_length=..."
            )
        expected = len(units) * (available - len(empty)) // (len(whole) - len(empty))
        found = with_units(shortening.most(len(units), expected, lambda count: len(with_units(count)) <= available))
        return found, len(whole) - len(found)

    def _count(self, text: str) -> int:
        """The tokens of a text by itself."""
        return len(self._tokens.ids([text])[0])

    def _middle_ids(self, pieces: Sequence[str]) -> list[list[int]]:
        """The ids of each piece 2, encoded between the special tokens that stand beside it."""
        opening, closing = self._tokens.rename(self._opening), self._tokens.rename(self._closing)
        start, stop = int(bool(opening)), -1 if closing else None
        return [ids[start:stop] for ids in self._tokens.ids([opening + piece + closing for piece in pieces])]

    def _completions(self, frame: AnswerFrame) -> tuple[list[list[int]], int]:
        """The ids of each label's answer with its end of turn, and the number of tokens of the end of turn."""
        context, before, after = map(self._tokens.rename, (frame.prompt, frame.before, frame.after))
        texts = [before + text for text in answers(self.task)]

        def continued(context: str) -> tuple[list[list[int]], int] | None:
            """Answers after a context; None if a token reaches over the border between the two."""
            (base,) = self._tokens.ids([context])
            without, whole = (self._tokens.ids([context + text + end for text in texts]) for end in ("", after))
            if any(ids[: len(base)] != base for ids in whole):
                return None
            parted = all(ids[: len(short)] == short for ids, short in zip(whole, without, strict=True))
            return [ids[len(base) :] for ids in whole], len(whole[0]) - len(without[0]) if parted else 1

        # Where a token reaches over the border, the answer's own ids follow those of the prompt: it is encoded after
        # the prompt's last special token, and with none by itself.
        specials = self._tokens.find(frame.prompt)
        last = frame.prompt[slice(*specials[-1])] if specials else ""
        found, end_tokens = continued(context) or continued(self._tokens.rename(last)) or continued("") or ([], 1)
        return (found, end_tokens) if after else ([[*ids, self.end_of_turn] for ids in found], 1)

    def _refuse_equal_answers(self, end_tokens: int) -> None:
        names = answers(self.task) if self.task.kind == "multilabel" else self.task.labels
        for (one, ids), (other, same) in combinations(zip(names, self.completions_K, strict=True), 2):
            if ids == same:
                tokens = self.tokenizer.convert_ids_to_tokens(ids[:-end_tokens])
                raise ConfigError(
                    f"prompt.label_words: to the tokenizer of {self.tokenizer.name_or_path} the labels {one!r} and "
                    f"{other!r} are the same (got the tokens {tokens} for both); give them other prompt.label_words"
                )


def _hash_of(texts: Sequence[str]) -> bytes:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data) + data)
    return digest.digest()
