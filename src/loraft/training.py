"""Training: a subclass of TRL's SFTTrainer that computes the prompt once a batch and evaluates by scoring labels."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import EarlyStoppingCallback, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from trl import SFTConfig, SFTTrainer

from loraft import prefix_attention
from loraft.batching import Row, answer_loss_sum, pack, pad, unpack
from loraft.config import TrainConfig


class LabelTrainer(SFTTrainer):
    """SFTTrainer with the shared prefix, answer-only loss, and evaluation by a function of the model.

    Args:
        evaluate_with: takes the model in evaluation mode; returns metrics without prefix, `macro_f1` among them.
        shared_prefix: False keeps the padded layout (the twin that the tests compare with).
        balanced: draw training rows so that every label comes equally often.
    """

    def __init__(
        self,
        *args: Any,
        rows: Sequence[Row],
        evaluate_with: Callable[[torch.nn.Module], dict[str, float]],
        shared_prefix: bool,
        balanced: bool,
        **kwargs: Any,
    ) -> None:
        self.rows = rows
        self.evaluate_with = evaluate_with
        self.shared_prefix = shared_prefix
        self.balanced = balanced
        self.tokens_seen = 0
        self._verified = not shared_prefix
        dataset = Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "row": list(range(len(rows)))})
        super().__init__(*args, data_collator=self._collate, train_dataset=dataset, eval_dataset=dataset, **kwargs)
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and "lora_" in name:
                parameter.data = parameter.data.float()  # TRL rounds a quantised model's adapter to bf16
        config = self.model.config.get_text_config()
        # the shared-prefix mask replaces a sliding window, which is right only while every row fits into it
        self._window = getattr(config, "sliding_window", None) or 2**31
        self._fast = shared_prefix and prefix_attention.supports(self._base())
        self._dtype = next(p.dtype for p in self.model.parameters() if p.is_floating_point() and not p.requires_grad)

    def _base(self) -> PreTrainedModel:
        model = self.accelerator.unwrap_model(self.model)
        base: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
        return base

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Trains as upstream does, with the shared-prefix attention where the model has it."""
        with prefix_attention.enabled(self._base()) if self._fast else nullcontext():
            return super().train(*args, **kwargs)

    def _collate(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows = [self.rows[item["row"]] for item in items]
        if self.shared_prefix and max(len(row.input_ids) for row in rows) <= self._window:
            packed = pack(rows)
            if packed["input_ids"].numel() < len(rows) * max(len(row.input_ids) for row in rows):
                return packed
        return pad(rows, self.processing_class.pad_token_id)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Returns the weighted mean over the answer tokens (of the whole accumulation window) of -log p."""
        if "segments" in inputs and not self._verified:
            inputs = self._verify(model, inputs)
        elif "segments" in inputs and not self.shared_prefix:  # packed by the data loader ahead of the verdict
            inputs = unpack(inputs, self.processing_class.pad_token_id)
        self.tokens_seen += inputs["input_ids"].numel()
        loss_sum = answer_loss_sum(model, inputs, self._dtype, fast=self._fast)
        count = num_items_in_batch if num_items_in_batch is not None else len(inputs["weights"])
        loss = loss_sum / count
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages gradients; the count is of all processes
        return (loss, None) if return_outputs else loss

    def _verify(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Compares the first shared-prefix batch with the plain one; goes plain, visibly, where they disagree."""
        self._verified = True
        plain = unpack(inputs, self.processing_class.pad_token_id)
        was_training = model.training
        model.eval()  # dropout off
        with torch.no_grad():
            shared_loss = float(answer_loss_sum(model, inputs, self._dtype, fast=self._fast))
            plain_loss = float(answer_loss_sum(model, plain, self._dtype))
        model.train(was_training)
        tolerance = 1e-4 if self._dtype == torch.float32 else 5e-2
        if abs(shared_loss - plain_loss) <= tolerance * max(1.0, abs(plain_loss)):
            return inputs
        self.shared_prefix = False
        warnings.warn(
            f"shared prefix: loss {shared_loss:.6f} differs from {plain_loss:.6f} of the padded batch on this "
            "architecture; training goes on with padded batches",
            stacklevel=2,
        )
        return plain

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Runs the scoring engine instead of a loss over token positions."""
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in self.evaluate_with(model).items()}
        return EvalLoopOutput(predictions=np.zeros(0), label_ids=None, metrics=metrics, num_samples=len(self.rows))

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if not self.balanced:
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return sampler
        return BalancedSampler([row.label for row in self.rows], self.args.seed)


class BalancedSampler(Sampler[int]):
    """Draws with replacement so that every label comes as often; an epoch's draw depends on seed and epoch alone."""

    def __init__(self, labels: Sequence[int], seed: int) -> None:
        self.weights = 1.0 / np.bincount(labels)[np.asarray(labels)]
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; the data loader calls it, also when a training is resumed."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        drawn = torch.multinomial(torch.from_numpy(self.weights), len(self), replacement=True, generator=generator)
        yield from drawn.tolist()


class EvaluateAtTheEnd(TrainerCallback):
    """Evaluates and saves after the last step also where it is no multiple of `eval_steps`."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks for an evaluation and a checkpoint at the last step."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
            control.should_save = True


def sft_config(section: TrainConfig, *, output_dir: str, seed: int, on_cpu: bool) -> SFTConfig:
    """Returns TRL's arguments for this section; everything that would reach a network is off."""
    return SFTConfig(
        output_dir=output_dir,
        num_train_epochs=section.num_train_epochs,
        max_steps=section.max_steps,
        per_device_train_batch_size=section.per_device_train_batch_size,
        gradient_accumulation_steps=section.gradient_accumulation_steps,
        learning_rate=section.learning_rate,
        lr_scheduler_type=section.lr_scheduler_type,
        warmup_steps=section.warmup_steps,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        optim=section.optim,
        activation_checkpointing=section.gradient_checkpointing,
        logging_steps=section.logging_steps,
        logging_nan_inf_filter=False,  # a loss that is not finite must be seen
        eval_strategy="steps",
        eval_steps=section.eval_steps,
        save_strategy="steps",
        save_steps=section.eval_steps,
        save_total_limit=section.save_total_limit,
        load_best_model_at_end=True,
        metric_for_best_model="macro_f1",
        greater_is_better=True,
        report_to=section.report_to,
        seed=seed,
        use_cpu=on_cpu,
        bf16=False,  # the backbone's weights already are where the hardware multiplies bf16; no autocast on top
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_pin_memory=not on_cpu,
        disable_tqdm=True,
        log_level="error",
    )


def build_trainer(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    section: TrainConfig,
    *,
    output_dir: str,
    seed: int,
    evaluate_with: Callable[[torch.nn.Module], dict[str, float]],
    callbacks: Sequence[TrainerCallback] = (),
) -> LabelTrainer:
    """Returns a trainer that is ready to `train()`; checkpoints go to `output_dir`."""
    callbacks = [EvaluateAtTheEnd(), *callbacks]
    if section.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(section.early_stopping_patience))
    on_cpu = next(model.parameters()).device.type == "cpu"
    trainer = LabelTrainer(
        model=model,
        args=sft_config(section, output_dir=output_dir, seed=seed, on_cpu=on_cpu),
        processing_class=tokenizer,
        rows=rows,
        evaluate_with=evaluate_with,
        shared_prefix=section.shared_prefix == "auto",
        balanced=section.sampling == "balanced",
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
