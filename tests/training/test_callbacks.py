"""What a training logs and draws, the time and tokens that it took, and how a signal ends it."""

import json
import shutil
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.tiny import tokenizer
from helpers.training import rows, with_adapter

from loraft.config.schema import TrainConfig
from loraft.training import callbacks
from loraft.training.callbacks import SIGNALS, ProgressCallback, SaveOnInterrupt, SparseCheckpoints, TrainingClock
from loraft.training.dataset import TrainingData
from loraft.training.trainer import LabelTrainer

ARGS = SimpleNamespace(learning_rate=1e-3)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time that the callbacks see; the test sets `now`, in seconds."""
    time = SimpleNamespace(now=100.0)
    time.perf_counter = lambda: time.now
    monkeypatch.setattr(callbacks, "time", time)
    return time


# --- progress ---------------------------------------------------------------------------------------------------------


def test_the_log_holds_loss_and_scores_with_seconds_and_speed(clock: SimpleNamespace) -> None:
    lines: list[dict[str, Any]] = []
    progress = ProgressCallback(lines.append)
    progress.tokens_seen = lambda: 5001
    state = SimpleNamespace(max_steps=10, global_step=0)
    progress.on_train_begin(ARGS, state, None)
    clock.now += 2.0004
    state.global_step = 4
    logged = {"loss": 1.25, "grad_norm": 0.5, "learning_rate": 1e-3, "epoch": 0.5}
    scores = {"eval_accuracy": 0.75, "eval_macro_f1": 0.625, "eval_macro_precision": 0.5, "eval_macro_recall": 0.875}
    scored = {"eval_loss": 0.7, **scores, "epoch": 0.5}
    progress.on_log(ARGS, state, None, logs={**logged, "eval_runtime": 3.0})
    progress.on_log(ARGS, state, None, logs=scored)
    progress.on_log(ARGS, state, None, logs={"train_runtime": 9.0, "epoch": 1.0})  # the trainer's closing summary
    ours = {"step": 4, "seconds": 2.0, "tokens_per_second": 2500}  # 5001 / 2.0004
    assert lines == [{**ours, **logged}, {**ours, **scored}]
    progress.on_step_end(ARGS, state, control())
    assert progress.stage.note == "loss 1.2500, macro F1 0.6250, 2,500 tok/s"


def test_what_is_shown_begins_at_the_step_of_the_checkpoint_and_follows_the_steps() -> None:
    progress = ProgressCallback(lambda line: None)
    state = SimpleNamespace(max_steps=10, global_step=3)
    progress.on_train_begin(ARGS, state, None)
    stage = progress.stage
    assert (stage.first, stage.done, stage.total) == (3, 3, 10)
    progress.on_log(ARGS, state, None, logs={"loss": 0.5})
    state.global_step = 4
    progress.on_step_end(ARGS, state, control())
    assert stage.done == 4
    assert "loss 0.5000" in stage.note


def test_the_loss_is_shown_before_the_first_log_as_that_log_has_it(tmp_path: Path) -> None:
    data = TrainingData(rows(), tokenizer(), lambda model: {"macro_f1": 0.5})
    section = TrainConfig(max_steps=5, eval_steps=5, per_device_train_batch_size=2, logging_steps=3)
    lines: list[dict[str, Any]] = []
    progress, shown = ProgressCallback(lines.append), []
    progress.stage.advance = lambda count, note: shown.append(note.partition(",")[0])  # type: ignore[method-assign, assignment]
    trainer = LabelTrainer.build(with_adapter(), data, section, output_dir=str(tmp_path), seed=3, callbacks=[progress])
    progress.recent_loss = trainer.recent_loss
    trainer.train()
    logged = [f"loss {line['loss']:.4f}" for line in lines if "loss" in line]
    assert all(note.startswith("loss ") for note in shown)
    assert len(shown) == 5
    assert shown[2:4] == [logged[0], logged[0]]


def test_a_training_shorter_than_logging_steps_logs_the_loss_of_all_its_steps(tmp_path: Path) -> None:
    data = TrainingData(rows(), tokenizer(), lambda model: {"macro_f1": 0.5})
    logged: dict[int, list[tuple[int, float]]] = {}
    for every in (1, 3, 50):
        lines: list[dict[str, Any]] = []
        section = TrainConfig(max_steps=5, eval_steps=5, per_device_train_batch_size=2, logging_steps=every)
        callback = ProgressCallback(lines.append)
        LabelTrainer.build(
            with_adapter(), data, section, output_dir=str(tmp_path / str(every)), seed=3, callbacks=[callback]
        ).train()
        logged[every] = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    losses = [loss for _, loss in logged[1]]
    assert logged[3] == [(3, pytest.approx(sum(losses[:3]) / 3)), (5, pytest.approx(sum(losses[3:]) / 2))]
    assert logged[50] == [(5, pytest.approx(sum(losses) / 5))]


# --- time and tokens --------------------------------------------------------------------------------------------------


def saved_state(folder: Path, callbacks: dict[str, Any]) -> Path:
    (folder / "trainer_state.json").write_text(json.dumps({"stateful_callbacks": callbacks}), encoding="utf-8")
    return folder


def test_seconds_and_tokens_go_on_from_the_checkpoint(tmp_path: Path, clock: SimpleNamespace) -> None:
    attributes = {"seconds": 12.5, "tokens": 345}
    checkpoint = saved_state(tmp_path, {"TrainingClock": {"args": {}, "attributes": attributes}})
    for found, seconds, tokens in ((TrainingClock(None), 0.0, 0), (TrainingClock(checkpoint), 12.5, 345)):
        assert (found.seconds(), found.tokens()) == (seconds, tokens)
        state = SimpleNamespace(stateful_callbacks={})
        found.on_train_begin(None, state, None)
        found.tokens_seen = lambda: 55
        clock.now += 4
        assert (found.seconds(), found.tokens()) == (seconds + 4, tokens + 55)
        assert found.state()["attributes"] == {"seconds": seconds + 4, "tokens": tokens + 55, "rows": None}
        assert state.stateful_callbacks["TrainingClock"]["attributes"] == {
            "seconds": seconds,
            "tokens": tokens,
            "rows": None,
        }


def test_a_checkpoint_of_the_first_versions_calls_the_clock_by_another_name(tmp_path: Path) -> None:
    attributes = {"seconds": 12.5, "tokens": 345}
    clock = TrainingClock(saved_state(tmp_path, {"Spent": {"args": {}, "attributes": attributes}}))
    assert (clock.seconds(), clock.tokens()) == (12.5, 345)


def trained(folder: Path, checkpoint: Path | None = None) -> TrainingClock:
    """The clock of a training of 4 steps, which saves after steps 2 and 4."""
    section = TrainConfig(max_steps=4, eval_steps=2, per_device_train_batch_size=2, logging_steps=1)
    data = TrainingData(rows(), tokenizer(), lambda model: {"macro_f1": 0.5})
    clock = TrainingClock(checkpoint)
    trainer = LabelTrainer.build(
        with_adapter(), data, section, output_dir=str(folder), seed=3, callbacks=[clock]
    )  # fmt: skip
    clock.tokens_seen = lambda: trainer.tokens_seen
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return clock


def test_what_a_resumed_training_took_is_what_all_its_steps_took(tmp_path: Path) -> None:
    whole = trained(tmp_path)
    checkpoint = tmp_path / "checkpoint-2"
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    state["stateful_callbacks"]["TrainingClock"]["attributes"]["seconds"] = 5000.0
    path.write_text(json.dumps(state), encoding="utf-8")
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed = trained(tmp_path, checkpoint)
    assert resumed.tokens() == whole.tokens() > 0
    assert whole.seconds() < 4000 < 5000 < resumed.seconds() < 9000
    again = TrainingClock(tmp_path / "checkpoint-4")  # a second interruption would go on from here
    assert again.tokens() == whole.tokens()
    assert 5000 < again.seconds() <= resumed.seconds()


def test_a_checkpoint_that_does_not_say_what_it_took_is_continued(tmp_path: Path) -> None:
    trained(tmp_path)
    path = tmp_path / "checkpoint-2" / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    del state["stateful_callbacks"]["TrainingClock"]
    path.write_text(json.dumps(state), encoding="utf-8")
    shutil.rmtree(tmp_path / "checkpoint-4")
    assert trained(tmp_path, path.parent).tokens() > 0
    assert (tmp_path / "checkpoint-4").is_dir()


# --- signals ----------------------------------------------------------------------------------------------------------


def control() -> SimpleNamespace:
    return SimpleNamespace(should_save=False, should_training_stop=False)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_saves_after_the_step_and_then_interrupts(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    callback, quiet, asked = SaveOnInterrupt(), control(), control()
    with pytest.raises(KeyboardInterrupt), callback:
        callback.on_step_end(None, None, quiet)
        callback.on_save(None, None, quiet)
        signal.raise_signal(number)
        callback.on_step_end(None, None, asked)
        assert (asked.should_save, asked.should_training_stop) == (True, False)
        callback.on_save(None, None, asked)
    assert (quiet.should_save, quiet.should_training_stop) == (False, False)
    assert (asked.should_save, asked.should_training_stop) == (True, True)
    assert "finishing and saving this step" in capsys.readouterr().err
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_checkpoints_keep_a_distance_unless_the_user_interrupts(clock: SimpleNamespace) -> None:
    sparse, interrupt, given = SparseCheckpoints(), SaveOnInterrupt(), control()
    clock.now, saved = 0.0, []
    sparse.on_train_begin(None, None, given)
    for second in range(0, 200, 10):  # due after every step
        clock.now, given.should_save = float(second), True
        interrupt.asked = second == 150
        for callback in (sparse, interrupt):
            callback.on_step_end(None, None, given)
        if given.should_save:
            saved.append(second)
            sparse.on_save(None, None, given)
    assert saved == [60, 120, 150]


def test_the_second_signal_stops_at_once() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    reached = []
    with pytest.raises(KeyboardInterrupt), SaveOnInterrupt():
        signal.raise_signal(signal.SIGINT)
        reached.append(1)
        try:
            signal.raise_signal(signal.SIGINT)
            reached.append(2)
        finally:
            assert [signal.getsignal(each) for each in SIGNALS] == before  # a third one is Python's
    assert reached == [1]


def test_several_processes_save_after_the_same_step_and_a_repeated_signal_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    signalled, other, asked = SaveOnInterrupt(), SaveOnInterrupt(), control()
    with pytest.raises(KeyboardInterrupt) as stop, signalled:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # the launcher passes on what the terminal sent
    assert stop.value.args == (signal.SIGTERM,)
    assert capsys.readouterr().err.count("finishing and saving this step") == 1
    monkeypatch.setattr("loraft.distributed.largest", lambda number: max(number, signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt), other:
        other.on_step_end(None, None, asked)
        assert capsys.readouterr().err.count("finishing and saving this step") == 1
    assert asked.should_save is True


def test_a_signal_during_the_exchange_of_several_processes_waits_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    interrupt, asked = SaveOnInterrupt(), control()

    def exchanged(number: int) -> int:  # the others know of `number` when the signal comes
        if not interrupt.asked:
            signal.raise_signal(signal.SIGTERM)
        return number

    monkeypatch.setattr("loraft.distributed.largest", exchanged)
    with pytest.raises(KeyboardInterrupt) as stop, interrupt:
        interrupt.on_step_end(None, None, asked)
        assert asked.should_save is False
        interrupt.on_step_end(None, None, asked)
        assert asked.should_save is True
    assert stop.value.args == (signal.SIGTERM,)


def test_without_a_signal_nothing_happens_and_an_error_stays_itself() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with SaveOnInterrupt():
        pass
    with pytest.raises(ZeroDivisionError), SaveOnInterrupt():
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_outside_the_main_thread_it_leaves_signals_alone() -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with SaveOnInterrupt():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
