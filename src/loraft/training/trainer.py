"""Training: a subclass of TRL's SFTTrainer that computes the prompt once a batch and evaluates by scoring labels."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import EarlyStoppingCallback, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from trl import SFTTrainer

from loraft.config.schema import TrainConfig
from loraft.engine import fused_layer, lora_linear, prefix_attention
from loraft.engine.collator import Row, Way, first_of, pack, pad, unpack
from loraft.engine.layout import rounded
from loraft.engine.loss import answer_loss_sum, answer_loss_sums
from loraft.errors import BackboneError
from loraft.training.arguments import one_window, sft_config
from loraft.training.callbacks import EvaluateAtTheEnd
from loraft.training.samplers import BalancedSampler, LengthSampler

VERIFIED_ROWS = 4  # of the first batch


class LabelTrainer(SFTTrainer):
    """SFTTrainer with the shared prefix, answer-only loss, and evaluation by a function of the model.

    Args:
        evaluate_with: takes the model in evaluation mode; returns metrics without prefix, `macro_f1` among them.
        shared_prefix: False keeps padded batches and peft's own layers (the twin that the tests compare with).
        sampling: as in `TrainConfig`.
    """

    def __init__(
        self,
        *args: Any,
        rows: Sequence[Row],
        evaluate_with: Callable[[torch.nn.Module], dict[str, float]],
        shared_prefix: bool,
        sampling: str,
        **kwargs: Any,
    ) -> None:
        self.rows = rows
        self.evaluate_with = evaluate_with
        self.shared_prefix = shared_prefix
        self.sampling = sampling
        self.tokens_seen = 0
        self.adapters: Sequence[str] | None = None  # the active one alone
        self._verified = not shared_prefix
        dataset = Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "row": list(range(len(rows)))})
        super().__init__(*args, data_collator=self._collate, train_dataset=dataset, eval_dataset=dataset, **kwargs)
        self.losses_A = torch.zeros(1, device=self.args.device)
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and "lora_" in name:
                parameter.data = parameter.data.float()  # TRL rounds a quantised model's adapter to bf16
        config = self.model.config.get_text_config()
        # the shared-prefix mask replaces a sliding window, which is right only while every row fits into it
        self._window = getattr(config, "sliding_window", None) or 2**31
        self._way: Way = "mask"
        if shared_prefix and prefix_attention.supports(self._peft().get_base_model()):
            whole = not self.args.activation_checkpointing  # upstream's own layers recompute their activations
            quick = whole and fused_layer.supports(self._peft()) and lora_linear.suits(self._peft())
            self._way = "layers" if quick else "attention"
        self._low_rank = shared_prefix
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._dtype = next(p.dtype for p in self.model.parameters() if p.is_floating_point() and not p.requires_grad)

    def _peft(self) -> PeftModel:
        model: PeftModel = self.accelerator.unwrap_model(self.model)
        return model

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Trains as upstream does, with what the model has of fused layers, shared-prefix attention and products."""
        model = self._peft()
        layers = fused_layer.enabled(model, self.adapters) if self._way == "layers" else nullcontext()
        # the twin that fused layers are compared with, too
        attention = prefix_attention.enabled(model.get_base_model()) if self._way != "mask" else nullcontext()
        products = lora_linear.enabled(model, self.adapters) if self._low_rank else nullcontext()
        with layers, attention, few_walks(model, self._trained), products as everywhere:
            if self.adapters is not None and not everywhere:  # peft's own layers add all adapters to every row
                raise BackboneError("joint training: an adapted layer is not plain linear; use --joint off")
            return super().train(*args, **kwargs)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Counts none: upstream's estimate walks all modules at every step, and nothing here reads it."""
        return 0

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """Upstream looks through all parameters, several times a step."""
        return torch.nn.utils.clip_grad_norm_(self._trained, self.args.max_grad_norm)

    def _collate(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows = [self.rows[item["row"]] for item in items]
        longest = max(len(row.input_ids) for row in rows)
        if self.shared_prefix and longest <= self._window:
            packed = pack(rows)
            if packed["input_ids"].numel() < len(rows) * rounded(longest):
                return packed
        return pad(rows, self.processing_class.pad_token_id)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Returns the weighted mean over the answer tokens (of the whole accumulation window) of -log p.

        Of several adapters the sum: its gradient with respect to one of them is that of its own mean.
        """
        inputs = self._agreed(model, inputs)
        count = num_items_in_batch if num_items_in_batch is not None else len(inputs["weights"])
        losses_A = self._loss_sums(model, inputs) / count
        self.losses_A = self.losses_A + losses_A.detach()
        loss = losses_A.sum()
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages gradients; the count is of all processes
        return (loss, None) if return_outputs else loss

    def _loss_sums(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        adapters = 1 if self.adapters is None else len(self.adapters)
        return answer_loss_sums(model, inputs, self._dtype, adapters, way=self._way)

    def _agreed(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns the batch in the layout that this training uses, and counts its tokens."""
        if "segments" in inputs and not self._verified:
            inputs = self._verify(inputs)
        elif "segments" in inputs and not self.shared_prefix:  # packed by the data loader ahead of the verdict
            inputs = unpack(inputs, self.processing_class.pad_token_id)
        self.tokens_seen += inputs["input_ids"].numel()
        return inputs

    def _plain_loss(self, plain: dict[str, torch.Tensor]) -> float:
        """The loss of a padded batch by the library's own layers; the model is in evaluation mode."""
        return float(answer_loss_sum(self._peft(), plain, self._dtype))

    def _verify(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Compares rows of the first shared-prefix batch with plain ones; goes plain, visibly, where they disagree.

        The adapter's own share is compared too: its B, zero at the beginning, is something else meanwhile. Gradients by
        hand are compared with autograd's.
        """
        self._verified = True
        few = first_of(inputs, VERIFIED_ROWS)
        plain = unpack(few, self.processing_class.pad_token_id)
        model = self._peft()  # no process waits for another here
        was_training = model.training
        model.eval()  # dropout off
        tokens = float(few["weights"].sum()) * len(self.losses_A)
        with torch.no_grad(), lora_linear.stirred(model):
            plain_loss = self._plain_loss(plain)
            tolerance = (1e-4 if self._dtype == torch.float32 else 5e-2) * max(1.0, plain_loss / tokens)
            with lora_linear.active(model):
                if self._way == "layers" and not self._agrees_with_autograd(model, few):
                    self._way = "attention"
                    warnings.warn(
                        "fused layers: on this architecture they do not agree with autograd; training goes on with it",
                        stacklevel=2,
                    )
                shared_loss = float(self._loss_sums(model, few).sum())
        agree = abs(shared_loss - plain_loss) / tokens <= tolerance
        model.train(was_training)
        if agree:
            return inputs
        found = f"loss {shared_loss:.6f} with shared prefix, {plain_loss:.6f} padded"
        if self.adapters is not None:
            raise BackboneError(f"joint training: it does not agree with peft on this architecture ({found})")
        self.shared_prefix = False
        lora_linear.withdraw(model)
        warnings.warn(
            f"{found}; on this architecture training goes on with padded batches and peft's own layers", stacklevel=2
        )
        return unpack(inputs, self.processing_class.pad_token_id)

    @torch.enable_grad()
    def _agrees_with_autograd(self, model: PeftModel, inputs: dict[str, torch.Tensor]) -> bool:
        """Compares the gradients of fused layers with autograd's over the same packed batch, kind by kind of layer."""
        names, weights = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
        ways: tuple[Way, ...] = ("attention", "layers")
        found: list[dict[str, list[torch.Tensor]]] = []
        for self._way in ways:
            loss = self._loss_sums(model, inputs).sum()
            if not loss.requires_grad:
                return False
            gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
            kinds: dict[str, list[torch.Tensor]] = {}
            for name, gradient in zip(names, gradients, strict=True):
                kinds.setdefault(name.partition(".lora_")[0].rpartition(".")[2], []).append(gradient.flatten())
            found.append(kinds)
        vectors = [(torch.cat(found[0][kind]), torch.cat(found[1][kind])) for kind in found[0]]
        # in bf16, gradients of two right ways differ by up to 0.15 of their norm, and by as much from those in fp32
        limit = 1e-3 if self._dtype == torch.float32 else 0.5
        return all(float((right - ours).norm()) <= limit * float(right.norm()) for right, ours in vectors)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Runs the scoring engine instead of a loss over token positions."""
        model = self._peft()
        model.eval()
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in self._evaluated(model).items()}
        # no rate is derived from the number of samples
        return EvalLoopOutput(predictions=np.zeros(0), label_ids=None, metrics=metrics, num_samples=0)

    def _evaluated(self, model: PeftModel) -> dict[str, float]:
        return self.evaluate_with(model)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self.sampling == "balanced":
            return BalancedSampler([row.label for row in self.rows], self.args.seed)
        if self.sampling == "by_length":
            window = self.args.train_batch_size * self.args.gradient_accumulation_steps
            return LengthSampler([len(row.input_ids) for row in self.rows], window, self.args.seed)
        sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
        return sampler


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
    kind: type["LabelTrainer"] = LabelTrainer,
    **own: Any,
) -> LabelTrainer:
    """Returns a trainer that is ready to `train()`; checkpoints go to `output_dir`.

    Args:
        kind: a subclass, with `own` arguments.
    """
    callbacks = [EvaluateAtTheEnd(), *callbacks]
    if section.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(section.early_stopping_patience))
    on_cpu = next(model.parameters()).device.type == "cpu"
    adapters = len(own["names"]) if "names" in own else 1
    trainer = kind(
        model=model,
        args=sft_config(one_window(section, model, rows, adapters), output_dir=output_dir, seed=seed, on_cpu=on_cpu),
        processing_class=tokenizer,
        rows=rows,
        evaluate_with=evaluate_with,
        shared_prefix=section.shared_prefix == "auto",
        sampling=section.sampling,
        callbacks=callbacks,
        **own,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@contextmanager
def few_walks(model: torch.nn.Module, trained: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """Inside the block, `model.train()` and `model.zero_grad()` do not look through all modules when nothing changes.

    A trainer calls both at every step.

    Args:
        model: all its modules are put into its own mode, training or evaluation, at the beginning.
        trained: the parameters that get gradients.
    """

    def train(mode: bool = True) -> torch.nn.Module:
        return model if model.training == mode else type(model).train(model, mode)

    def zero_grad() -> None:
        for parameter in trained:
            parameter.grad = None

    type(model).train(model, model.training)  # a fresh PeftModel trains while its backbone does not yet
    own = {"train": train, "zero_grad": zero_grad}
    vars(model).update(own)
    try:
        yield
    finally:
        for name in own:
            del vars(model)[name]
