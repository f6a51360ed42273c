"""Interrupted training goes on where it was: the step in flight is finished and saved before the process stops."""

import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from peft import PeftModel
from transformers import TrainerCallback, TrainerState

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SaveOnInterrupt(TrainerCallback):
    """Turns the first Ctrl-C (or SIGTERM) into a checkpoint and a KeyboardInterrupt after it; the second stops at once.

    Use it both as a callback of the trainer and as the context in which the trainer trains. Outside the main thread,
    where Python takes no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "SaveOnInterrupt":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self.asked and error is None:
            raise KeyboardInterrupt

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks for a checkpoint once a signal has come."""
        if self.asked:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the training; only now, since the checkpoint says whether training was over by itself."""
        if self.asked:
            control.should_training_stop = True

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            self._restore()
            raise KeyboardInterrupt
        self.asked = True
        print("interrupted: the step in flight is finished and saved; again stops at once", file=sys.stderr, flush=True)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def newest_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint of the latest step, None if there is none.

    The trainer's state is written last: without it, a killed process left the folder half-written.
    """
    numbered: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        step = path.name.removeprefix("checkpoint-")
        if step.isdecimal() and _reads(path / "trainer_state.json", json.loads):
            numbered.append((int(step), path))
    return max(numbered)[1] if numbered else None


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was saved, as its name says."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def finished_training(checkpoint: Path) -> TrainerState | None:
    """The trainer's state at a checkpoint after which no step was due: the last one, or an early stop; else None.

    The trainer itself would take one step too many from there.
    """
    path = checkpoint / "trainer_state.json"
    callbacks = json.loads(path.read_text(encoding="utf-8"))["stateful_callbacks"]
    if not callbacks["TrainerControl"]["args"]["should_training_stop"]:
        return None
    return TrainerState.load_from_json(str(path))


def load_best(model: PeftModel, checkpoint: Path, state: TrainerState) -> None:
    """Puts the adapter of the best checkpoint into the model, as the trainer does after its last step."""
    best = Path(state.best_model_checkpoint or checkpoint).name
    model.load_adapter(str(checkpoint.parent / best), model.active_adapter, is_trainable=True)


def _reads(path: Path, parse: Callable[[str], Any]) -> bool:
    try:
        parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
