"""Checks, before any weights are loaded, that every few-shot prompt fits the context; builds demonstrations from draws.

Shapes: N test rows, k demonstrations in a prompt, R lists of demonstrations: 1 where all test rows have the same, N
where each has its own.
"""

from collections.abc import Sequence

import numpy as np

from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.data.prompt import Task
from loraft.errors import DataError
from loraft.models.load import build_encoder
from loraft.models.positions import longest_prompt, positions_of_prompts
from loraft.studies.fewshot.demonstrations import Draw, Ints

Demonstrations = tuple[tuple[str, str], ...]  # pairs of sentence and label word, in the order of the prompt

LONGEST_ROWS = 3  # test rows that are measured where all of them have the same demonstrations


def check_context(
    config: Config, train: Split, test: Split, drawn: Sequence[Draw], shots: Sequence[int]
) -> dict[int, int]:
    """Returns the length in tokens of the longest prompt with its answer, for each number of shots.

    Test sentences that are too long without any demonstration are shortened in the evaluation, which reports their
    number, as in `loraft eval`. They are measured here with an empty sentence: only demonstrations that leave no tokens
    at all are refused.

    Args:
        config: gives tokenizer, prompt, `prompt.max_length` and how answers are decoded.
        train: the rows that demonstrations are taken from.
        test: the N rows to classify.
        drawn: the draws of demonstrations.
        shots: numbers of demonstrations.

    Raises:
        DataError: a prompt with demonstrations is longer than `prompt.max_length` or the backbone's context.
    """
    encoder = build_encoder(config, whole=True)  # so that true lengths are measured
    completion = encoder.longest_answer
    room = longest_prompt(config, completion) - completion  # tokens up to the answer, as in `Encoder.encode`
    plain_N = np.array([len(prompt.ids) for prompt in encoder.encode(test.texts)])
    cut_N = plain_N > room
    nearest = config.fewshot.selection == "nearest"
    texts = ["" if cut else text for cut, text in zip(cut_N, test.texts, strict=True)]
    # Rows to measure. With `nearest` all of them, since each has its own demonstrations. Otherwise the longest ones:
    # the same demonstrations are added to each row. Rows without their sentence come last. More than one is measured
    # because the tokens of a sentence may depend on the text before it.
    rows = list(range(len(test)))
    if not nearest:
        rows = sorted(rows, key=lambda i: -1 if cut_N[i] else -plain_N[i])[:LONGEST_ROWS]
    answer = max(completion, config.eval.max_new_tokens) if config.eval.decode == "generate" else completion
    longest = {}
    for k in shots:
        # The draws of `nearest` differ only in the order of the demonstrations: one of them is enough.
        lengths = [
            (len(encoder.encode([texts[i]], own)[0].ids), i)
            for draw in (drawn[:1] if nearest else drawn)
            for i, own in zip(rows, of_rows(demonstrations_of(train, encoder.task, draw, k), rows), strict=True)
        ]
        tokens, i = max(lengths)
        if tokens > room:
            smaller = [s for s in shots if 0 < s < k]
            row = f"test row {test.examples[i].row}{' without its sentence' if cut_N[i] else ''}"
            raise DataError(_too_long(config, k, (tokens, completion), row, smaller))
        longest[k] = (room if cut_N.any() else tokens) + answer
    return longest


def demonstrations_of(train: Split, task: Task, draw: Draw, shots: int) -> list[Demonstrations]:
    """The demonstrations of a draw: R lists of k pairs."""
    return [
        tuple((train.examples[i].text, task.label_words[int(train.labels[i])]) for i in rows_k)
        for rows_k in chosen_rows(draw, shots)
    ]


def chosen_rows(draw: Draw, shots: int) -> Ints:
    """Indices of the training rows of a draw, (R, k); with 0 shots one empty list, which serves all test rows."""
    return draw.rows(shots) if shots else draw.rows(0)[:1]


def of_rows(demonstrations: list[Demonstrations], rows: Sequence[int]) -> list[Demonstrations]:
    """The demonstrations of some test rows, given the one list for all of them or the N lists."""
    return demonstrations * len(rows) if len(demonstrations) == 1 else [demonstrations[i] for i in rows]


def _too_long(config: Config, k: int, lengths: tuple[int, int], row: str, smaller: Sequence[int]) -> str:
    """The message for a prompt and answer of these lengths; `smaller` are the numbers of shots that fit."""
    tokens, context = sum(lengths), positions_of_prompts(config, lengths[1])
    if tokens <= context:
        rounded = -(-tokens // 64) * 64
        remedy = f"--set prompt.max_length={rounded if rounded <= context else tokens}"
    else:
        remedy = f"the backbone's context leaves {context} for prompts, choose another --model"
    fewer = f", or --shots {','.join(map(str, smaller))}" if smaller else ", or fewer --shots"
    return (
        f"fewshot.shots: the prompt with {k} shots takes {tokens} tokens for {row} (got"
        f" prompt.max_length={config.prompt.max_length}); {remedy}{fewer}"
    )
