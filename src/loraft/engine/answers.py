"""Which logits the answers need, and their log-probabilities.

Letters: B rows, Q logits of a row, V vocabulary, K answers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from loraft.engine.layout import common_prefix
from loraft.engine.lm_head import Read
from loraft.engine.transfer import sent


class Answers(NamedTuple):
    """The logits that answers need behind a row: at its last tokens, then at the nodes of the tree of all branches.

    Branches that begin alike share the nodes of that beginning, so each of its tokens has one logit: see `tree_of`.

    Attributes:
        branches: token ids behind the row: the answers without their last tokens, which predict nothing, and without
            those that another one begins with. At least one, which may be empty.
        last: number of tokens at the end of the row.
        steps_K: of each answer and each of its tokens, the number 0 to Q - 1 of the logits that predict it, and its id.
    """

    branches: list[list[int]]
    last: int
    steps_K: list[list[tuple[int, int]]]

    @property
    def cells(self) -> int:
        """Q."""
        return self.last + len(tree_of(self.branches))


def answers_of(endings_K: Sequence[Sequence[int]], last: int = 1) -> Answers:
    """Returns what is needed for the given token ids of each answer behind a row of whose tokens `last` are needed."""
    all_branches = [list(ending[:-1]) for ending in endings_K]
    branches = distinct_branches(all_branches)
    nodes, steps_K = tree_of(branches), []
    for ending, branch in zip(endings_K, all_branches, strict=True):
        own = [last + nodes[tuple(branch[: n + 1])] for n in range(len(branch))]
        steps_K.append([*zip([last - 1, *own], ending, strict=True)])
    return Answers(branches, last, steps_K)


def tree_of(branches: Sequence[Sequence[int]]) -> dict[tuple[int, ...], int]:
    """Returns the nodes of the tree of branches: each beginning of one of them once, with its number.

    Numbers ascend along each branch, and over the branches. The node of a beginning is that of its last token.
    """
    nodes: dict[tuple[int, ...], int] = {}
    for branch in branches:
        for n in range(len(branch)):
            nodes.setdefault(tuple(branch[: n + 1]), len(nodes))
    return nodes


def shared_starts(branches: Sequence[Sequence[int]]) -> list[int]:
    """Returns for each branch how many of its first tokens an earlier one begins with."""
    return [
        max((common_prefix([branch, other]) for other in branches[:i]), default=0) for i, branch in enumerate(branches)
    ]


def distinct_branches(branches: Sequence[list[int]]) -> list[list[int]]:
    """Returns the branches that are not the beginning of another one, each once; at least one, which may be empty."""
    longest = [max((b for b in branches if b[: len(branch)] == branch), key=len) for branch in branches]
    return [list(branch) for branch in dict.fromkeys(map(tuple, longest))]


def score_reader(answers: Answers, device: torch.device) -> Read:
    """Returns a function from logits (B, Q, V) on a device to the answers' log-probabilities, (B, K) in float64."""
    pairs = sorted({step for steps in answers.steps_K for step in steps})
    number = {step: i for i, step in enumerate(pairs)}
    longest = max(map(len, answers.steps_K))
    # Each line of the table names the log-probabilities that add up; short ones are filled up with that of a zero.
    table = [[number[step] for step in steps] + [len(pairs)] * (longest - len(steps)) for steps in answers.steps_K]
    pairs_M2, table_KS = sent(device, np.array(pairs), np.array(table))

    def read(logits_BQV: torch.Tensor) -> torch.Tensor:
        log_probs_BQV = logits_BQV.float().log_softmax(-1)
        picked_BM = log_probs_BQV[:, pairs_M2[:, 0], pairs_M2[:, 1]].double()
        return F.pad(picked_BM, (0, 1)).index_select(1, table_KS.flatten()).unflatten(1, table_KS.shape).sum(-1)

    return read
