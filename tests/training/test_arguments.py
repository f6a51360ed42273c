"""The trainer's arguments are those of the config, and an accumulation window is one batch where that is allowed."""

from typing import Any

import pytest
from helpers.training import rows, with_adapter

from loraft.config.schema import TrainConfig
from loraft.training import memory
from loraft.training.arguments import sft_config, whole_window

OURS = {"early_stopping_patience", "class_weights", "sampling", "shared_prefix"}  # not among transformers' arguments


def test_every_key_of_the_section_reaches_the_trainer() -> None:
    section = TrainConfig(
        num_train_epochs=2.5, max_steps=7, per_device_train_batch_size=3, gradient_accumulation_steps=5,
        learning_rate=1e-3, lr_scheduler_type="cosine", warmup_steps=4, weight_decay=0.01, max_grad_norm=0.5,
        optim="sgd", gradient_checkpointing=True, logging_steps=3, eval_steps=6, save_total_limit=4,
        report_to=["tensorboard"],
    )  # fmt: skip
    assert all(
        value != getattr(TrainConfig(), name) for name, value in section.model_dump().items() if name not in OURS
    )
    args = sft_config(section, learning_rate=1e-3, output_dir="x", seed=11, on_cpu=True, fp16=False)
    given = {name: value for name, value in section.model_dump().items() if name not in OURS}
    assert args.activation_checkpointing is given.pop("gradient_checkpointing")
    assert {name: getattr(args, name) for name in given} == given
    assert (args.output_dir, args.seed, args.save_steps) == ("x", 11, 6)


def test_upstream_defaults_that_would_surprise_are_set() -> None:
    args = sft_config(TrainConfig(), learning_rate=1e-3, output_dir="x", seed=1, on_cpu=True, fp16=False)
    expected: dict[str, Any] = {
        "activation_checkpointing": False, "bf16": False, "report_to": [], "logging_nan_inf_filter": False,
        "load_best_model_at_end": True, "metric_for_best_model": "macro_f1", "greater_is_better": True, "use_cpu": True,
        "dataloader_pin_memory": False, "remove_unused_columns": False, "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False, "disable_tqdm": True, "push_to_hub": False,
    }  # fmt: skip
    assert {name: getattr(args, name) for name in expected} == expected
    assert args.dataset_kwargs == {"skip_prepare_dataset": True}
    assert [str(strategy.value) for strategy in (args.eval_strategy, args.save_strategy)] == ["steps", "steps"]


WINDOW = TrainConfig(per_device_train_batch_size=2, gradient_accumulation_steps=3)


def sizes(section: TrainConfig) -> tuple[int, int]:
    return section.per_device_train_batch_size, section.gradient_accumulation_steps


def test_an_accumulation_window_becomes_one_batch_where_memory_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = with_adapter(), rows()
    assert sizes(whole_window(WINDOW, model, batch, 1)) == (6, 1)
    for kept in ({"shared_prefix": "off"}, {"gradient_checkpointing": True}, {"gradient_accumulation_steps": 1}):
        other = WINDOW.model_copy(update=kept)
        assert whole_window(other, model, batch, 1) == other
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(memory, "fits", lambda *given: asked.append(given) or False)
    assert whole_window(WINDOW, model, batch, 4) == WINDOW
    assert asked == [(model, batch, 6, 4)]  # 6 rows, for each of 4 adapters


def test_windows_stay_where_batches_may_have_to_be_padded_or_processes_would_have_to_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert whole_window(WINDOW, with_adapter("gemma2"), rows(), 1) == WINDOW
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert whole_window(WINDOW, with_adapter(), rows(), 1) == WINDOW
