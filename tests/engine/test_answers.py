"""Answers need each of their logits once, and their log-probabilities are sums over those."""

import torch

from loraft.engine.answers import answers_of, distinct_branches, score_reader, shared_starts, tree_of


def test_a_branch_that_begins_another_runs_with_it() -> None:
    assert distinct_branches([[1], [1, 2], [3], [], [1, 2]]) == [[1, 2], [3]]
    assert distinct_branches([[], []]) == [[]]


def test_every_token_of_an_answer_has_the_logits_that_predict_it() -> None:
    answers = answers_of([[1, 2, 9], [1, 9], [3, 4], [5]], last=3)
    assert answers.branches == [[1, 2], [3]]
    assert answers.cells == 6  # those of three tokens of the row, and of three of the branches
    assert answers.steps_K == [[(2, 1), (3, 2), (4, 9)], [(2, 1), (3, 9)], [(2, 3), (5, 4)], [(2, 5)]]


def test_branches_that_begin_alike_share_the_logits_of_that_beginning() -> None:
    branches = [[1, 2], [3], [1, 4, 5], [1, 4, 6]]
    assert tree_of(branches) == {(1,): 0, (1, 2): 1, (3,): 2, (1, 4): 3, (1, 4, 5): 4, (1, 4, 6): 5}
    assert shared_starts(branches) == [0, 0, 1, 2]
    answers = answers_of([[*branch, 9] for branch in branches])
    assert answers.cells == 7
    assert answers.steps_K[3] == [(0, 1), (1, 4), (4, 6), (6, 9)]


def test_log_probabilities_are_sums_over_the_tokens() -> None:
    torch.manual_seed(0)
    logits_BQV = torch.randn(2, 4, 10)
    answers = answers_of([[1, 2, 9], [1, 9], [3, 4], [5]])
    found_BK = score_reader(answers, logits_BQV.device)(logits_BQV)
    log_probs_BQV = logits_BQV.double().log_softmax(-1)
    expected_BK = torch.stack([sum(log_probs_BQV[:, q, token] for q, token in steps) for steps in answers.steps_K], 1)
    torch.testing.assert_close(found_BK, expected_BK, atol=1e-6, rtol=0)
