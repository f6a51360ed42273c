"""What a training shows the model: rows with the tokens that carry loss, and the answers token by token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from transformers import PreTrainedTokenizerBase

from loraft.data.prompt import answers
from loraft.engine.collator import TrainingRow, shared_prompt
from loraft.engine.layout import common_prefix
from loraft.models.encoder import PROBE, Encoder
from loraft.training.dataset import TrainingData

SHOWN_ROWS = 3
WITHIN, APART, NONE = "in the first token", "a token of its own", "none"  # where the blank before a label word is


@dataclass(frozen=True)
class ShownRow:
    """A training row in three parts: tokens that all rows begin with, its own without loss, and those with loss.

    Attributes:
        row: its number in the data.
        answer: that is trained.
        weight: factor of its loss.
        own: number of its own tokens.
        text: the own part; "" where the data's sentences are not to be shown.
        loss: the text of each token with loss.
    """

    row: int
    answer: str
    weight: float
    own: int
    text: str
    loss: tuple[str, ...]


@dataclass(frozen=True)
class ShownPrompt:
    """Some rows, and the beginning of all: the number of its tokens and its text."""

    shared: int
    text: str
    rows: tuple[ShownRow, ...]


@dataclass(frozen=True)
class AnswerTokens:
    """An answer, its tokens after those that it shares with the answers it is compared with, and where its blank is."""

    answer: str
    shared: str
    tokens: tuple[str, ...]
    blank: str


def shown_prompt(encoder: Encoder, data: TrainingData, *, texts: bool) -> ShownPrompt:
    """The first training row of each of the first three answers; without `texts` no part of a sentence."""
    names, rows = answers(encoder.task), data.rows
    first: dict[int, tuple[int, TrainingRow]] = {}
    for number, row in enumerate(rows):
        first.setdefault(row.label, (number, row))
        if len(first) == min(SHOWN_ROWS, len(names)):
            break
    shared = shared_prompt(rows)
    ids = rows[0].input_ids[:shared]
    if not texts:  # all sentences may begin alike
        ids = ids[: common_prefix([ids, *encoder.encode([PROBE, "?"]).ids])]
    shown = tuple(
        ShownRow(
            row=int(data.numbers[number]),
            answer=names[row.label],
            weight=row.weight,
            own=row.answer_start - shared,
            text=_text(encoder.tokenizer, row.input_ids[shared : row.answer_start]) if texts else "",
            loss=pieces(encoder.tokenizer, row.input_ids[row.answer_start :]),
        )
        for number, row in first.values()
    )
    return ShownPrompt(shared, _text(encoder.tokenizer, ids), shown)


def answer_tokens(encoder: Encoder) -> tuple[AnswerTokens, ...]:
    """The tokens of each answer, in the order of `Encoder.completions_K`."""
    found: dict[int, AnswerTokens] = {}
    for group, shared in _compared(encoder):
        for k in group:
            before, own = encoder.completions_K[k][:shared], encoder.completions_K[k][shared:]
            text, first = _text(encoder.tokenizer, before), encoder.tokenizer.convert_ids_to_tokens(own[0])
            # Byte-level tokenizers write a blank as Ġ, those of SentencePiece as ▁.
            start = first[:1].replace("Ġ", " ").replace("▁", " ")
            blank = NONE if start != " " and text[-1:] != " " else WITHIN if start == " " and len(first) > 1 else APART
            found[k] = AnswerTokens(answers(encoder.task)[k], text, pieces(encoder.tokenizer, own), blank)
    return tuple(found[k] for k in sorted(found))


def collisions(encoder: Encoder) -> Iterator[str]:
    """Sentences on answers that one token does not tell apart, and on blanks that are not tokenised alike."""
    names = answers(encoder.task)
    scored = [ids[: len(ids) - encoder.unscored] for ids in encoder.completions_K]
    for group, shared in _compared(encoder):
        for i, j in combinations(group, 2):
            one, other = sorted((i, j), key=lambda k: len(scored[k]))
            if scored[other][: len(scored[one])] == scored[one]:
                yield f"{names[one]!r} is the beginning of {names[other]!r}: scores count the end of turn, too"
            elif scored[i][shared : shared + 1] == scored[j][shared : shared + 1]:
                yield f"{names[i]!r} and {names[j]!r} have the same first token: later tokens tell them apart"
    by_blank = {one.blank: one.answer for one in answer_tokens(encoder)}
    if len(by_blank) > 1:
        found = ", ".join(f"{blank} in {answer!r}" for blank, answer in by_blank.items())
        yield f"the blank before the label word is not tokenised alike: {found}"


def _compared(encoder: Encoder) -> list[tuple[list[int], int]]:
    """The answers among which scores choose, and how many tokens these share: all, or yes and no to each label."""
    count = len(encoder.task.labels)
    pairs = [[k, count + k] for k in range(count)]
    groups = pairs if encoder.task.kind == "multilabel" else [list(range(count))]
    return [(group, common_prefix([encoder.completions_K[k] for k in group])) for group in groups]


def pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, ...]:
    """The text of each token; tokens that only together make a character are one text."""
    found, held = [], list[int]()
    for number, token in enumerate(ids, 1):
        held.append(token)
        text = _text(tokenizer, held)
        if "\ufffd" not in text or number == len(ids):
            found.append(text)
            held = []
    return tuple(found)


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
