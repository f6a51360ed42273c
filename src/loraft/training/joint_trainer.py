"""Many adapters trained in one pass over one frozen backbone, each as if it were trained alone.

The rows of every adapter go through the backbone in one batch, one adapter after the other, so the frozen weights are
read (and, in NF4, dequantised) once a step for all. Loss, clipping, learning rate, schedule, initial weights and best
checkpoint are each adapter's own: the gradient of the summed losses with respect to one adapter is that of its own.
The idea is that of PLoRA and mLoRA (arXiv:2508.02932, arXiv:2312.02515); peft refuses to train mixed batches.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from loraft.errors import BackboneError
from loraft.models.adapter import weights_of
from loraft.training.checkpoints import keep_best, read_best, step_of
from loraft.training.trainer import LabelTrainer

Report = Callable[[int, dict[str, Any]], None]


class JointTrainer(LabelTrainer):
    """A LabelTrainer of several adapters.

    Args:
        names: of the adapters in peft, the smaller ranks first.
        learning_rates: of each.
        best: folder in which each adapter's best weights are kept, with `best.json`.
        report: takes the number of an adapter and one line of its log.
    """

    def __init__(
        self,
        *args: Any,
        names: Sequence[str],
        learning_rates: Sequence[float],
        best: Path,
        report: Report,
        **kwargs: Any,
    ) -> None:
        kwargs["args"].load_best_model_at_end = False  # each adapter has a best checkpoint of its own
        super().__init__(*args, **kwargs)
        self.adapters = list(names)
        self.learning_rates = list(learning_rates)
        self.best_path = best
        self.report = report
        self.best = read_best(best)
        self.losses_A = torch.zeros(len(names), device=self.args.device)
        self._low_rank = True  # peft's own layers would add all adapters to every row
        self._steps = 0
        self._norms: list[torch.Tensor] = []
        self.diverged: set[str] = set()

    def _plain_loss(self, plain: dict[str, torch.Tensor]) -> float:
        total = 0.0
        for name in self.adapters or ():
            self._activate(name)
            total += super()._plain_loss(plain)
        self._activate(self.adapters)
        return total

    def _activate(self, names: Any) -> None:
        self._peft().base_model.set_adapter(names)

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        peft_model = self._peft()
        self._norms = [
            torch.nn.utils.clip_grad_norm_(weights_of(peft_model, name), self.args.max_grad_norm)
            for name in self.adapters or ()
        ]
        return torch.stack(self._norms).nan_to_num().max()

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Builds upstream's optimizer with one group of weights for each adapter, at its learning rate."""
        optimizer: torch.optim.Optimizer | None = getattr(self, "optimizer", None)
        if optimizer is None:
            peft_model = self._peft()
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, peft_model)
            groups = [
                {"params": weights_of(peft_model, name), "lr": rate, "weight_decay": self.args.weight_decay}
                for name, rate in zip(self.adapters or (), self.learning_rates, strict=True)
            ]
            self.optimizer = optimizer = kind(groups, **settings)
        return optimizer

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        checkpoint = kwargs.get("resume_from_checkpoint")
        self._steps = step_of(Path(checkpoint)) if checkpoint else 0
        return super()._inner_training_loop(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Reports each adapter's own loss, gradient norm and learning rate beside upstream's sums."""
        steps = self.state.global_step - self._steps
        if "loss" in logs and steps:
            rates = self.lr_scheduler.get_last_lr() if self.lr_scheduler is not None else self.learning_rates
            losses = (self.losses_A / steps).tolist()
            for number, name in enumerate(self.adapters or ()):
                if not math.isfinite(losses[number]):
                    self.diverged.add(name)
                    losses[number] = 0.0
                    continue
                norm = float(self._norms[number])
                own = {"loss": losses[number], "grad_norm": norm, "learning_rate": rates[number]}
                self.report(number, {"step": self.state.global_step, "epoch": self.state.epoch, **own})
            logs = {**logs, "loss": sum(losses)}
            self.losses_A.zero_()
            self._steps = self.state.global_step
        super().log(logs, start_time)

    def _evaluated(self, model: PeftModel) -> dict[str, float]:
        """Scores the adapters one by one and keeps the weights of those that are better than before."""
        total = 0.0
        for number, name in enumerate(self.adapters or ()):
            self._activate(name)
            try:
                numbers = self.evaluate_with(model)
            except BackboneError:  # it has no scores any more; the others go on
                self.diverged.add(name)
                continue
            total += numbers["macro_f1"]
            own = {f"eval_{key}": value for key, value in numbers.items()}
            self.report(number, {"step": self.state.global_step, "epoch": self.state.epoch, **own})
            if name not in self.best or numbers["macro_f1"] > self.best[name]["macro_f1"]:
                self.best[name] = {"macro_f1": numbers["macro_f1"], "step": self.state.global_step}
                keep_best(self.best_path, model, name, self.best)
        self._activate(self.adapters)
        return {"macro_f1": total / len(self.adapters or ())}

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        peft_model = self._peft()
        for name in self.adapters or ():
            # peft saves the adapter that it calls default in the folder itself, others in folders below it
            below = Path(resume_from_checkpoint) / name
            peft_model.load_adapter(str(below if below.is_dir() else resume_from_checkpoint), name, is_trainable=True)
        self._activate(self.adapters)
