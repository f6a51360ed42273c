"""A subclass of TRL's SFTTrainer that computes the batch's common prompt once and evaluates by scoring labels."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from accelerate.utils import AutocastKwargs
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from trl import SFTTrainer

from loraft.config.schema import TrainConfig
from loraft.engine import fused_layer, lora_linear, prefix_attention
from loraft.engine.architecture import longest_fast_row
from loraft.engine.collator import pack, pad, unpack
from loraft.engine.layout import bucket_size
from loraft.engine.loss import BatchMethod, answer_loss_sums
from loraft.errors import BackboneError, Note
from loraft.training.arguments import fitted_batches, sft_config
from loraft.training.dataset import TrainingData
from loraft.training.first_batch_check import check_first_batch
from loraft.training.learning_rate import learning_rate
from loraft.training.samplers import BalancedSampler, LengthSampler


@dataclass(frozen=True)
class JointAdapters:
    """The adapters of a joint training.

    Attributes:
        names: of the adapters in peft, the smaller ranks first.
        learning_rates: of each.
        best: folder in which each adapter's best weights are kept, with `best.json`.
        report: takes the number of an adapter and one line of its log.
    """

    names: Sequence[str]
    learning_rates: Sequence[float]
    best: Path
    report: Callable[[int, dict[str, Any]], None]


class LabelTrainer(SFTTrainer):
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
        self.tokens_seen = 0
        # `row` is an index into `data.rows` for `_collate`; with `input_ids` TRL takes the rows as tokenised.
        dataset = Dataset.from_dict(
            {"input_ids": [row.input_ids for row in data.rows], "row": list(range(len(data.rows)))}
        )
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
        self._longest_packed, self._why_longest = longest_fast_row(self.model)
        self.method = self._choose_method()
        self._checked = self.method is BatchMethod.PADDED  # else the first batch is compared with a padded one

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
        window = fitted_batches(section, model, data.rows, adapters=1 if joint is None else len(joint.names))
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

    def _choose_method(self) -> BatchMethod:
        """The fastest method that the model's architecture is known to suit; `check_first_batch` may replace it."""
        model = self.peft_model()
        if self.section.shared_prefix == "off":
            return BatchMethod.PADDED
        if max(len(row.input_ids) for row in self.data.rows) > self._longest_packed:
            warnings.warn(
                f"training: {self._why_longest}; their batches are padded and do not share the prompt, which is slower",
                Note,
                stacklevel=2,
            )
        if self._longest_packed == 0:
            return BatchMethod.PADDED
        if not prefix_attention.supports(model.get_base_model()):
            return BatchMethod.MASK
        # With activation checkpointing transformers' own layers run: they support recomputing their activations.
        fused = fused_layer.supports(model) and lora_linear.supports(model) and not self.args.activation_checkpointing
        return BatchMethod.FUSED if fused else BatchMethod.ATTENTION

    def peft_model(self) -> PeftModel:
        """The model without what accelerate wraps around it."""
        model: PeftModel = self.accelerator.unwrap_model(self.model)
        return model

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Trains as upstream does, with the layers, the attention and the LoRA products of the chosen method.

        Shared-prefix attention is enabled for fused layers as well: layers that are called without a layout use it, in
        the check of the first batch and where that check falls back.
        """
        model = self.peft_model()
        shared = self.method in (BatchMethod.FUSED, BatchMethod.ATTENTION)
        # peft's own layers would add all adapters of a joint training to every row
        own_lora_products = self.shared_prefix or self.adapters is not None
        layers = fused_layer.enabled(model, self.adapters) if self.method is BatchMethod.FUSED else nullcontext()
        attention = prefix_attention.enabled(model.get_base_model()) if shared else nullcontext()
        lora_products = lora_linear.enabled(model, self.adapters) if own_lora_products else nullcontext()
        with layers, attention, cheap_mode_switches(model, self._trained), lora_products as all_layers:
            if self.adapters is not None and not all_layers:
                raise BackboneError(
                    "joint training: an adapter layer is not a plain LoRA linear layer (DoRA, bias, merged ...); use"
                    " --joint off"
                )
            return super().train(*args, **kwargs)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Counts none: upstream's estimate walks all modules at every step, and nothing here reads it."""
        return 0

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """Clips the trained parameters; upstream looks through all parameters, several times a step."""
        self.accelerator.unscale_gradients()  # of a scaled loss, with fp16
        return torch.nn.utils.clip_grad_norm_(self._trained, self.args.max_grad_norm)

    def _collate(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows = [self.data.rows[item["row"]] for item in items]
        longest = max(len(row.input_ids) for row in rows)
        # The mask of a packed row has no sliding window, so rows are packed only where each fits into the window.
        if self.shared_prefix and longest <= self._longest_packed:
            packed = pack(rows)
            if packed["input_ids"].numel() < len(rows) * bucket_size(longest):
                return packed
        return pad(rows, self.processing_class.pad_token_id)

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
        if "segments" in inputs and not self._checked:
            self._check_first_batch(inputs)
        if "segments" in inputs and not self.shared_prefix:  # packed by the data loader before the check
            inputs = unpack(inputs, self.processing_class.pad_token_id)
        self.tokens_seen += inputs["input_ids"].numel()
        count = num_items_in_batch if num_items_in_batch is not None else len(inputs["weights"])
        sums_A = answer_loss_sums(model, inputs, self._dtype, len(self.losses_A), method=self.method)
        losses_A = sums_A / count
        self.losses_A = self.losses_A + losses_A.detach()
        loss = losses_A.sum()
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages gradients; the count is of all processes
        return (loss, None) if return_outputs else loss

    def _check_first_batch(self, inputs: dict[str, torch.Tensor]) -> None:
        model = self.peft_model()  # unwrapped: no process waits for another here
        pad_id = self.processing_class.pad_token_id
        self.method = check_first_batch(model, inputs, self.method, self.adapters, dtype=self._dtype, pad_id=pad_id)
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
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in self._evaluated(model).items()}
        # The number of samples only feeds transformers' samples per second, which nothing here reads.
        return EvalLoopOutput(predictions=np.zeros(0), label_ids=None, metrics=metrics, num_samples=0)

    def _evaluated(self, model: PeftModel) -> dict[str, float]:
        return self.data.evaluate_with(model)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        rows = self.data.rows
        if self.section.sampling == "balanced":
            return BalancedSampler([row.label for row in rows], self.args.seed)
        if self.section.sampling == "by_length":
            window = self.args.train_batch_size * self.args.gradient_accumulation_steps
            return LengthSampler([len(row.input_ids) for row in rows], window, self.args.seed)
        sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
        return sampler


@contextmanager
def cheap_mode_switches(model: torch.nn.Module, trained: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """Inside the block, `model.train()` and `model.zero_grad()` are cheap; a trainer calls both at every step.

    `train()` does nothing where the mode stays the same; `zero_grad()` clears the trained parameters only.

    Args:
        model: all its modules are put into its own mode, training or evaluation, at the beginning.
        trained: the parameters that get gradients.
    """

    def train(mode: bool = True) -> torch.nn.Module:
        return model if model.training == mode else type(model).train(model, mode)

    def zero_grad() -> None:
        for parameter in trained:
            parameter.grad = None

    # A new PeftModel is in training mode, its backbone still in evaluation mode.
    type(model).train(model, model.training)
    own = {"train": train, "zero_grad": zero_grad}
    vars(model).update(own)
    try:
        yield
    finally:
        for name in own:
            del vars(model)[name]
