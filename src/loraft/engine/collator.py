"""Turns training examples into batches of tensors: packed behind their common prefix, or padded one below the other.

All prompts of a task begin with the same long instruction and differ in a short sentence. A packed batch is one row
`[prefix | suffix 1 | suffix 2 | ...]` that holds the common token ids once (picture in `layout`). Each suffix sees the
prefix and itself, and its position ids go on from the prefix. The gradient flows through the prefix, so loss and
gradient equal those of the padded batch. Only LoRA dropout differs: one dropout mask of the prefix serves all examples.

Letters: B examples, T tokens of a row, P prefix tokens, S cells of a suffix, Q answer tokens of the longest answer,
L answer tokens of the batch, K labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch

from loraft.engine.layout import bucket_size, common_prefix, padded_sizes

IGNORE = -100  # label of a token without a loss, as in transformers
OF_ANSWERS = ("weights", "held_out")  # what a batch has for each of its L answer tokens

# Whole-row attention computes all T * T pairs of tokens, but in a few large products. It is used where that is at most
# this many pairs more than the prefix and the suffixes need. Measured on 2 CPU cores.
MAX_EXTRA_PAIRS = 2**16


@dataclass
class TrainingRow:
    """One training example.

    Attributes:
        input_ids: token ids of the prompt and, behind it, of the answer.
        answer_start: index of the first answer token.
        label: index of the class.
        weight: factor of the example's loss.
        held_out: of several adapters that train together, the number of the one that does not learn from this example;
            -1: each of them does.
    """

    input_ids: list[int]
    answer_start: int
    label: int
    weight: float = 1.0
    held_out: int = -1


class TrainingRows(Sequence[TrainingRow]):
    """Training rows without a Python object for each; a `TrainingRow` is made when it is asked for.

    Args:
        prompts: token ids; each is the prompt of `repeated` rows in succession.
        answers_N: index of each row's answer, which is its `label`.
        completions_K: token ids of each answer.
        weights_K: factor of the loss of a row with that answer.
        given_K: tokens at the beginning of each answer that have no loss.
        repeated: rows of each prompt.
        held_out_N: of each row, see `TrainingRow`; none is held out by default.

    Raises:
        ValueError: there are more or fewer answers than rows.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        answers_N: np.ndarray,
        completions_K: Sequence[Sequence[int]],
        weights_K: np.ndarray,
        given_K: Sequence[int],
        repeated: int,
        held_out_N: np.ndarray | None = None,
    ) -> None:
        if len(answers_N) != repeated * len(prompts):
            raise ValueError(f"{len(answers_N)} answers for {len(prompts)} prompts with {repeated} rows each")
        self._prompts, self.answers_N = prompts, answers_N.astype(np.int32)
        self._completions_K, self._weights_K, self.given_K = completions_K, weights_K, given_K
        self._repeated, self._held_out_N = repeated, held_out_N

    def __len__(self) -> int:
        return len(self.answers_N)

    @overload
    def __getitem__(self, index: int) -> TrainingRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrainingRow]: ...
    def __getitem__(self, index: int | slice) -> TrainingRow | list[TrainingRow]:
        i = range(len(self))[index]
        if isinstance(i, range):
            return [self[number] for number in i]
        prompt, k = self._prompts[i // self._repeated], int(self.answers_N[i])
        start = len(prompt) + self.given_K[k]
        held_out = -1 if self._held_out_N is None else int(self._held_out_N[i])
        return TrainingRow([*prompt, *self._completions_K[k]], start, k, float(self._weights_K[k]), held_out)

    def mean_loss(self, learnt_NK: np.ndarray, answers_M: np.ndarray) -> float:
        """The loss of other rows with such answers as training counts it: in nats an answer token, with its weights.

        Args:
            learnt_NK: for each of N prompts, the log-probability of the tokens of each answer that have a loss.
            answers_M: index of the answer of each row; N prompts have as many rows each as those here.
        """
        tokens_K = np.array([len(ids) for ids in self._completions_K]) - np.array(self.given_K)
        of_rows_M = learnt_NK[np.arange(len(answers_M)) // self._repeated, answers_M] * self._weights_K[answers_M]
        return float(-of_rows_M.sum() / tokens_K[answers_M].sum())


def make_rows(
    prompts: Sequence[Sequence[int]],
    labels: Sequence[int] | np.ndarray,
    completions_K: Sequence[Sequence[int]],
    class_weights: str,
    held_out_N: np.ndarray | None = None,
) -> TrainingRows:
    """Returns one training row for each prompt.

    Args:
        prompts: token ids of each prompt.
        labels: the class of each.
        completions_K: token ids of each class's answer.
        class_weights: "balanced" gives a row of class k the weight N / (K n_k) for N rows, K classes that occur and
            n_k rows of class k, so that each class has the same total weight; anything else gives 1.
        held_out_N: of each row, see `TrainingRow`.
    """
    answers_N = np.asarray(labels)
    weights_K = _weights(answers_N, len(completions_K), class_weights)
    return TrainingRows(prompts, answers_N, completions_K, weights_K, [0] * len(completions_K), 1, held_out_N)


def _weights(answers_N: np.ndarray, classes: int, class_weights: str) -> np.ndarray:
    """The factor of the loss of each class, see `make_rows`."""
    counts_K = np.bincount(answers_N, minlength=classes)
    weights_K = np.ones(classes)
    if class_weights == "balanced":
        present_K = counts_K > 0
        weights_K[present_K] = len(answers_N) / (present_K.sum() * counts_K[present_K])
    return weights_K


def question_rows(
    prompts: Sequence[Sequence[int]],
    applies_NK: np.ndarray,
    completions_2K: Sequence[Sequence[int]],
    class_weights: str,
) -> TrainingRows:
    """Returns N K training rows: each prompt with the question of each label, prompt by prompt.

    The loss of a row is the cross-entropy, over the whole vocabulary, of the tokens of its right answer after those
    that yes and no share: prompt and label are given, the last word and the end of turn are learnt. The loss of a batch
    is the mean over its answer tokens, as of any other rows; the questions of a prompt are drawn independently.

    Args:
        prompts: token ids of each of the N prompts.
        applies_NK: whether each label applies.
        completions_2K: token ids of the answer that label k applies, for each k, and then that it does not.
        class_weights: as in `make_rows`, where each of the 2 K answers is a class.
    """
    num_labels = applies_NK.shape[1]
    answers = np.where(applies_NK, np.arange(num_labels), num_labels + np.arange(num_labels)).ravel()
    weights_2K = _weights(answers, len(completions_2K), class_weights)
    shared = [common_prefix([completions_2K[k], completions_2K[num_labels + k]]) for k in range(num_labels)]
    return TrainingRows(prompts, answers, completions_2K, weights_2K, shared * 2, num_labels)


def pack(rows: Sequence[TrainingRow]) -> dict[str, torch.Tensor]:
    """Returns the examples as one packed row.

    Returns:
        input_ids, position_ids, labels: (1, T).
        segments: (T,), 0 for the prefix and 1 to B for the suffixes.
        suffix_index: (B, S), index in the row of each suffix token, -1 for padding.
        suffix_slot: (T - P,), index in the flattened (B, S) of each suffix token: the inverse of suffix_index.
        predicting: (B, Q), index in its suffix, 0 to S - 1, of each token whose logits predict an answer token, -1 for
            padding.
        weights: (L,), the weight of each answer token.
        held_out: (L,), the number of the adapter that does not learn the answer token, or -1.
    """
    prefix = shared_prompt(rows)
    ids = list(rows[0].input_ids[:prefix])
    positions = list(range(prefix))
    labels = [IGNORE] * prefix
    segments = [0] * prefix
    weights: list[float] = []
    held_out: list[int] = []
    longest, extra = padded_sizes([len(row.input_ids) - prefix for row in rows], prefix)
    index_BS = torch.full((len(rows), longest), -1)
    predicting_BQ = torch.full((len(rows), max(len(row.input_ids) - row.answer_start for row in rows)), -1)
    slots: list[int] = []
    for number, row in enumerate(rows):
        own = len(row.input_ids) - prefix
        # Answer tokens are predicted by the tokens from the one before the answer up to the last but one.
        first = row.answer_start - 1 - prefix
        predicting_BQ[number, : own - 1 - first] = torch.arange(first, own - 1)
        # Extra tokens repeat the last token and its position after the answer, where no real token sees them.
        filling = min(extra, longest - own)
        extra -= filling
        length = own + filling
        index_BS[number, :length] = torch.arange(len(ids), len(ids) + length)
        slots += range(number * longest, number * longest + length)
        ids += row.input_ids[prefix:] + row.input_ids[-1:] * filling
        positions += [*range(prefix, len(row.input_ids)), *[len(row.input_ids) - 1] * filling]
        labels += [IGNORE] * (row.answer_start - prefix) + row.input_ids[row.answer_start :] + [IGNORE] * filling
        segments += [number + 1] * length
        weights += [row.weight] * (len(row.input_ids) - row.answer_start)
        held_out += [row.held_out] * (len(row.input_ids) - row.answer_start)
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "labels": torch.tensor([labels]),
        "segments": torch.tensor(segments),
        "suffix_index": index_BS,
        "suffix_slot": torch.tensor(slots),
        "predicting": predicting_BQ,
        "weights": torch.tensor(weights),
        "held_out": torch.tensor(held_out),
    }


def pack_if_smaller(rows: Sequence[TrainingRow]) -> dict[str, torch.Tensor] | None:
    """Returns the examples as one packed row; None where a padded batch has no more tokens."""
    packed = pack(rows)
    padded = len(rows) * bucket_size(max(len(row.input_ids) for row in rows))
    return packed if packed["input_ids"].numel() < padded else None


def shared_prompt(rows: Sequence[TrainingRow]) -> int:
    """Returns P, the number of tokens that the examples begin with and that predict no answer token."""
    first, prefix = rows[0].input_ids, rows[0].answer_start
    for row in rows:
        prefix = min(prefix, row.answer_start - 1)  # the token before the answer predicts its first token
        if row.input_ids[:prefix] != first[:prefix]:
            prefix = common_prefix([row.input_ids[:prefix], first[:prefix]])
    return prefix


def pad(rows: Sequence[TrainingRow], pad_id: int) -> dict[str, torch.Tensor]:
    """Returns the examples padded on the right: input_ids, attention_mask, labels (B, T); weights, held_out (L,)."""
    longest = max(len(row.input_ids) for row in rows)
    ids_BT = torch.full((len(rows), longest), pad_id)
    labels_BT = torch.full((len(rows), longest), IGNORE)
    mask_BT = torch.zeros((len(rows), longest), dtype=torch.long)
    weights: list[float] = []
    held_out: list[int] = []
    for b, row in enumerate(rows):
        length = len(row.input_ids)
        ids_BT[b, :length] = torch.tensor(row.input_ids)
        mask_BT[b, :length] = 1
        labels_BT[b, row.answer_start : length] = torch.tensor(row.input_ids[row.answer_start :])
        weights += [row.weight] * (length - row.answer_start)
        held_out += [row.held_out] * (length - row.answer_start)
    of_answers = {"weights": torch.tensor(weights), "held_out": torch.tensor(held_out)}
    return {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": labels_BT, **of_answers}


def equal_length_parts(inputs: dict[str, torch.Tensor], limit: int) -> list[dict[str, torch.Tensor]]:
    """Returns a padded batch in parts: its rows of up to `limit` tokens, and the longer ones by length, unpadded.

    Their loss sums add up to that of the batch. `architecture.rope_limit` says why they run by themselves.
    """
    lengths_B = inputs["attention_mask"].sum(1).clamp(min=limit)
    of_answers_L = (inputs["labels"] != IGNORE).nonzero()[:, 0]
    parts = []
    for length in lengths_B.unique():
        chosen_B = lengths_B == length
        part = {key: value[chosen_B, :length] for key, value in inputs.items() if key not in OF_ANSWERS}
        parts.append(part | {key: inputs[key][chosen_B[of_answers_L]] for key in OF_ANSWERS})
    return parts


def uses_whole_row_attention(inputs: dict[str, torch.Tensor]) -> bool:
    """Says whether fused layers treat a packed row as one suffix: T * T pairs of tokens instead of P * P + B S (P + S).

    `first_rows` stores the choice under the key `whole_row`; else it follows from the sizes and `MAX_EXTRA_PAIRS`.
    """
    if "whole_row" in inputs:
        return bool(inputs["whole_row"])
    (batch, longest), tokens = inputs["suffix_index"].shape, len(inputs["segments"])
    prefix = tokens - len(inputs["suffix_slot"])
    return bool(tokens**2 <= prefix**2 + batch * longest * (prefix + longest) + MAX_EXTRA_PAIRS)


def unpack(inputs: dict[str, torch.Tensor], pad_id: int) -> dict[str, torch.Tensor]:
    """Returns the padded batch of the same examples as a packed one, on its device."""
    return {key: value.to(inputs["labels"].device) for key, value in pad(rows_of(inputs), pad_id).items()}


def first_rows(inputs: dict[str, torch.Tensor], count: int) -> dict[str, torch.Tensor]:
    """Returns the packed batch of the first examples of a packed one.

    `whole_row` keeps the kind of attention that was chosen for the whole batch; a smaller batch might choose the other.
    """
    few = pack(rows_of(inputs)[:count]) | {"whole_row": torch.tensor(uses_whole_row_attention(inputs))}
    return {key: value.to(inputs["labels"].device) for key, value in few.items()}


def rows_of(inputs: dict[str, torch.Tensor]) -> list[TrainingRow]:
    """Returns the examples of a packed batch, without extra tokens; neither their classes nor who holds them out."""
    segments = inputs["segments"]
    ids, labels = inputs["input_ids"][0], inputs["labels"][0]
    prefix = ids[segments == 0].tolist()
    rows: list[TrainingRow] = []
    start = 0  # of the example's answer among all answer tokens
    for segment in range(1, int(segments.max()) + 1):
        own = segments == segment
        answers = (labels[own] != IGNORE).nonzero().flatten()
        row_ids = [*prefix, *ids[own][: int(answers[-1]) + 1].tolist()]  # after the answer come extra tokens only
        rows.append(TrainingRow(row_ids, len(row_ids) - len(answers), 0, float(inputs["weights"][start])))
        start += len(answers)
    return rows
