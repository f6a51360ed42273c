"""A subclass of TRL's SFTTrainer that computes the batch's common prompt once and evaluates by scoring labels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from accelerate.utils import AutocastKwargs
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from loraft import distributed
from loraft.config.schema import TrainConfig
from loraft.engine import lora_linear
from loraft.engine.architecture import UNLIMITED, longest_fast_row, rope_limit
from loraft.engine.collator import TrainingRow, equal_length_parts, first_rows, pack_if_smaller, pad, rows_of, unpack
from loraft.engine.loss import BatchMethod, answer_loss_sums, static_loss_sums
from loraft.engine.static_batch import StaticBatch, StaticInputs, static_batch
from loraft.models import sharding
from loraft.training.arguments import fitted_batches, sft_config
from loraft.training.batch_method import choose_method, enabled, suits_static_steps
from loraft.training.captured_step import CapturedStep, GraphRunner, drop_copies, weight_copies
from loraft.training.dataset import TrainingData
from loraft.training.even_batches import FILLER, EvenTrainer, indices_of, rows_at
from loraft.training.finite_loss import FiniteLoss
from loraft.training.first_batch_check import CHECKED_ROWS, check_first_batch
from loraft.training.flat_adamw import FlatAdamW
from loraft.training.joint_adapters import JointAdapters
from loraft.training.learning_rate import learning_rate
from loraft.training.mode_switches import cheap_mode_switches
from loraft.training.samplers import sampler_of


class LabelTrainer(EvenTrainer):
    """SFTTrainer with a shared prompt prefix, a loss on the answer alone, and evaluation by scores of the labels.

    Args:
        data: the rows, and how the model is evaluated.
        section: the `train` section of the config.
        joint: the adapters, if several are trained in one pass; `JointTrainer` handles them.
    """

    def __init__(
        self, *args: Any, data: TrainingData, section: TrainConfig, joint: JointAdapters | None = None, **kwargs: Any
    ) -> None:
        self.data = data
        self.section = section
        self.adapters = None if joint is None else list(joint.names)  # None: the active one alone
        # `row` is an index into `data.rows` for `_collate`: nobody reads token ids from the data set.
        dataset = indices_of(data.rows)
        with sharding.without_accelerates_own():
            super().__init__(*args, data_collator=self._collate, train_dataset=dataset, eval_dataset=dataset, **kwargs)
        if self.args.fp16:
            # The weights are fp16 already, and the engine casts what has to be fp32: no autocast on top of that.
            self.accelerator.autocast_handler = AutocastKwargs(enabled=False)
            if self.accelerator.scaler is None:  # accelerate scales no loss on a CPU
                self.accelerator.scaler, self.accelerator.native_amp = torch.amp.GradScaler("cpu"), True
        self.losses_A = torch.zeros(1 if joint is None else len(joint.names), device=self.args.device)
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in self._trained:
            parameter.data = parameter.data.float()  # TRL rounds a quantised model's adapter to bf16
        self._dtype = next(p.dtype for p in self.model.parameters() if p.is_floating_point() and not p.requires_grad)
        self._longest_packed, self._rope_limit = longest_fast_row(self.model)[0], rope_limit(self.model)
        self.method = choose_method(self.peft_model(), section, self.args, self.data.rows)
        # Else the first batch is compared with a padded one. With FSDP no process can do so by itself.
        self._checked = self.method is BatchMethod.PADDED or distributed.is_sharded()
        self.static = suits_static_steps(self.peft_model(), section, self.args, self.method)
        self._step: CapturedStep | None = None  # with static steps, from the first batch on
        self._finite = FiniteLoss(self.args.gradient_accumulation_steps, self.args.logging_steps, self.args.device)
        self._runner = GraphRunner(self.args.device)
        self._answers = max(len(row.input_ids) - row.answer_start for row in self.data.rows)

    @classmethod
    def build(
        cls,
        model: torch.nn.Module,
        data: TrainingData,
        section: TrainConfig,
        *,
        output_dir: str,
        seed: int,
        callbacks: Sequence[TrainerCallback] = (),
        joint: JointAdapters | None = None,
    ) -> Self:
        """Returns a trainer that is ready to `train()`; checkpoints go to `output_dir`."""
        callbacks = [*callbacks]
        if section.early_stopping_patience is not None:
            callbacks.append(EarlyStoppingCallback(section.early_stopping_patience))
        on_cpu = next(model.parameters()).device.type == "cpu"
        adapters = 1 if joint is None else len(joint.names)
        window = fitted_batches(section, model, data.rows, adapters, at_most=data.at_most)
        rate = learning_rate(section, model)  # of a joint training: that of the first trial, see `JointTrainer`
        trainer = cls(
            model=model,
            args=sft_config(
                window,
                learning_rate=rate,
                output_dir=output_dir,
                seed=seed,
                on_cpu=on_cpu,
                fp16=model.dtype == torch.float16,
            ),
            processing_class=data.tokenizer,
            data=data,
            section=section,
            joint=joint,
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    @property
    def shared_prefix(self) -> bool:
        """Whether batches share the computation of their prompt."""
        return self.method is not BatchMethod.PADDED

    def peft_model(self) -> PeftModel:
        """The model without what accelerate wraps around it."""
        model: PeftModel = self.accelerator.unwrap_model(self.model)
        return model

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Trains as upstream does, with the layers, the attention and the LoRA products of the chosen method."""
        model = self.peft_model()
        with cheap_mode_switches(model, self._trained), enabled(model, self.method, self.adapters):
            try:
                return super().train(*args, **kwargs)
            finally:
                self._step = None
                drop_copies(model)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Counts none: upstream's estimate walks all modules at every step, and nothing here reads it."""
        return 0

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Builds upstream's optimizer; with static steps the same one over flat vectors."""
        if getattr(self, "optimizer", None) is None:
            self.optimizer = self._new_optimizer(model)
            if self.static:
                self.optimizer = FlatAdamW(
                    self.optimizer.param_groups,
                    max_grad_norm=self.args.max_grad_norm,
                    separately=self.adapters is not None,
                    scaler=self.accelerator.scaler if self.args.fp16 else None,
                    run=self._runner.run,
                )
        return self.optimizer

    def _new_optimizer(self, model: torch.nn.Module | None) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def _flat_optimizer(self) -> FlatAdamW:
        """The optimizer of static steps, without what accelerate wraps around it."""
        optimizer: FlatAdamW = getattr(self.optimizer, "optimizer", self.optimizer)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Builds upstream's schedule; with static steps over the optimizer without accelerate's wrapper.

        The wrapper scales gradients in its own way, and looks for a package at every step.
        """
        if self.static:
            self.optimizer = self._flat_optimizer()
        return super().create_scheduler(num_training_steps, optimizer)

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """Clips the trained parameters; upstream looks through all parameters, several times a step."""
        if self.static:
            return self._flat_optimizer().largest_norm  # it clips when it steps, and has the norm then
        sharding.average_gradients(self._trained)
        self.accelerator.unscale_gradients()  # of a scaled loss, with fp16
        return torch.nn.utils.clip_grad_norm_(self._trained, self.args.max_grad_norm)

    def _collate(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor] | StaticBatch:
        indices = [item["row"] for item in items]
        rows = rows_at(indices, self.data.rows)
        self._finite.collated([n for n in indices if n != FILLER])
        longest = max(len(row.input_ids) for row in rows)
        # The mask of a packed row has no sliding window, so rows are packed only where each fits into the window.
        if self.shared_prefix and longest <= self._longest_packed:
            if self.static:
                # The same number of targets in all batches, also in the smaller last one of an epoch.
                return static_batch(rows, self.args.train_batch_size * self._answers, len(self.losses_A))
            packed = pack_if_smaller(rows)
            if packed is not None:
                return packed
        return pad(rows, self.processing_class.pad_token_id)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Counts the answer tokens of an accumulation window; with static steps without a device."""
        if not self.static:
            return super()._get_num_items_in_batch(batch_samples, device)
        return sum(
            batch.answers if isinstance(batch, StaticBatch) else len(batch["weights"]) for batch in batch_samples
        )

    def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Computes a batch's loss and adds its gradients, as upstream does; static steps never wait for the device."""
        loss = self._batch_step(model, inputs, num_items_in_batch)
        self._finite.trained(loss)
        return loss

    def recent_loss(self) -> float:
        """The mean loss, in nats, of the steps since the last log; waits for the device."""
        loss: float = self._tr_loss.item() / max(1, self.state.global_step - self._globalstep_last_logged)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs as upstream does, and ends a training whose loss is not finite."""
        if "loss" in logs:
            self._finite.check(logs["loss"], self.state.global_step, self.args.learning_rate, self.data.numbers)
        super().log(logs, start_time)

    def _batch_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any) -> torch.Tensor:
        if not self.static:
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
            return loss
        model.train()
        step = self._static_step(inputs)
        if isinstance(inputs, StaticBatch) and self.shared_prefix:
            self.tokens_seen += inputs.inputs.size.tokens
            return step.forward_backward(inputs, num_items_in_batch)
        if isinstance(inputs, StaticBatch):  # packed by the data loader before the check
            inputs = pad(inputs.rows, self.processing_class.pad_token_id)
        step.copies.refresh()  # older than the weights since the last update
        loss = self.compute_loss(model, self._prepare_inputs(inputs), num_items_in_batch=num_items_in_batch)
        step.add_gradients(loss)
        return loss.detach()

    def _static_step(self, inputs: Any) -> CapturedStep:
        """Returns the step; made at the first packed batch, after the check of the method."""
        if isinstance(inputs, StaticBatch) and not self._checked:
            self._check_first_batch(inputs.rows, None)
            self._step = None
        if self._step is None:
            model, optimizer = self.peft_model(), self._flat_optimizer()

            def loss_sums(batch: StaticInputs) -> torch.Tensor:
                return static_loss_sums(model, batch, self._dtype, method=self.method)

            weights = lora_linear.plain_weights(model) if self._checked and self.shared_prefix else []
            copies = weight_copies(model, optimizer, weights, self.adapters, self._dtype)
            self._step = CapturedStep(loss_sums, optimizer, copies, self._runner, self.losses_A)
        return self._step

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Returns the batch's share of the mean loss, in nats.

        It is the weighted sum of -log p over the batch's answer tokens, divided by the number of answer tokens in the
        whole accumulation window. With several adapters, their sum; the gradient of each adapter's weights is that of
        its own share.
        """
        if "segments" in inputs and not self._checked and inputs["weights"].any():
            self._check_first_batch(rows_of(inputs), inputs)
        if "segments" in inputs and not self.shared_prefix:  # packed by the data loader before the check
            inputs = unpack(inputs, self.processing_class.pad_token_id)
        self.tokens_seen += inputs["input_ids"].numel() if self.args.world_size == 1 else 0  # see `EvenTrainer`
        count = num_items_in_batch if num_items_in_batch is not None else len(inputs["weights"])
        parts = [inputs]
        if "segments" not in inputs and self._rope_limit < UNLIMITED:
            parts = equal_length_parts(inputs, self._rope_limit)
        sums_A = sum(answer_loss_sums(model, one, self._dtype, len(self.losses_A), method=self.method) for one in parts)
        losses_A = sums_A / count
        self.losses_A.add_(losses_A.detach())
        loss = losses_A.sum()
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages gradients; the count is of all processes
        return (loss, None) if return_outputs else loss

    def _check_first_batch(self, rows: Sequence[TrainingRow], packed: dict[str, torch.Tensor] | None) -> None:
        """Lets `check_first_batch` choose the method.

        Args:
            rows: of the first batch.
            packed: the same as a packed batch; None with static steps.
        """
        model = self.peft_model()  # unwrapped: no process waits for another here
        # Each adapter's plain loss is that of all rows, so that the fast methods' has to be that, too.
        few = [replace(row, held_out=-1) for row in rows[:CHECKED_ROWS]]
        count, device = len(self.losses_A), self.args.device

        def losses(method: BatchMethod) -> torch.Tensor:
            if packed is not None:
                return answer_loss_sums(model, first_rows(packed, CHECKED_ROWS), self._dtype, count, method=method)
            batch = static_batch(few, len(few) * self._answers, count).inputs
            return static_loss_sums(
                model, StaticInputs(batch.vector.to(device), batch.size), self._dtype, method=method
            )

        padded = {key: value.to(device) for key, value in pad(few, self.processing_class.pad_token_id).items()}
        self.method = check_first_batch(model, padded, losses, self.method, self.adapters, dtype=self._dtype)
        self._checked = True
        if self.method is BatchMethod.PADDED:
            lora_linear.restore_forwards(model)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Runs the scoring engine instead of a loss over token positions."""
        model = self.peft_model()
        model.eval()
        if self._step is not None:
            self._step.copies.refresh()
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in self._evaluated(model).items()}
        # The number of samples only feeds transformers' samples per second, which nothing here reads.
        return EvalLoopOutput(predictions=np.zeros(0), label_ids=None, metrics=metrics, num_samples=0)

    def _evaluated(self, model: PeftModel) -> dict[str, float]:
        return self.data.evaluate_with(model)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        chosen = sampler_of(self.section, self.data.rows, self.args)
        return super()._get_train_sampler(range(len(self.data.rows))) if chosen is None else chosen
