"""Where the time of a sweep goes, by part: functions of loraft are wrapped by clocks that stop one another."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch

# Each part, and the functions in which its time is spent, where they are called: module, then names in it.
PARTS: dict[str, list[tuple[str, str]]] = {
    "reading data": [("studies.sweep.shared_backbone", "training_splits")],
    "loading the backbone": [("studies.sweep.shared_backbone", "load_backbone")],
    "encoding": [
        ("studies.sweep.shared_backbone", "build_encoder"), ("models.encoder", "Encoder.encode"),
        ("studies.sweep.joint_pass", "prepare"), ("training.pipeline", "prepare"),
    ],
    "checks of the backbone": [("studies.sweep.shared_backbone", "weights_hash"), ("models.manifest", "fingerprint")],
    "adapters": [
        ("studies.sweep.joint_pass", "add_adapters"), ("studies.sweep.joint_pass", "count_trainable"),
        ("studies.sweep.joint_pass", "remove_adapter"), ("studies.sweep.joint_pass", "_put_best"),
        ("training.pipeline", "add_adapter"), ("training.pipeline", "remove_adapter"),
    ],
    "making the trainer": [("training.trainer", "LabelTrainer.build")],
    "training steps": [("training.trainer", "LabelTrainer.train")],
    "check of the first batch": [("training.trainer", "LabelTrainer._check_first_batch")],
    "evaluations": [("training.trainer", "LabelTrainer.evaluation_loop")],
    "checkpoints": [
        ("training.trainer", "LabelTrainer._save_checkpoint"), ("training.joint_trainer", "keep_best"),
    ],
    "test scores": [("training.pipeline", "judge")],
    "saving": [
        ("training.pipeline", "save_adapter"), ("training.pipeline", "write_rows"),
        ("training.pipeline", "write_record"), ("training.pipeline", "environment"),
    ],
    "figures": [("studies.sweep.runner", "draw_run_figures"), ("studies.sweep.figures", "sweep_curve")],
    "ranking": [("studies.sweep.runner", "_conclude")],
}  # fmt: skip
REST = "rest"


@contextmanager
def parts_of_a_sweep(device: torch.device) -> Iterator[dict[str, float]]:
    """Inside the block, the seconds of each part of the sweeps that run there; what is in no part is the rest.

    A part that runs inside another one is not counted there: evaluations are no training steps. On a GPU the work that
    is queued is waited for where a part begins or ends, so the sum is a little more than without clocks.

    Args:
        device: that the sweeps run on.

    Example:
        with parts_of_a_sweep(device) as seconds:
            loraft.sweep(config, quiet=True)
        print(seconds)
    """
    seconds = dict.fromkeys([*PARTS, REST], 0.0)
    running = [REST]

    def switch(now: float) -> float:
        """Gives the time since the last switch to the part that ran; returns the present time."""
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        present = time.perf_counter()
        seconds[running[-1]] += present - now
        return present

    last = time.perf_counter()

    def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal last
            last = switch(last)
            running.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                last = switch(last)
                running.pop()

        return call

    with ExitStack() as stack:
        for part, places in PARTS.items():
            for module, name in places:
                owner: Any = import_module(f"loraft.{module}")
                for step in name.split(".")[:-1]:
                    owner = getattr(owner, step)
                leaf = name.rpartition(".")[2]
                found = vars(owner).get(leaf, getattr(owner, leaf))  # a classmethod is wrapped inside
                is_class_method = isinstance(found, classmethod)
                made = clocked(part, found.__func__ if is_class_method else found)
                stack.enter_context(patch.object(owner, leaf, classmethod(made) if is_class_method else made))
        try:
            yield seconds
        finally:
            switch(last)
