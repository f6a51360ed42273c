"""Packed and padded batches hold the same examples, and a packed one is the row that `layout` draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import label_sets
from helpers.tiny import encoder
from helpers.training import PAD, rows

from loraft.engine.collator import (
    IGNORE,
    TrainingRow,
    first_rows,
    make_rows,
    pack,
    pad,
    question_rows,
    rows_of,
    unpack,
    uses_whole_row_attention,
)
from loraft.engine.layout import bucket_size

PROMPT = [11, 12, 13, 14, 15]


def test_a_packed_batch_is_the_picture_of_the_layout() -> None:
    drawn = [
        TrainingRow([*PROMPT, 21, 22, 23], 6, 0, 1.0),
        TrainingRow([*PROMPT, 31, 32], 6, 0, 2.0),
        TrainingRow([*PROMPT, 41, 42, 43, 44], 8, 0, 3.0),
    ]
    inputs = {key: value.tolist() for key, value in pack(drawn).items()}
    suffixes = [21, 22, 23, 23, 23, 31, 32, 41, 42, 43, 44]
    hidden = [IGNORE] * 5
    padding = [-1, -1]
    assert inputs == {
        "input_ids": [[*PROMPT, *suffixes]],
        "position_ids": [[0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 5, 6, 5, 6, 7, 8]],
        "segments": [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3],
        "labels": [[*hidden, IGNORE, 22, 23, IGNORE, IGNORE, IGNORE, 32, IGNORE, IGNORE, IGNORE, 44]],
        "suffix_index": [
            [5, 6, 7, 8, 9, -1, -1, -1],
            [10, 11, *padding, *padding, *padding],
            [12, 13, 14, 15, *padding, *padding],
        ],
        "suffix_slot": [0, 1, 2, 3, 4, 8, 9, 16, 17, 18, 19],
        "predicting": [[0, 1], [0, -1], [2, -1]],
        "weights": [1.0, 1.0, 2.0, 3.0],
        "held_out": [-1, -1, -1, -1],
    }


def test_masked_labels_are_exactly_the_completion() -> None:
    for row, inputs in ((row, pad([row], PAD)) for row in rows()):
        supervised = inputs["labels"][0][inputs["labels"][0] != IGNORE].tolist()
        assert supervised == encoder().completions_K[row.label]
        assert inputs["labels"][0, row.answer_start - 1] == IGNORE


def test_a_padded_batch_has_its_padding_on_the_right_and_masked() -> None:
    short, long = TrainingRow([1, 2, 3], 2, 0, 0.5), TrainingRow([4, 5, 6, 7, 8], 3, 1, 2.0)
    assert {key: value.tolist() for key, value in pad([short, long], 9).items()} == {
        "input_ids": [[1, 2, 3, 9, 9], [4, 5, 6, 7, 8]],
        "attention_mask": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
        "labels": [[IGNORE, IGNORE, 3, IGNORE, IGNORE], [IGNORE, IGNORE, IGNORE, 7, 8]],
        "weights": [0.5, 2.0, 2.0],
        "held_out": [-1, -1, -1],
    }


def test_the_prefix_stops_before_the_token_that_predicts_the_answer() -> None:
    for batch in (rows(), rows()[:1] * 3):
        inputs = pack(batch)
        prefix = int((inputs["segments"] == 0).sum())
        assert prefix <= min(row.answer_start for row in batch) - 1
        assert prefix > 60  # the instruction is shared
    assert int((pack(rows()[:1] * 3)["segments"] == 0).sum()) == rows()[0].answer_start - 1


def test_a_packed_batch_is_filled_up_to_a_bucket_size() -> None:
    filled = 0
    for batch in (rows(), rows()[:1], rows()[:1] * 4, rows()[1:4], rows()[2:]):
        inputs = pack(batch)
        tokens, own = inputs["input_ids"].shape[1], int((inputs["segments"] == 0).sum())
        own += sum(len(row.input_ids) - own for row in batch)
        assert tokens == bucket_size(own) >= own
        assert inputs["suffix_index"].shape[1] % 8 == 0
        assert int(inputs["position_ids"].max()) < max(len(row.input_ids) for row in batch)
        assert rows_of(inputs) == [replace(row, label=0) for row in batch]
        filled += tokens - own
    assert filled > 0


def test_packing_and_unpacking_is_padding() -> None:
    expected = pad(rows("balanced"), PAD)
    for key, value in unpack(pack(rows("balanced")), PAD).items():
        torch.testing.assert_close(value, expected[key])


def test_the_first_rows_of_a_batch_attend_as_all_of_it() -> None:
    # 6 rows of short sentences behind an instruction of over 60 tokens: 2^16 pairs of tokens cover the difference, and
    # for 60 rows they do not.
    for batch, whole_row in ((rows(), True), (rows() * 10, False)):
        assert uses_whole_row_attention(pack(batch)) == whole_row
        few = first_rows(pack(batch), 4)
        assert rows_of(few) == [replace(row, label=0) for row in batch[:4]]
        assert uses_whole_row_attention(few) == whole_row
        assert uses_whole_row_attention(pack(batch[:4]))


def test_whole_row_attention_costs_at_most_the_extra_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = pack(rows())
    (batch, longest), tokens = inputs["suffix_index"].shape, inputs["input_ids"].shape[1]
    prefix = int((inputs["segments"] == 0).sum())
    more = tokens**2 - prefix**2 - batch * longest * (prefix + longest)
    for limit in (more - 1, more):
        monkeypatch.setattr("loraft.engine.collator.MAX_EXTRA_PAIRS", limit)
        assert uses_whole_row_attention(inputs) == (limit == more)


def test_balanced_class_weights_have_mean_one_and_give_each_label_the_same_total() -> None:
    batch = rows("balanced")
    assert sum(row.weight for row in batch) == pytest.approx(len(batch))
    totals = [sum(row.weight for row in batch if row.label == label) for label in range(3)]
    assert totals == pytest.approx([2, 2, 2])
    assert {row.weight for row in rows()} == {1.0}


def test_a_label_that_does_not_occur_takes_no_part_in_the_weights() -> None:
    made = make_rows([[1], [2], [3], [4]], [0, 0, 0, 2], [[5], [6], [7, 8]], "balanced")
    for prompts in ([[1], [2]], [[1]] * 8, []):
        with pytest.raises(ValueError, match="4 answers for"):
            make_rows(prompts, [0, 0, 0, 2], [[5], [6], [7, 8]], "none")
    assert [row.weight for row in made] == pytest.approx([4 / (2 * 3)] * 3 + [4 / (2 * 1)])  # N / (K n_k)
    assert [(row.input_ids, row.answer_start, row.label) for row in made[2:]] == [([3, 5], 1, 0), ([4, 7, 8], 1, 2)]


def test_each_label_of_each_prompt_is_a_row_that_predicts_its_answer_alone() -> None:
    made = label_sets.encoder()
    prompts = [prompt.ids for prompt in made.encode(["thầy dạy hay", "phòng nóng"])]
    applies = np.array([[True, False, False], [False, False, True]])
    rows = question_rows(prompts, applies, made.completions_K, "none")
    assert [row.label for row in rows] == [0, 4, 5, 3, 4, 2]
    asked = [made.tokenizer.decode(row.input_ids[len(prompts[0]) : row.answer_start]) for row in rows[:3]]
    assert asked == ["giảng viên:", "cơ sở vật chất:", "học phí:"]
    learnt = [made.tokenizer.decode(row.input_ids[row.answer_start :]) for row in rows]
    yes, no = " có<|eot_id|>", " không<|eot_id|>"
    assert learnt == [yes, no, no, no, no, yes]


def test_balanced_weights_count_the_answers_of_every_question() -> None:
    made, applies = label_sets.encoder(), np.array([[True, False, False]] * 3 + [[False, False, False]])
    rows = question_rows([[1]] * 4, applies, made.completions_K, "balanced")
    weights = np.zeros(6)
    for row in rows:
        weights[row.label] += row.weight
    np.testing.assert_allclose(weights, [3, 0, 0, 3, 3, 3])  # 12 rows, shared by the four answers that occur
