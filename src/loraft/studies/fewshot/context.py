"""Measures, before any weights are loaded, the prompts of a few-shot study; builds demonstrations from draws.

Shapes: N test rows, k demonstrations in a prompt, R lists of demonstrations: 1 where all test rows have the same, N
where each has its own.
"""

from collections.abc import Sequence

from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.data.prompt import Task
from loraft.errors import DataError
from loraft.models.load import build_encoder
from loraft.models.positions import longest_prompt
from loraft.models.prompts import Demonstrations
from loraft.studies.fewshot.demonstrations import Draw, Ints

LONGEST_ROWS = 3  # test rows that are measured where all of them have the same demonstrations


def check_context(
    config: Config, train: Split, test: Split, drawn: Sequence[Draw], shots: Sequence[int]
) -> dict[int, int]:
    """Returns the length in tokens of the longest prompt with its answer, for each number of shots.

    Demonstrations and sentences that do not fit are shortened, see `Encoder.fit`; the study reports by how much.

    Args:
        config: gives tokenizer, prompt, `prompt.max_length` and how answers are decoded.
        train: the rows that demonstrations are taken from.
        test: the N rows to classify.
        drawn: the draws of demonstrations.
        shots: numbers of demonstrations.

    Raises:
        DataError: so many demonstrations leave too few tokens for each of their sentences.
    """
    encoder = build_encoder(config)
    completion = encoder.longest_answer
    nearest = config.fewshot.selection == "nearest"
    # Rows to measure. With `nearest` all of them, since each has its own demonstrations. Otherwise the longest ones:
    # the same demonstrations are added to each row. More than one is measured because the tokens of a sentence may
    # depend on the text before it.
    lengths_N = [len(prompt.ids) + prompt.cut for prompt in encoder.encode(test.texts)]
    rows = sorted(range(len(test)), key=lambda i: -lengths_N[i])[: None if nearest else LONGEST_ROWS]
    answer = max(completion, config.eval.max_new_tokens) if config.eval.decode == "generate" else completion
    longest = {}
    for k in shots:
        # The draws of `nearest` differ only in the order of the demonstrations: one of them is enough.
        try:
            prompts = [
                encoder.encode([test.texts[i]], own)[0]
                for draw in (drawn[:1] if nearest else drawn)
                for i, own in zip(rows, of_rows(demonstrations_of(train, encoder.task, draw, k), rows), strict=True)
            ]
        except DataError as error:
            fits = [s for s in shots if 0 < s < k]
            fewer = f"--shots {','.join(map(str, fits))}" if fits else "fewer --shots"
            what = str(error).partition(": ")[2].partition("; ")[0]
            raise DataError(f"fewshot.shots: {what}; {fewer}, or a larger prompt.max_length") from None
        # Shortened prompts fill the limit, but for the tokens of a word or character that does not fit.
        shortened = any(prompt.cut or prompt.shown_cut for prompt in prompts)
        filled = longest_prompt(config, completion) - completion if shortened else 0
        longest[k] = max(filled, *(len(prompt.ids) for prompt in prompts)) + answer
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
