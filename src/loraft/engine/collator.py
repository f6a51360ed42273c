"""A training batch as tensors: packed behind a shared prefix, or padded; and the loss on its answers.

The prompt is long and the same for every row; the sentence is short. A packed batch is one row
`[prefix | suffix 1 | suffix 2 | ...]`: the longest common token-id prefix once, each suffix seeing the prefix and
itself, positions restarting after the prefix. The gradient flows through the prefix, so loss and gradient are those of
the padded batch; with LoRA dropout one mask serves the prefix of all rows. The LM head runs on the positions that
predict an answer token only.

Suffixes: B batch, T tokens, P prefix tokens, S tokens of the longest suffix, V vocabulary, A answer tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from loraft.engine.layout import common_prefix, room

IGNORE = -100
SQUARE = 2**16  # pairs of tokens more that attention may take to be a few plain products; measured on 2 CPU cores
Way = Literal["layers", "attention", "mask"]


@dataclass
class Row:
    """One training example: prompt and answer ids, where the answer starts, its label and its weight in the loss."""

    input_ids: list[int]
    answer_start: int
    label: int
    weight: float = 1.0


def make_rows(
    prompts: Sequence[Sequence[int]], labels: Sequence[int], completions_K: Sequence[Sequence[int]], class_weights: str
) -> list[Row]:
    """Returns the training rows; with `balanced` class weights N / (K n_k), whose mean over the rows is 1."""
    counts = np.bincount(np.asarray(labels), minlength=len(completions_K))
    weights = np.ones(len(completions_K))
    if class_weights == "balanced":
        present = counts > 0
        weights[present] = len(labels) / (present.sum() * counts[present])
    return [
        Row([*prompt, *completions_K[label]], len(prompt), int(label), float(weights[label]))
        for prompt, label in zip(prompts, labels, strict=True)
    ]


def pack(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Returns the batch as one row with a shared prefix, filled up to a size that comes back (`layouts.room`).

    What fills up is more of a row's last token and position behind its answer, unlabelled: nobody sees it.

    Returns:
        input_ids, position_ids, labels of shape (1, T); `segments` (T,), 0 for the prefix and 1.. for the suffixes,
        from which the mask is made on the device; `weights` (A,), one for each answer token; `suffix_index` (B, S), the
        place in the row of each suffix token, -1 for padding; `suffix_place` (T - P,), the inverse; and `predicting`
        (B, Q), those of the S tokens that predict an answer token, -1 for padding.
    """
    prefix = min(
        common_prefix([row.input_ids for row in rows]),
        min(row.answer_start for row in rows) - 1,  # the token before the answer predicts: it stays with its row
    )
    ids = list(rows[0].input_ids[:prefix])
    positions = list(range(prefix))
    labels = [IGNORE] * prefix
    segments = [0] * prefix
    weights: list[float] = []
    longest, spare = room([len(row.input_ids) - prefix for row in rows], prefix)
    index_BS = torch.full((len(rows), longest), -1)
    predicting_BQ = torch.full((len(rows), max(len(row.input_ids) - row.answer_start for row in rows)), -1)
    place: list[int] = []
    for segment, row in enumerate(rows, start=1):
        own = len(row.input_ids) - prefix
        first = row.answer_start - 1 - prefix
        predicting_BQ[segment - 1, : own - 1 - first] = torch.arange(first, own - 1)
        filling = min(spare, longest - own)
        spare -= filling
        length = own + filling
        index_BS[segment - 1, :length] = torch.arange(len(ids), len(ids) + length)
        place += range((segment - 1) * longest, (segment - 1) * longest + length)
        ids += row.input_ids[prefix:] + row.input_ids[-1:] * filling
        positions += [*range(prefix, len(row.input_ids)), *[len(row.input_ids) - 1] * filling]
        labels += [IGNORE] * (row.answer_start - prefix) + row.input_ids[row.answer_start :] + [IGNORE] * filling
        segments += [segment] * length
        weights += [row.weight] * (len(row.input_ids) - row.answer_start)
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "labels": torch.tensor([labels]),
        "segments": torch.tensor(segments),
        "suffix_index": index_BS,
        "suffix_place": torch.tensor(place),
        "predicting": predicting_BQ,
        "weights": torch.tensor(weights),
    }


def pad(rows: Sequence[Row], pad_id: int) -> dict[str, torch.Tensor]:
    """Returns the batch the plain way: right-padded rows (B, T) with an attention mask."""
    longest = max(len(row.input_ids) for row in rows)
    ids_BT = torch.full((len(rows), longest), pad_id)
    labels_BT = torch.full((len(rows), longest), IGNORE)
    mask_BT = torch.zeros((len(rows), longest), dtype=torch.long)
    weights: list[float] = []
    for b, row in enumerate(rows):
        length = len(row.input_ids)
        ids_BT[b, :length] = torch.tensor(row.input_ids)
        mask_BT[b, :length] = 1
        labels_BT[b, row.answer_start : length] = torch.tensor(row.input_ids[row.answer_start :])
        weights += [row.weight] * (length - row.answer_start)
    return {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": labels_BT, "weights": torch.tensor(weights)}


def is_square(inputs: dict[str, torch.Tensor]) -> bool:
    """Says whether attention over the whole row is at most `SQUARE` pairs more than over prefix and suffixes."""
    (batch, longest), tokens = inputs["suffix_index"].shape, len(inputs["segments"])
    prefix = tokens - len(inputs["suffix_place"])
    return tokens**2 <= prefix**2 + batch * longest * (prefix + longest) + SQUARE


def unpack(inputs: dict[str, torch.Tensor], pad_id: int) -> dict[str, torch.Tensor]:
    """Returns the padded batch that a shared-prefix batch stands for."""
    return {key: value.to(inputs["labels"].device) for key, value in pad(rows_of(inputs), pad_id).items()}


def first_of(inputs: dict[str, torch.Tensor], count: int) -> dict[str, torch.Tensor]:
    """Returns the shared-prefix batch of the first rows of one, with the kind of attention that all of it takes."""
    few = pack(rows_of(inputs)[:count]) | {"square": torch.tensor(is_square(inputs))}
    return {key: value.to(inputs["labels"].device) for key, value in few.items()}


def rows_of(inputs: dict[str, torch.Tensor]) -> list[Row]:
    """Returns the rows of a shared-prefix batch, without their label ids."""
    segments = inputs["segments"]
    ids, labels = inputs["input_ids"][0], inputs["labels"][0]
    prefix = ids[segments == 0].tolist()
    rows: list[Row] = []
    start = 0
    for segment in range(1, int(segments.max()) + 1):
        own = segments == segment
        answers = (labels[own] != IGNORE).nonzero().flatten()
        answer = len(answers)
        row_ids = [*prefix, *ids[own][: int(answers[-1]) + 1].tolist()]  # what follows the answer fills up
        rows.append(Row(row_ids, len(row_ids) - answer, 0, float(inputs["weights"][start])))
        start += answer
    return rows
