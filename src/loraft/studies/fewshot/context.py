"""The few-shot study: what demonstrations in the prompt reach, beside baselines and a tuned adapter.

One draw of demonstrations says little: the next may be ten points away. So every number of shots is measured with
several draws, on the same test rows, and reported with its spread.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import AutoConfig

from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.data.prompt import Task
from loraft.errors import DataError
from loraft.models.backbone import resolve_name
from loraft.models.load import build_encoder
from loraft.studies.fewshot.demonstrations import Draw, Ints

UNCUT = 10**9  # a limit on tokens that no prompt reaches


def check_context(
    config: Config, train: Split, test: Split, made: Sequence[Draw], shots: Sequence[int]
) -> dict[int, int]:
    """Length of the longest prompt and answer for each number of shots, in tokens. Loads no weights.

    A test sentence that is shortened even without demonstrations fills what they leave of the limit. Evaluation counts
    such rows; here they must fit without their sentence.

    Raises:
        DataError: a demonstration pushes a prompt over the context.
    """
    uncut = config.prompt.model_copy(update={"max_length": UNCUT})
    ruler = build_encoder(config.model_copy(update={"prompt": uncut}))
    context = _context(config)
    limit = min(config.prompt.max_length, context)
    answer = max(map(len, ruler.completions_K))
    if config.eval.decode == "generate":
        answer = max(answer, config.eval.max_new_tokens)
    plain_N = np.array([len(prompt.ids) for prompt in ruler.encode(test.texts)]) + answer
    cut_N = plain_N > limit
    if cut_N.any() and config.prompt.max_length > context:  # sentences are shortened to max_length only
        raise DataError(
            f"prompt.max_length: test row {test.examples[int(plain_N.argmax())].row} takes {plain_N.max()} tokens, over"
            f" the backbone's context (got {config.prompt.max_length}); --set prompt.max_length={context}"
        )
    nearest = config.fewshot.selection == "nearest"
    texts = ["" if cut else text for cut, text in zip(cut_N, test.texts, strict=True)]
    rows = list(range(len(test)))
    if not nearest:  # all rows bear the same: the longest sentences decide
        rows = sorted(rows, key=lambda i: -1 if cut_N[i] else -plain_N[i])[:3]
    longest = {}
    for k in shots:
        lengths = [
            (len(ruler.encode([texts[i]], own)[0].ids) + answer, i)
            for draw in (made[:1] if nearest else made)
            for i, own in zip(rows, of_rows(demonstrations_of(train, ruler.task, draw, k), rows), strict=True)
        ]
        tokens, i = max(lengths)
        if tokens > limit:
            smaller = [s for s in shots if 0 < s < k]
            of = f"test row {test.examples[i].row}{' without its sentence' if cut_N[i] else ''}"
            raise DataError(_too_long(config, k, tokens, of, context, smaller))
        longest[k] = limit if cut_N.any() else tokens
    return longest


def demonstrations_of(train: Split, task: Task, draw: Draw, shots: int) -> list[tuple[tuple[str, str], ...]]:
    """Sentences and label words, one list for all test rows or one for each."""
    return [
        tuple((train.examples[i].text, task.label_words[int(train.labels[i])]) for i in rows_k)
        for rows_k in chosen_rows(draw, shots)
    ]


def chosen_rows(draw: Draw, shots: int) -> Ints:
    """Indices of the demonstrations, R x shots; one empty list for all test rows where there are no shots."""
    return draw.rows(shots) if shots else draw.rows(0)[:1]  # all test rows bear the same: none


def of_rows(demonstrated: list[Any], rows: Sequence[int]) -> list[Any]:
    """The demonstrations of some test rows: the same for each of them, or each row's own."""
    return demonstrated * len(rows) if len(demonstrated) == 1 else [demonstrated[i] for i in rows]


def _too_long(config: Config, k: int, tokens: int, of: str, context: int, fitting: Sequence[int]) -> str:
    if tokens <= context:
        way = f"--set prompt.max_length={-(-tokens // 64) * 64 if -(-tokens // 64) * 64 <= context else tokens}"
    else:
        way = f"the backbone's context is {context}, choose another --model"
    fewer = f", or --shots {','.join(map(str, fitting))}" if fitting else ", or fewer --shots"
    return (
        f"fewshot.shots: the prompt with {k} shots takes {tokens} tokens for {of} (got"
        f" prompt.max_length={config.prompt.max_length}); {way}{fewer}"
    )


def _context(config: Config) -> int:
    """Tokens that the backbone can attend to, as its config says; read without its weights."""
    hub = {"revision": config.model.revision, "cache_dir": config.model.cache_dir}
    given = {key: value for key, value in hub.items() if value is not None}
    architecture = AutoConfig.from_pretrained(resolve_name(config.model.name), **given).get_text_config()
    return int(getattr(architecture, "max_position_embeddings", None) or UNCUT)
