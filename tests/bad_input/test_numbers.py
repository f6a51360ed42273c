"""Numbers out of bounds: every number of the config has a lower and an upper bound, and the message names it."""

from collections.abc import Iterator
from typing import Any, get_args

import annotated_types
import pytest
from helpers.bad_input import refusal

from loraft.config.diagnostics import as_section
from loraft.config.schema import Config
from loraft.config.section import Section

# Key, a value below or above its bounds, and the bound in words.
BELOW = {
    "seed": ("-1", "equal to 0"),
    "lora.r": ("0", "equal to 1"),
    "lora.lora_alpha": ("0", "greater than 0"),
    "lora.alpha_per_rank": ("-0.5", "greater than 0"),
    "lora.lora_dropout": ("-0.1", "equal to 0"),
    "prompt.max_length": ("31", "equal to 32"),
    "data.calibration_share": ("-0.1", "equal to 0"),
    "data.max_train_rows": ("0", "equal to 1"),
    "data.max_eval_rows": ("-5", "equal to 1"),
    "data.max_test_rows": ("0", "equal to 1"),
    "data.split_seed": ("-1", "equal to 0"),
    "train.num_train_epochs": ("0", "greater than 0"),
    "train.max_steps": ("-2", "equal to -1"),
    "train.per_device_train_batch_size": ("0", "equal to 1"),
    "train.gradient_accumulation_steps": ("0", "equal to 1"),
    "train.learning_rate": ("1e-320", "equal to 0.000000000001"),
    "train.warmup_steps": ("-1", "equal to 0"),
    "train.weight_decay": ("-0.01", "equal to 0"),
    "train.max_grad_norm": ("0", "greater than 0"),
    "train.logging_steps": ("0", "equal to 1"),
    "train.eval_steps": ("0", "equal to 1"),
    "train.save_total_limit": ("0", "equal to 1"),
    "train.early_stopping_patience": ("0", "equal to 1"),
    "eval.max_new_tokens": ("0", "equal to 1"),
    "eval.batch_tokens": ("63", "equal to 64"),
    "eval.bootstrap_samples": ("99", "equal to 100"),
    "eval.confidence": ("0", "greater than 0"),
    "fewshot.repeats": ("0", "equal to 1"),
    "sweep.trials": ("0", "equal to 1"),
    "sweep.cpus": ("0", "equal to 0.01"),
    "sweep.gpus": ("-1", "equal to 0"),
}
ABOVE = {
    "seed": ("4294967296", "less than 4294967296"),
    "lora.r": ("4097", "equal to 4096"),
    "lora.lora_alpha": ("1e300", "equal to 1000000"),
    "lora.alpha_per_rank": ("1e300", "equal to 1000000"),
    "lora.lora_dropout": ("1", "less than 1"),
    "prompt.max_length": ("1000000000000", "equal to 16777216"),
    "data.calibration_share": ("0.95", "equal to 0.9"),
    "data.max_train_rows": ("1" + "0" * 20, "equal to 1000000000"),
    "data.max_eval_rows": ("1000000001", "equal to 1000000000"),
    "data.max_test_rows": ("1e12", "equal to 1000000000"),
    "data.split_seed": ("4294967296", "less than 4294967296"),
    "train.num_train_epochs": ("1000000000", "equal to 10000"),
    "train.max_steps": ("1" + "0" * 20, "equal to 1000000000"),
    "train.per_device_train_batch_size": ("1000000000", "equal to 65536"),
    "train.gradient_accumulation_steps": ("1e9", "equal to 65536"),
    "train.learning_rate": ("1e7", "equal to 1000000"),
    "train.warmup_steps": ("1e10", "equal to 1000000000"),
    "train.weight_decay": ("1001", "equal to 1000"),
    "train.max_grad_norm": ("1e13", "equal to 1000000000000"),
    "train.logging_steps": ("1" + "0" * 30, "equal to 1000000000"),
    "train.eval_steps": ("1" + "0" * 30, "equal to 1000000000"),
    "train.save_total_limit": ("10001", "equal to 10000"),
    "train.early_stopping_patience": ("1000001", "equal to 1000000"),
    "eval.max_new_tokens": ("1000000", "equal to 65536"),
    "eval.batch_tokens": ("1000000000000000", "equal to 100000000"),
    "eval.bootstrap_samples": ("1000000000", "equal to 1000000"),
    "eval.confidence": ("1", "less than 1"),
    "fewshot.repeats": ("1000000000", "equal to 1000"),
    "sweep.trials": ("10001", "equal to 10000"),
    "sweep.cpus": ("1025", "equal to 1024"),
    "sweep.gpus": ("1.5", "equal to 1"),
}
COMMANDS = (["train"], ["eval", "--zero-shot"], ["fewshot"], ["sweep"], ["data"], ["config"])
CASES = [*BELOW.items(), *ABOVE.items()]


@pytest.mark.parametrize(("number", "case"), enumerate(CASES), ids=[f"{key}={value}" for key, (value, _) in CASES])
def test_a_number_out_of_bounds_is_refused_with_its_bound(number: int, case: tuple[str, tuple[str, str]]) -> None:
    key, (value, bound) = case
    refusal(
        [*COMMANDS[number % len(COMMANDS)], "--set", f"{key}={value}"],
        rf"{key}: not allowed \(got {value}, from --set\); should be (.* )?{bound}$",
    )


def numbers(section: type[Section] = Config, before: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Every key that is a number, with what bounds it; of lists, those of the items."""
    for name, info in section.model_fields.items():
        inside = as_section(info.annotation)
        if inside is not None:
            yield from numbers(inside, f"{before}{name}.")
            continue
        kinds = [info.annotation, *get_args(info.annotation)]
        metadata = [*info.metadata]
        for kind in kinds:
            metadata += [one for part in get_args(kind) for one in getattr(part, "metadata", [])]
        if {int, float} & {*kinds}:
            yield f"{before}{name}", metadata


def test_every_number_of_the_config_has_both_bounds_and_a_case_for_each() -> None:
    found = dict(numbers())
    own = {"data.split"}  # shares, which its own check bounds
    without = {
        key
        for key, metadata in found.items()
        if not any(isinstance(one, annotated_types.Ge | annotated_types.Gt) for one in metadata)
        or not any(isinstance(one, annotated_types.Le | annotated_types.Lt) for one in metadata)
    }
    assert without - own == set()
    assert set(found) - own == set(BELOW) == set(ABOVE)
