"""Warnings about results: when each is given, and which key it names."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loraft.config.resolve import resolve
from loraft.data.dataset import SET_ASIDE, Split
from loraft.data.records import Example
from loraft.errors import ConfigError
from loraft.evaluation import advice
from loraft.evaluation.classification_report import EvaluationReport, classification_report
from loraft.evaluation.enough_rows import more_rows, refuse_unmeasured

LABELS = ["negative", "neutral", "positive"]


def split(name: str, counts: tuple[int, int, int], text: str = "") -> Split:
    """So many rows of each label, each with a sentence of its own."""
    ids = [k for k, count in enumerate(counts) for _ in range(count)]
    rows = [Example(f"{text or name} {chr(0x1EA0 + n % 90) * 4} số {n * 7919}", k, n) for n, k in enumerate(ids)]
    return Split(name, tuple(rows), "rows")


def judged(test: Split, predictions: list[int]) -> EvaluationReport:
    return classification_report(test.labels, None, predictions, LABELS, bootstrap_samples=100, confidence=0.95, seed=0)


def said(train: Split | None, test: Split, predictions: list[int], output: Path, **changed: Any) -> list[str]:
    report = replace(judged(test, predictions), **changed)
    return advice.of_evaluation(resolve(flags={"output": str(output)}), report, test, predictions, train)


def test_nothing_is_said_of_a_good_model_on_many_rows(tmp_path: Path) -> None:
    train, test = split("train", (200, 200, 200)), split("test", (200, 200, 200))
    assert said(train, test, test.labels.tolist(), tmp_path) == []


def test_labels_that_are_never_predicted_or_have_few_rows_are_named(tmp_path: Path) -> None:
    train, test = split("train", (200, 19, 200)), split("test", (200, 9, 200))
    never, few, rare = said(train, test, [0] * 209 + [2] * 200, tmp_path)
    assert never.startswith("never predicted: neutral (9); train.class_weights=balanced")
    assert few.startswith("fewer than 20 training rows: neutral (19); add rows")
    assert rare.startswith("fewer than 10 test rows: neutral (9)")
    assert rare.endswith("more rows in data.test_split help")


def test_keys_are_those_that_help_here(tmp_path: Path) -> None:
    test = split("test", (200, 9, 200))
    predictions = [0] * 209 + [2] * 200
    report = judged(test, predictions)
    told = advice.of_evaluation(resolve(), report, test, predictions, None, zero_shot=True)
    assert told[0] == "never predicted: neutral (9)"
    own = Split("train", test.examples, "rows")
    *_, rare = advice.of_evaluation(resolve(), report, own, predictions, None)
    assert rare.startswith("fewer than 10 train rows: neutral (9)")
    drawn = resolve(overrides=["data.split=[0.8, 0.1, 0.1]"])
    *_, rare = advice.of_evaluation(drawn, report, test, predictions, None)
    assert rare.endswith("; a larger share in data.split (now [0.8, 0.1, 0.1]), or train --folds 5, helps")
    many = resolve(overrides=["data.max_test_rows=1000"])  # leaves no row out
    *_, rare = advice.of_evaluation(many, report, test, predictions, None)
    assert rare.endswith("; more rows in data.test_split help")


def test_rows_that_were_left_out_of_a_training_once_are_no_leaks_and_conflict_with_each_other(tmp_path: Path) -> None:
    whole = split("train", (60, 60, 60))
    whole = Split("train", (*whole.examples, Example(whole.examples[0].text, 2, 181)), "rows")
    fold = Split("train", whole.examples[2:], "rows")
    report, config = judged(whole, whole.labels.tolist()), resolve(flags={"output": str(tmp_path)})
    told = advice.of_evaluation(config, report, whole, whole.labels.tolist(), fold, out_of_fold=True)
    assert [one.partition(";")[0] for one in told] == [
        "2 training rows have a text that also stands with another label"
    ]


def test_a_metric_that_no_row_measures_is_told_and_refused_where_it_chooses(tmp_path: Path) -> None:
    test, config = split("test", (200, 0, 200)), resolve(overrides=["train.metric=f1:neutral"])
    found, *_ = advice.of_evaluation(config, judged(test, test.labels.tolist()), test, test.labels.tolist(), None)
    assert found.startswith("no test row has the label of train.metric=f1:neutral, so it says nothing; more rows in")
    limited = resolve(overrides=["train.metric=f1:neutral", "data.max_eval_rows=8"])
    validation = Split("validation", test.examples[:8], "rows")
    expected = (
        "train.metric: no validation row has the label that it chooses by (got f1:neutral, 8 rows);"
        " raise data.max_eval_rows (now 8), or choose another metric, such as macro_f1"
    )
    with pytest.raises(ConfigError, match=re.escape(expected)):
        refuse_unmeasured(limited, validation)
    refuse_unmeasured(resolve(overrides=["train.metric=f1:negative"]), validation)
    halved = replace(validation, examples=validation.examples[:4], notes={SET_ASIDE: 4})  # the limit is of both
    assert more_rows(limited, halved) == more_rows(limited, Split("calibration", halved.examples, "rows"))
    assert more_rows(limited, halved) == "raise data.max_eval_rows (now 8)"
    assert more_rows(resolve(), Split("calibration", halved.examples, "")) == "more rows in data.validation_split help"


def test_a_label_without_test_rows_that_is_predicted_is_told_since_it_lowers_the_macro_f1(tmp_path: Path) -> None:
    train, test = split("train", (200, 200, 200)), split("test", (200, 0, 200))
    found = said(train, test, [1, *test.labels.tolist()[1:]], tmp_path)
    assert "predicted, but no test row has it: neutral (1); the macro F1 counts it as an F1 of 0" in found[1]
    assert not any("neutral (" in sentence for sentence in said(train, test, test.labels.tolist(), tmp_path))


def test_shares_that_differ_between_splits_or_at_prediction_are_told(tmp_path: Path) -> None:
    train, test = split("train", (300, 300, 300)), split("test", (300, 100, 100))
    (between,) = said(train, test, test.labels.tolist(), tmp_path)
    assert between.startswith("label shares differ: negative is 33% of the training rows and 60% of the test rows;")
    assert "data.train_split" in between
    same = split("test", (300, 300, 300))
    (predicted,) = said(train, same, [0] * 500 + [1] * 200 + [2] * 200, tmp_path)
    assert predicted.startswith("label shares differ: negative is 33% of the training rows and 56% of the predictions;")
    assert "train.sampling=balanced" in predicted


def test_a_difference_of_shares_by_chance_is_not_told(tmp_path: Path) -> None:
    # 46 % of 63 rows instead of a third: z = 2.05. Level 0.01 for 3 labels needs 2.94, which 54 % have (z = 3.31).
    train = split("train", (300, 300, 300))
    for counts, told in (((29, 17, 17), False), ((34, 15, 14), True)):
        test = split("test", counts)
        found = said(train, test, test.labels.tolist(), tmp_path)
        assert any("shares" in sentence for sentence in found) == told


def test_rows_that_stand_in_train_are_counted_with_the_scores_on_the_rest(tmp_path: Path) -> None:
    train, test = split("train", (200, 200, 200)), split("test", (200, 200, 200))
    copied = [Example(train.examples[0].text, 0, 0), Example("A" + train.examples[1].text.lower() + " !", 0, 1)]
    test = Split("test", (*copied, *test.examples[2:]), "rows")
    # The two rows that stand in train are right, one other row is wrong: 597 of 598 are right on the rest.
    predictions = [*test.labels.tolist()[:-1], 0]
    (found,) = said(train, test, predictions, tmp_path)
    assert found.startswith("2 of 600 test rows stand in train (1 the same, 1 nearly the same); on the other 598:")
    assert f"accuracy {597 / 598:.4f}" in found
    assert found.endswith("data.drop_leaked=true trains without them")
    assert said(train, test, predictions, tmp_path) == [found]  # what is kept of these rows says the same
    everything = said(train, Split("test", train.examples, "rows"), train.labels.tolist(), tmp_path)
    assert "no other row is left" in everything[0]


def test_conflicting_rows_and_cut_text_are_told(tmp_path: Path) -> None:
    train, test = split("train", (200, 200, 200)), split("test", (200, 200, 200))
    train = Split("train", (*train.examples, Example(train.examples[0].text, 2, 601)), "rows")
    conflict, cut = said(train, test, test.labels.tolist(), tmp_path, cut=0.61)
    assert conflict.startswith("2 training rows have a text that also stands with another label; data.drop_conflicts")
    assert cut.startswith("61% of the text of the test rows was cut away; raise prompt.max_length (now 1024), or")
    assert len(said(train, test, test.labels.tolist(), tmp_path, cut=0.5)) == 1


def test_wide_intervals_name_the_limit_of_the_rows_or_the_split(tmp_path: Path) -> None:
    test = split("test", (20, 20, 20))
    wrong = [(k + 1) % 3 if n % 3 == 0 else k for n, k in enumerate(test.labels.tolist())]
    (found,) = said(None, test, wrong, tmp_path)
    assert found.startswith("95% intervals are wide on 60 rows: accuracy 23 points, macro F1 ")  # Wilson's for 40 of 60
    assert found.endswith("more rows in data.test_split help")
    config = resolve(overrides=["data.max_test_rows=60"])
    (limited,) = advice.of_evaluation(config, judged(test, wrong), test, wrong, None)
    assert limited.endswith("raise data.max_test_rows (now 60)")


def test_many_labels_are_counted_and_the_rows_of_the_rarest_named() -> None:
    labels = [f"nhãn {n}" for n in range(12)]
    numbers = iter(range(1, 67))
    (found,) = advice.rare({label: [next(numbers) for _ in range(n)] for n, label in enumerate(labels)})
    assert found.startswith(
        "fewer than 10 test rows: nhãn 1 (1), nhãn 2 (2), nhãn 3 (3), nhãn 4 (4), nhãn 5 (5) and 4 more;"
    )
    assert found.endswith("on single rows: nhãn 1 in row 1, nhãn 2 in row 2 and 3, nhãn 3 in row 4 and 5 and 6")
    assert advice.rare({"a": [], "b": range(10)}) == []
    assert "single rows" not in advice.rare({"a": range(4)})[0]
