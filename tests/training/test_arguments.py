"""The trainer's arguments are those of the config, and an accumulation window is one batch where that is allowed."""

import warnings
from typing import Any

import pytest
from helpers.training import rows, with_adapter

from loraft.config.schema import TrainConfig
from loraft.errors import Note
from loraft.training import memory
from loraft.training.arguments import fitted_batches, sft_config

# not among transformers' arguments
OURS = {
    "report_to", "metric", "early_stopping_patience", "class_weights", "sampling", "shared_prefix", "from_run", "keep",
}  # fmt: skip


def test_every_key_of_the_section_reaches_the_trainer() -> None:
    section = TrainConfig(
        num_train_epochs=2.5, max_steps=7, per_device_train_batch_size=3, gradient_accumulation_steps=5,
        learning_rate=1e-3, lr_scheduler_type="cosine", warmup_steps=4, weight_decay=0.01, max_grad_norm=0.5,
        optim="sgd", gradient_checkpointing=True, logging_steps=3, eval_steps=6, save_total_limit=4,
        report_to=["tensorboard", "comet_ml"],
    )  # fmt: skip
    assert all(
        value != getattr(TrainConfig(), name) for name, value in section.model_dump().items() if name not in OURS
    )
    args = sft_config(section, learning_rate=1e-3, output_dir="x", seed=11, on_cpu=True, fp16=False)
    given = {name: value for name, value in section.model_dump().items() if name not in OURS}
    assert args.activation_checkpointing is given.pop("gradient_checkpointing")
    assert {name: getattr(args, name) for name in given} == given
    assert (args.output_dir, args.seed, args.save_steps) == ("x", 11, 6)
    assert args.report_to == ["comet_ml"]  # the others get the lines of the log, see test_trackers


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


@pytest.mark.parametrize(
    ("metric", "key", "greater"),
    [("mcc", "mcc", True), ("f1:khen", "label_f1", True), ("mean_absolute_error", "mean_absolute_error", False)],
)
def test_the_metric_picks_the_checkpoint_in_its_direction(metric: str, key: str, greater: bool) -> None:
    section = TrainConfig(metric=metric)
    args = sft_config(section, learning_rate=1e-3, output_dir="x", seed=1, on_cpu=True, fp16=False)
    assert (args.metric_for_best_model, args.greater_is_better) == (key, greater)


def test_where_the_last_step_is_kept_no_checkpoint_is_the_best() -> None:
    section = TrainConfig(keep="last")
    args = sft_config(section, learning_rate=1e-3, output_dir="x", seed=1, on_cpu=True, fp16=False)
    assert (args.load_best_model_at_end, args.metric_for_best_model) == (False, None)
    with pytest.raises(ValueError, match=r"keep=last .* early_stopping_patience .*; set keep=best or leave"):
        TrainConfig(keep="last", early_stopping_patience=2)


WINDOW = TrainConfig(per_device_train_batch_size=2, gradient_accumulation_steps=3)


def sizes(section: TrainConfig) -> tuple[int, int]:
    return section.per_device_train_batch_size, section.gradient_accumulation_steps


def test_an_accumulation_window_becomes_one_batch_where_memory_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = with_adapter(), rows()
    assert sizes(fitted_batches(WINDOW, model, batch, 1)) == (6, 1)
    for kept in ({"shared_prefix": "off"}, {"gradient_checkpointing": True}, {"gradient_accumulation_steps": 1}):
        other = WINDOW.model_copy(update=kept)
        assert fitted_batches(other, model, batch, 1) == other
    asked: list[Any] = []
    monkeypatch.setattr(memory, "largest_fit", lambda *given, **named: asked.append((given, named)) or 3)
    assert sizes(fitted_batches(WINDOW, model, batch, 4)) == (3, 2)
    assert asked == [((model, batch, [6, 3, 2, 1], 4), {"packed": True, "recompute": False})]


def test_windows_stay_where_batches_may_have_to_be_padded_or_processes_would_have_to_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert fitted_batches(WINDOW, with_adapter("gemma2"), rows(), 1) == WINDOW
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert fitted_batches(WINDOW, with_adapter(), rows(), 1) == WINDOW


@pytest.mark.parametrize(("room", "of_6", "of_3_twice"), [(6, 6, 3), (5, 3, 3), (2.5, 2, 2), (1, 1, 1)])
def test_the_largest_even_part_of_a_step_that_fits_is_a_batch(
    room: float, of_6: int, of_3_twice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = with_adapter(), rows()[:1] * 6  # padded rows of one length: n of them take n times the memory
    longest = len(batch[0].input_ids)
    one = memory.activation_bytes(model, longest, longest)
    monkeypatch.setattr(memory, "free_bytes", lambda device: room * one / memory.SHARE)
    for batch_size, steps, expected in ((6, 1, of_6), (3, 2, of_3_twice)):
        section = TrainConfig(
            per_device_train_batch_size=batch_size, gradient_accumulation_steps=steps, shared_prefix="off"
        )
        short = pytest.warns(Note, match=f"a batch of {batch_size} rows may not fit .*; {expected} at a time, 6 a step")
        with warnings.catch_warnings() if expected == batch_size else short:
            warnings.simplefilter("error" if expected == batch_size else "always", Note)
            found = fitted_batches(section, model, batch, 1)
        assert (*sizes(found), found.gradient_checkpointing) == (expected, 6 // expected, False)


def test_activations_are_computed_twice_where_not_even_one_row_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = with_adapter(), rows()[:1] * 6
    longest = len(batch[0].input_ids)
    one = memory.activation_bytes(model, longest, longest, recompute=True)
    assert one < memory.activation_bytes(model, longest, longest)
    section = TrainConfig(per_device_train_batch_size=6, shared_prefix="off")
    for adapters, room, size in ((1, 1.2, 1), (1, 0.5, 1), (2, 2.2, 1)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, room=room: room * one / memory.SHARE)
        with pytest.warns(Note, match="computed twice"):
            found = fitted_batches(section, model, batch, adapters)
        assert (sizes(found), found.gradient_checkpointing) == ((size, 6 // size), True)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 3.5 * one / memory.SHARE)
    asked = section.model_copy(update={"gradient_checkpointing": True})
    with pytest.warns(Note, match="3 at a time") as told:
        assert sizes(fitted_batches(asked, model, batch, 1)) == (3, 2)
    assert "twice" not in str(told[0].message)
