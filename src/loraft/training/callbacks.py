"""Callbacks of the trainer: progress and log, seconds and tokens, saving on Ctrl-C."""

import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from loraft import distributed
from loraft.evaluation.choosing import DEFAULT, Metric
from loraft.progress import Stage

PARTS = 20  # of a training: only now and then it waits for the device to tell its loss
SECONDS_APART = 60.0  # what an interruption that nobody asked for can cost
LOGGED_SCORES = ("accuracy", "macro_f1", "macro_precision", "macro_recall", "micro_f1")
KEPT = ("loss", "learning_rate", "grad_norm", "epoch", "eval_loss", "eval_answer_loss",
        *(f"eval_{name}" for name in LOGGED_SCORES))  # fmt: skip


class ProgressCallback(TrainerCallback):
    """Shows the step with loss, metric, tokens per second and time left, and logs every report of the trainer.

    Train inside the context `stage`, which ends whatever ended the training.

    Args:
        append_log: takes one line of the log, ready for JSON.
        metric: shown beside the loss.
        name: of what is trained.
    """

    def __init__(
        self, append_log: Callable[[dict[str, Any]], None], *, metric: Metric = DEFAULT, name: str = "training"
    ) -> None:
        self.append_log, self.metric = append_log, metric
        self.tokens_seen: Callable[[], int] = lambda: 0  # tokens that went through the model so far
        self.recent_loss: Callable[[], float] | None = None  # before the first log has one
        self.stage = Stage(name, unit="steps")
        self.notes: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()
        self.stage.begin(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Shows the step; after the last one the loss since the last log is logged too."""
        if state.global_step >= state.max_steps:
            control.should_log = True
        if self.recent_loss is not None and state.global_step % max(1, state.max_steps // PARTS) == 0:
            self.notes["loss"] = f"loss {self.recent_loss():.4f}"
        speed = f"{self.tokens_per_second():,} tok/s"
        self.stage.advance(state.global_step - self.stage.done, note=", ".join([*self.notes.values(), speed]))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Logs loss and scores; the trainer's closing summary is left out, since metrics.json has it."""
        score, entry = f"eval_{self.metric.key}", self.kept(logs or {})
        if not any(key in entry for key in ("loss", score)):
            return
        entry = {"step": state.global_step, **entry, "seconds": round(time.perf_counter() - self.started, 3)}
        self.append_log(entry | {"tokens_per_second": self.tokens_per_second()})
        if "loss" in entry:
            self.recent_loss = None
        for key, name in (("loss", "loss"), (score, self.metric.word)):
            if key in entry:
                self.notes[name] = f"{name} {entry[key]:.4f}"

    def kept(self, logs: dict[str, Any]) -> dict[str, Any]:
        """What of a report the log keeps."""
        return {key: value for key, value in logs.items() if key in (*KEPT, f"eval_{self.metric.key}")}

    def tokens_per_second(self) -> int:
        """Tokens that went through the model, by seconds since the start."""
        elapsed = time.perf_counter() - self.started
        return round(self.tokens_seen() / elapsed) if elapsed > 0 else 0


class TrainingClock(TrainerCallback, ExportableState):
    """Counts seconds and tokens of a training, also over interruptions: every checkpoint holds the sums up to there.

    Args:
        checkpoint: that this process resumes from; None for a new training.
        rows_a_step: of all processes, which a checkpoint holds too.
    """

    def __init__(self, checkpoint: Path | None, rows_a_step: int | None = None) -> None:
        self.rows_a_step = rows_a_step
        self.tokens_seen: Callable[[], int] = lambda: 0  # tokens that went through the model in this process
        self._started: float | None = None
        self._before: dict[str, Any] = {"seconds": 0.0, "tokens": 0}
        if checkpoint is not None:
            state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            saved = state["stateful_callbacks"]
            # Checkpoints of earlier versions call this callback "Spent".
            self._before |= saved.get(type(self).__name__, saved.get("Spent", {})).get("attributes", {})

    def seconds(self) -> float:
        """Seconds of training so far, with evaluations and checkpoints."""
        return float(self._before["seconds"]) + (time.perf_counter() - self._started if self._started else 0.0)

    def tokens(self) -> int:
        """Tokens that went through the model in training."""
        return int(self._before["tokens"]) + self.tokens_seen()

    def state(self) -> dict[str, Any]:
        """What the trainer writes into a checkpoint."""
        return {
            "args": {},
            "attributes": {"seconds": self.seconds(), "tokens": self.tokens(), "rows": self.rows_a_step},
        }

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()
        state.stateful_callbacks[type(self).__name__] = self.state()  # the trainer expects an entry to replace


class SparseCheckpoints(TrainerCallback):
    """Lets a checkpoint be saved no sooner than `SECONDS_APART` after the start or the one before it.

    For a joint training, whose best weights lie elsewhere: its checkpoints serve to go on after an interruption, and
    with the optimizer's state of eight adapters they can be gigabytes. It stands before `SaveOnInterrupt`, which saves
    in any case.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self._saved = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Drops a checkpoint that is due by the number of steps."""
        control.should_save = control.should_save and time.perf_counter() - self._saved >= SECONDS_APART

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock anew."""
        self._saved = time.perf_counter()


SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SaveOnInterrupt(TrainerCallback):
    """On the first Ctrl-C or SIGTERM saves a checkpoint and then raises KeyboardInterrupt; the second stops at once.

    The exception holds the signal's number.

    Use it both as a callback of the trainer and as the context in which the trainer trains. Outside the main thread,
    where Python takes no signals, it does nothing. Several processes save after the same step, also where the signal
    came to one of them; a launcher sends them a signal that they got already, so the second one does nothing.
    """

    def __init__(self) -> None:
        self.asked: int | None = None  # the number of the signal that came here
        self.agreed = 0  # the number of the one that all processes know of; 0: none
        self._told = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "SaveOnInterrupt":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if error is None and (number := distributed.largest(self.agreed or self.asked or 0)):
            distributed.part()
            raise KeyboardInterrupt(number)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks for a checkpoint once a signal has come."""
        # A signal that comes during the exchange is known here alone: all save after the next step.
        self.agreed = distributed.largest(self.asked or 0)
        if self.agreed:
            self._tell()
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the training; not before the checkpoint is written, or it would read as that of a finished training."""
        self.agreed = distributed.largest(self.agreed or self.asked or 0)  # asked: during the evaluation before it
        if self.agreed:
            control.should_training_stop = True

    def _ask(self, number: int, frame: Any) -> None:
        alone = not distributed.is_distributed()
        if (self.asked and alone) or distributed.lost() is not None:  # no step ends without the other process
            self._restore()
            raise KeyboardInterrupt(number)
        self._tell()
        self.asked = number

    def _tell(self) -> None:
        if not self._told and distributed.speaks():
            again = "" if distributed.is_distributed() else "; press Ctrl-C again to stop at once"
            print(f"interrupted: finishing and saving this step{again}", file=sys.stderr, flush=True)
        self._told = True

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
