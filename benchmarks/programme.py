"""Where the time of the tutorial's programme goes: loraft's, and the recipe's, measured in parts and scaled."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from importlib import import_module
from types import FunctionType
from typing import Any
from unittest.mock import patch

import baselines
import torch
from cases import Bench, demonstrations, some_rows, training_rows
from timing import clock
from transformers import TrainerCallback, TrainerControl, TrainerState

from loraft.models.adapter import add_adapter
from loraft.models.backbone import load_backbone

AROUND, TRAINING, EVALUATIONS, TEST = "all around", "training steps", "evaluations during training", "test split"
LOADING, ZERO_SHOT, SHOTS = "loading", "zero-shot", "{}-shot"
MARKS = 10  # steps between two looks at the clock
MEASURED = {"steps": 20, "rows": 64, "batches": 20}  # of the recipe; then the same again counts
EVALUATION_BATCH = 8
Name = str | Callable[..., str]


class Parts:
    """Seconds of a programme by part. A part inside another one counts for itself alone; the rest is `AROUND`.

    Attributes:
        seconds: by part; work queued on a GPU counts where it was queued.
        calls: of each part.
        trainings: one for each training: its steps, steps that were due, and training seconds after each `MARKS` steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {AROUND: 0.0}
        self.calls: dict[str, int] = {}
        self.trainings: list[dict[str, Any]] = []
        self.deadline = float("inf")  # of `time.perf_counter`, after which a training ends with its evaluation
        self._stack = [AROUND]
        self._since = time.perf_counter()

    @property
    def current(self) -> str:
        """The part that time counts for now."""
        return self._stack[-1]

    def so_far(self, name: str) -> float:
        """Seconds of a part until now; does not wait for the GPU."""
        now = time.perf_counter()
        self.seconds[self.current] = self.seconds.get(self.current, 0.0) + now - self._since
        self._since = now
        return self.seconds.get(name, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the block for this part."""
        self._turn()
        self._stack.append(name)
        self.calls[name] = self.calls.get(name, 0) + 1
        try:
            yield
        finally:
            self._turn()
            self._stack.pop()

    def _turn(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.so_far(self.current)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Counts the block; every call in it of a function of `sites` is of its part, wherever it was imported."""
        self._since = time.perf_counter()
        with ExitStack() as stack:
            for place, name in sites().items():
                module_name, _, attribute = place.partition(":")
                owner: Any = import_module(module_name)
                *path, last = attribute.split(".")
                for step in path:
                    owner = getattr(owner, step)
                own = vars(owner).get(last, getattr(owner, last))  # a classmethod is watched inside
                bound = isinstance(own, classmethod)
                watched = self._watched(own.__func__ if bound else own, name)
                for holder in [owner] if path else _holders(own):
                    stack.enter_context(patch.object(holder, last, classmethod(watched) if bound else watched))
            try:
                yield
            finally:
                self._turn()

    def _watched(self, function: FunctionType, name: Name) -> Callable[..., Any]:
        @wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.part(name if isinstance(name, str) else name(self, *args, **kwargs)):
                return function(*args, **kwargs)

        return watched

    def whole(self, steps: int, evaluations: int) -> dict[str, float]:
        """Seconds by part if each training had made so many steps and evaluations.

        Steps that were left out count as the later half of those that were made: compiling and capturing is done by
        then.
        """
        found = dict(self.seconds)
        for training in self.trainings:
            marks = training["marks"]
            (first, early), (last, late) = marks[len(marks) // 2], marks[-1]
            training["step_seconds"] = each = (late - early) / (last - first) if last > first else late / max(last, 1)
            found[TRAINING] += max(0, steps - training["steps"]) * each
        if self.calls.get(EVALUATIONS):
            found[EVALUATIONS] *= evaluations * len(self.trainings) / self.calls[EVALUATIONS]
        return found


def _holders(function: FunctionType) -> list[Any]:
    """The modules of loraft in which the function has its name."""
    loaded = [module for name, module in sys.modules.items() if name.partition(".")[0] == "loraft"]
    return [module for module in loaded if vars(module).get(function.__name__) is function]


class Watch(TrainerCallback):
    """Notes the training seconds while the steps go on, and ends the training at the deadline of its `Parts`."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.base = parts, parts.so_far(TRAINING)
        self.record: dict[str, Any] = {"steps": 0, "marks": [(0, 0.0)]}
        parts.trainings.append(self.record)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called after each step."""
        over = time.perf_counter() >= self.parts.deadline
        self.record["steps"] = state.global_step
        if over or state.global_step % MARKS == 0 or state.global_step == state.max_steps:
            self.record["marks"].append((state.global_step, self.parts.so_far(TRAINING) - self.base))
        if over:
            control.should_evaluate = control.should_save = control.should_training_stop = True


def sites() -> dict[str, Name]:
    """The functions of loraft that are watched, and their parts."""

    def shots(parts: Parts, model: Any, encoder: Any, test: Any, config: Any, shown: Any, *given: Any) -> str:
        return SHOTS.format(len(shown[0])) if shown[0] else ZERO_SHOT

    def encoded(parts: Parts, *args: Any, **kwargs: Any) -> str:
        return parts.current if parts.current.endswith("-shot") else "encoding"

    def judged(parts: Parts, *args: Any, **kwargs: Any) -> str:
        return parts.current if parts.current.endswith("-shot") else TEST

    def trained(parts: Parts, trainer: Any, *args: Any, **kwargs: Any) -> str:
        trainer.add_callback(Watch(parts))
        return TRAINING

    return {
        "loraft.models.backbone:load_backbone": LOADING,
        "loraft.models.load:build_encoder": "loading the tokenizer",
        "loraft.data.dataset:load_data": "reading rows",
        "loraft.models.encoder:Encoder.encode": encoded,
        "loraft.training.dataset:prepare": "encoding",
        "loraft.studies.fewshot.study:_judge": shots,
        "loraft.studies.fewshot.study:_baseline": "baselines without the model",
        "loraft.evaluation.evaluate:judge": judged,
        "loraft.models.adapter:add_adapter": "adapters",
        "loraft.models.adapter:add_adapters": "adapters",
        "loraft.models.adapter:remove_adapter": "adapters",
        "loraft.models.adapter:count_trainable": "adapters",
        "loraft.training.trainer:LabelTrainer.build": "making the trainer",
        "loraft.training.trainer:LabelTrainer.train": trained,
        "loraft.training.first_batch_check:check_first_batch": "check of the first batch",
        "loraft.training.trainer:LabelTrainer.evaluation_loop": EVALUATIONS,
        "loraft.training.trainer:LabelTrainer._save_checkpoint": "saving",
        "loraft.training.checkpoints:keep_best": "saving",
        "loraft.training.checkpoints:save_adapter": "saving",
        "loraft.runs.predictions:write_rows": "saving",
        "loraft.runs.environment:environment": "saving",
        "loraft.models.backbone:weights_hash": "checks of the backbone",
        "loraft.models.manifest:identify": "checks of the backbone",
        "loraft.evaluation.figures:draw_run_figures": "figures",
        "loraft.studies.sweep.figures:sweep_curve": "figures",
        "loraft.studies.fewshot.figures:fewshot_curve": "figures",
        "loraft.studies.sweep.conclusion:conclude": "comparing the ranks",
    }


@torch.no_grad()
def validation_batch(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> float:
    """An evaluation batch of the tutorial's trainer: a padded forward with loss; the argmax goes to the CPU."""
    found = model(**batch)
    found.logits.argmax(-1).cpu()
    return float(found.loss)


def recipe_time(
    bench: Bench, validation_rows: int, *, shots: list[int], ranks: int, steps: int, evaluations: int
) -> list[dict[str, Any]]:
    """The parts of the tutorial's own way: what was measured, in seconds, and how many times that is the whole of it.

    The training is a bare loop over right-padded batches with a full LM head. During it the validation split goes
    through padded forward passes; answers on the test split are generated. Each rank begins with a freshly loaded
    backbone. Its checkpoints, log and tables are left out.

    Args:
        bench: a backbone, with the data of the programme.
        validation_rows: of the validation split.
        ranks: how many.
        steps: of each rank.
        evaluations: during the training of each rank.
    """
    config, encoder, device = bench.config, bench.encoder, bench.device
    size, pad_id = config.train.per_device_train_batch_size, encoder.tokenizer.pad_token_id
    count = {name: min(number, len(bench.test)) if name == "rows" else number for name, number in MEASURED.items()}
    parts: list[dict[str, Any]] = []

    def add(name: str, what: str, seconds: float, times: float) -> None:
        parts.append({"part": name, "measured": what, "seconds": seconds, "times": times})

    def generated(model: Any, shown: int, batch: int) -> float:
        texts = some_rows(bench.test, count["rows"], config.seed).texts
        asked = [p.ids for p in encoder.encode(texts, demonstrations(bench, shown) if shown else ())]
        baselines.recipe_predict(model, encoder, asked[:batch], batch)
        return clock(lambda: baselines.recipe_predict(model, encoder, asked, batch), device)[0]

    rows, times = f"{count['rows']} rows", len(bench.test) / count["rows"]
    seconds, _ = clock(lambda: load_backbone(config.model, config.quant), device)
    add(LOADING, "once", seconds, 1 + ranks)
    for shown in (0, *shots):
        batch = baselines.TUTORIAL_BATCH * (2 if shown else 1)
        add(SHOTS.format(shown) if shown else ZERO_SHOT, rows, generated(bench.base, shown, batch), times)

    model = add_adapter(bench.base, config.lora, seed=config.seed)
    optimizer = baselines.adamw(model, config.train.learning_rate or 5e-5)
    _, drawn = training_rows(bench, 2 * count["steps"] * size)
    batches = [drawn[start : start + size] for start in range(0, len(drawn), size)]

    def step(number: int) -> float:
        return clock(lambda: baselines.recipe_step(model, optimizer, batches[number], pad_id, device), device)[0]

    each = statistics.median([step(number) for number in range(len(batches))][count["steps"] :])
    add(TRAINING, f"the median of {count['steps']} steps", each, steps * ranks)

    model.eval()
    _, drawn = training_rows(bench, 2 * count["batches"] * EVALUATION_BATCH)
    padded = [drawn[start : start + EVALUATION_BATCH] for start in range(0, len(drawn), EVALUATION_BATCH)]

    def validated(number: int) -> float:
        return clock(lambda: validation_batch(model, baselines.recipe_batch(padded[number], pad_id, device)), device)[0]

    each = statistics.median([validated(number) for number in range(len(padded))][count["batches"] :])
    what = f"the median of {count['batches']} batches of {EVALUATION_BATCH}"
    add(EVALUATIONS, what, each, -(-validation_rows // EVALUATION_BATCH) * evaluations * ranks)
    add(TEST, rows, generated(model, 0, baselines.TUTORIAL_BATCH), times * ranks)
    return parts
