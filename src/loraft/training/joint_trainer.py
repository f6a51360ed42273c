"""A trainer of several LoRA adapters in one pass over one frozen backbone; each learns as if it were trained alone.

The batch is repeated once for each adapter along the first dimension and runs in one forward pass, so the frozen
weights are read (and, in NF4, dequantised) once a step for all adapters:

    first dimension      adapter of the copy    loss
    0 .. B - 1           default   (rank 1)     mean over its copy's answer tokens
    B .. 2 B - 1         adapter2  (rank 4)     the same of the second copy
    2 B .. 3 B - 1       adapter3  (rank 16)    the same of the third copy

(B is 1 for a packed batch, which is one row.) What makes each adapter independent of the others:

1. `engine.lora_linear` adds to each copy the product of its own adapter only.
2. The trained loss is the sum of the adapters' mean losses. A weight of one adapter occurs in its own loss only, so the
   gradient of the sum with respect to it is the gradient of its own loss.
3. Gradients are clipped by the norm of each adapter's own gradient (`_clip_grad_norm`).
4. The optimizer has one parameter group for each adapter, with its own learning rate; the schedule scales all alike.
5. Each adapter is scored by itself (on a GPU all in one pass, each on its own copy of the rows), and its best weights
   are kept in a folder of their own (`_evaluated`).

Source: the idea of PLoRA and mLoRA (arXiv:2508.02932, arXiv:2312.02515); peft refuses mixed batches in training.
"""

import math
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from loraft.engine import scorer
from loraft.errors import BackboneError
from loraft.models.adapter import weights_of
from loraft.training.checkpoints import BestStep, keep_best, read_best, step_of
from loraft.training.joint_adapters import JointAdapters
from loraft.training.trainer import LabelTrainer


class JointTrainer(LabelTrainer):
    """A LabelTrainer of several adapters; see `JointAdapters`."""

    def __init__(self, *args: Any, joint: JointAdapters, **kwargs: Any) -> None:
        kwargs["args"].load_best_model_at_end = False  # each adapter has a best checkpoint of its own
        super().__init__(*args, joint=joint, **kwargs)
        self.joint = joint
        self.best = read_best(joint.best)
        # Adapters whose loss or scores are NaN or infinite, also before an interruption.
        self.diverged = {name for name in joint.names if (joint.best / f"{name}.diverged").exists()}
        self._logged_step = 0  # after which `losses_A` was last reported and zeroed
        self._norms: Any = []  # of each adapter's gradient at the last step

    def _activate(self, names: str | list[str]) -> None:
        """Makes these adapters the active ones in peft: one for scoring, all for training."""
        self.peft_model().base_model.set_adapter(names)

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """Clips each adapter's gradient by its own norm; returns the largest of the norms, for the trainer's log."""
        if self.static:
            self._norms = self._flat_optimizer().norms
            return super()._clip_grad_norm(model)
        self.accelerator.unscale_gradients()  # of a scaled loss, with fp16
        peft_model = self.peft_model()
        self._norms = torch.stack(
            [
                torch.nn.utils.clip_grad_norm_(weights_of(peft_model, name), self.args.max_grad_norm)
                for name in self.joint.names
            ]
        )
        return self._norms.nan_to_num().max()

    def _new_optimizer(self, model: torch.nn.Module | None) -> torch.optim.Optimizer:
        """Builds upstream's optimizer with one parameter group for each adapter, at its learning rate."""
        peft_model = self.peft_model()
        kind, settings = self.get_optimizer_cls_and_kwargs(self.args, peft_model)
        groups = [
            {"params": weights_of(peft_model, name), "lr": rate, "weight_decay": self.args.weight_decay}
            for name, rate in zip(self.joint.names, self.joint.learning_rates, strict=True)
        ]
        optimizer: torch.optim.Optimizer = kind(groups, **settings)
        return optimizer

    # Overridden to learn the checkpoint's step: `train()` has resolved `resume_from_checkpoint` by now.
    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        checkpoint = kwargs.get("resume_from_checkpoint")
        self._logged_step = step_of(Path(checkpoint)) if checkpoint else 0
        return super()._inner_training_loop(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Reports each adapter's own loss, gradient norm and learning rate; upstream's loss is the mean of them."""
        steps = self.state.global_step - self._logged_step
        if "loss" in logs and steps:  # `losses_A` has summed the losses of these steps
            rates = self.lr_scheduler.get_last_lr() if self.lr_scheduler is not None else self.joint.learning_rates
            losses = (self.losses_A / steps).tolist()
            for number, name in enumerate(self.joint.names):
                if not math.isfinite(losses[number]):
                    # Diverged: it is left out, so that the mean that the trainer logs stays finite.
                    self._leave_behind(name)
                    continue
                norm = float(self._norms[number])
                own = {"loss": losses[number], "grad_norm": norm, "learning_rate": rates[number]}
                self.joint.report(number, {"step": self.state.global_step, "epoch": self.state.epoch, **own})
            finite = [*filter(math.isfinite, losses)]
            logs = {**logs, "loss": sum(finite) / max(1, len(finite))}
            self.losses_A.zero_()
            self._logged_step = self.state.global_step
        super().log(logs, start_time)

    def _evaluated(self, model: PeftModel) -> dict[str, float]:
        """Scores the adapters and keeps the weights of those that are better than before."""
        names, together = self.joint.names, self.data.evaluate_adapters
        if together is not None and scorer.scores_together(model):
            found = together(model, names)
        else:
            found = [self._scored_alone(model, name) for name in names]
            self._activate(list(names))
        total, metric = 0.0, self.data.metric
        for number, (name, numbers) in enumerate(zip(names, found, strict=True)):
            if numbers is None:  # its scores are NaN; the other adapters go on
                self._leave_behind(name)
                continue
            total += numbers[metric.key]
            own = {f"eval_{key}": value for key, value in numbers.items()}
            self.joint.report(number, {"step": self.state.global_step, "epoch": self.state.epoch, **own})
            best = self.best.get(name)
            reached = None if best is None else best.macro_f1 if best.score is None else best.score
            better = reached is None or metric.gain(numbers[metric.key]) > metric.gain(reached)
            # The last step is always evaluated, also where a callback ends the training.
            over = self.state.global_step >= self.state.max_steps or self.control.should_training_stop
            if over if self.section.keep == "last" else better:
                self.best[name] = BestStep(self.state.global_step, numbers["macro_f1"], numbers[metric.key])
                keep_best(self.joint.best, model, name, self.best)
        return {metric.key: total / len(names)}

    def _scored_alone(self, model: PeftModel, name: str) -> dict[str, float] | None:
        """Returns one adapter's numbers; None if its scores are NaN."""
        self._activate(name)
        try:
            return self.data.evaluate_with(model)
        except BackboneError:
            return None

    def _leave_behind(self, name: str) -> None:
        self.diverged.add(name)
        (self.joint.best / f"{name}.diverged").touch()

    # Called by upstream on resuming.
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        peft_model = self.peft_model()
        for name in self.joint.names:
            # peft saves the adapter that it calls default in the folder itself, others in folders below it
            below = Path(resume_from_checkpoint) / name
            peft_model.load_adapter(str(below if below.is_dir() else resume_from_checkpoint), name, is_trainable=True)
        self._activate(list(self.joint.names))
