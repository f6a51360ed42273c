"""What a person sees while a model trains, and what the log keeps of it."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from loraft.errors import BackboneError

KEPT = ("loss", "learning_rate", "grad_norm", "epoch", "eval_loss", "eval_accuracy", "eval_macro_f1")


class ProgressCallback(TrainerCallback):
    """Draws a bar with loss, macro-F1, tokens per second and time left, and logs every report of the trainer.

    `bar` is a context: it is drawn inside it and gone after it, whatever ended the training. A loss that is not finite
    ends it.

    Args:
        append_log: takes one JSON-ready line of the log.
        tokens_seen: tells how many tokens went through the model so far.
        visible: draw the bar; nothing is drawn when stderr is no terminal.
    """

    def __init__(self, append_log: Callable[[dict[str, Any]], None], *, visible: bool) -> None:
        self.append_log = append_log
        self.tokens_seen: Callable[[], int] = lambda: 0
        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (visible and sys.stderr.isatty()),
        )
        self.notes: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()
        self.task = self.bar.add_task("train", total=state.max_steps, completed=state.global_step, note="")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Moves the bar."""
        self.bar.update(self.task, completed=state.global_step, note="  ".join(self.notes.values()))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Keeps loss and metrics; the trainer's closing summary is in metrics.json already."""
        logs = logs or {}
        if not math.isfinite(logs.get("loss", 0.0)):
            raise BackboneError(
                f"training: the loss is not finite at step {state.global_step} (got {logs['loss']}); lower "
                f"train.learning_rate (now {args.learning_rate:g})"
            )
        entry = {key: value for key, value in logs.items() if key in KEPT}
        if not any(key in entry for key in ("loss", "eval_macro_f1")):
            return
        elapsed = time.perf_counter() - self.started
        entry = {"step": state.global_step, **entry, "seconds": round(elapsed, 3)}
        entry["tokens_per_second"] = round(self.tokens_seen() / elapsed) if elapsed > 0 else 0
        self.append_log(entry)
        self.notes["speed"] = f"{entry['tokens_per_second']:,} tok/s"
        for key, name in (("loss", "loss"), ("eval_macro_f1", "macro-F1")):
            if key in entry:
                self.notes[name] = f"{name} {entry[key]:.4f}"
