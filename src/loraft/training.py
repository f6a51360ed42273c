"""Training: a subclass of TRL's SFTTrainer that computes the prompt once a batch and evaluates by scoring labels.

The prompt is long and the same for every row; the sentence is short. A batch is laid out as one row
`[prefix | suffix 1 | suffix 2 | ...]`: the longest common token-id prefix once, each suffix seeing the prefix and
itself, positions restarting after the prefix. The gradient flows through the prefix, so loss and gradient are those of
the padded batch; with LoRA dropout one mask serves the prefix of all rows. The LM head runs on the positions that
predict an answer token only.

Suffixes: B batch, T tokens, V vocabulary, A answer tokens of the whole batch.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import Sampler, WeightedRandomSampler
from transformers import EarlyStoppingCallback, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from trl import SFTConfig, SFTTrainer

from loraft import prefix_attention
from loraft.config import TrainConfig
from loraft.encoding import common_prefix

IGNORE = -100


@dataclass
class Row:
    """One training example: prompt and answer ids, where the answer starts, its label and its weight in the loss."""

    input_ids: list[int]
    answer_start: int
    label: int
    weight: float = 1.0


def make_rows(
    prompts: Sequence[Sequence[int]], labels: Sequence[int], completions_K: Sequence[Sequence[int]], class_weights: str
) -> list[Row]:
    """Returns the training rows; with `balanced` class weights N / (K n_k), whose mean over the rows is 1."""
    counts = np.bincount(np.asarray(labels), minlength=len(completions_K))
    weights = np.ones(len(completions_K))
    if class_weights == "balanced":
        present = counts > 0
        weights[present] = len(labels) / (present.sum() * counts[present])
    return [
        Row([*prompt, *completions_K[label]], len(prompt), int(label), float(weights[label]))
        for prompt, label in zip(prompts, labels, strict=True)
    ]


def pack(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Returns the batch as one row with a shared prefix.

    Returns:
        input_ids, position_ids, labels of shape (1, T); `segments` (T,), 0 for the prefix and 1.. for the suffixes, from
        which the mask is made on the device; `weights` (A,), one for each answer token; and the layout that
        `prefix_attention` reads: `suffix_index` (B, S) and `suffix_place` (T - P,).
    """
    prefix = min(
        common_prefix([row.input_ids for row in rows]),
        min(row.answer_start for row in rows) - 1,  # the token before the answer predicts: it stays with its row
    )
    ids = list(rows[0].input_ids[:prefix])
    positions = list(range(prefix))
    labels = [IGNORE] * prefix
    segments = [0] * prefix
    weights: list[float] = []
    longest = max(len(row.input_ids) for row in rows) - prefix
    index_BS = torch.zeros(len(rows), longest, dtype=torch.long)
    place: list[int] = []
    for segment, row in enumerate(rows, start=1):
        length = len(row.input_ids) - prefix
        index_BS[segment - 1, :length] = torch.arange(len(ids), len(ids) + length)
        place += range((segment - 1) * longest, (segment - 1) * longest + length)
        ids += row.input_ids[prefix:]
        positions += range(prefix, len(row.input_ids))
        labels += [IGNORE] * (row.answer_start - prefix) + row.input_ids[row.answer_start :]
        segments += [segment] * length
        weights += [row.weight] * (len(row.input_ids) - row.answer_start)
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "labels": torch.tensor([labels]),
        "segments": torch.tensor(segments),
        "suffix_index": index_BS,
        "suffix_place": torch.tensor(place),
        "weights": torch.tensor(weights),
    }


def pad(rows: Sequence[Row], pad_id: int) -> dict[str, torch.Tensor]:
    """Returns the batch the plain way: right-padded rows (B, T) with an attention mask."""
    longest = max(len(row.input_ids) for row in rows)
    ids_BT = torch.full((len(rows), longest), pad_id)
    labels_BT = torch.full((len(rows), longest), IGNORE)
    mask_BT = torch.zeros((len(rows), longest), dtype=torch.long)
    weights: list[float] = []
    for b, row in enumerate(rows):
        length = len(row.input_ids)
        ids_BT[b, :length] = torch.tensor(row.input_ids)
        mask_BT[b, :length] = 1
        labels_BT[b, row.answer_start : length] = torch.tensor(row.input_ids[row.answer_start :])
        weights += [row.weight] * (length - row.answer_start)
    return {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": labels_BT, "weights": torch.tensor(weights)}


def answer_loss_sum(
    model: torch.nn.Module, inputs: dict[str, torch.Tensor], dtype: torch.dtype, *, fast: bool = False
) -> torch.Tensor:
    """Returns the weighted sum over all answer tokens of -log p, in nats, of a packed or a padded batch.

    `fast` takes `prefix_attention`, which the model must have been given, instead of a dense mask in `dtype`.
    """
    labels = inputs["labels"]
    kwargs: dict[str, Any] = {"input_ids": inputs["input_ids"], "use_cache": False}
    if "segments" in inputs:
        kwargs["position_ids"] = inputs["position_ids"]
        if fast:
            kwargs |= {key: inputs[key] for key in ("suffix_index", "suffix_place")}
            # four dimensions tell transformers not to build a mask of its own; this one is not read
            kwargs["attention_mask"] = torch.zeros(1, 1, 1, 1, dtype=dtype, device=labels.device)
        else:
            kwargs["attention_mask"] = shared_prefix_mask(inputs["segments"], dtype)
    else:
        kwargs["attention_mask"] = inputs["attention_mask"]
    answer_BT = labels != IGNORE
    positions = answer_BT.any(0).nonzero().squeeze(1) - 1  # the position before an answer token predicts it
    logits_BTV = model(logits_to_keep=positions, **kwargs).logits
    kept_BT = answer_BT[:, positions + 1]
    log_loss_A = F.cross_entropy(logits_BTV[kept_BT].float(), labels[:, positions + 1][kept_BT], reduction="none")
    return (log_loss_A * inputs["weights"]).sum()


def shared_prefix_mask(segments_T: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns the additive mask (1, 1, T, T): causal, and a suffix sees the prefix and itself only."""
    total = len(segments_T)
    causal_TT = torch.ones(total, total, dtype=torch.bool, device=segments_T.device).tril()
    see_TT = causal_TT & ((segments_T[None, :] == 0) | (segments_T[None, :] == segments_T[:, None]))
    mask_TT = torch.zeros(total, total, dtype=dtype, device=segments_T.device)
    return mask_TT.masked_fill(~see_TT, torch.finfo(dtype).min)[None, None]


class LabelTrainer(SFTTrainer):  # type: ignore[misc]
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
        labels = np.array([row.label for row in self.rows])
        weights = 1.0 / np.bincount(labels)[labels]
        generator = torch.Generator().manual_seed(self.args.seed)
        return WeightedRandomSampler(weights.tolist(), len(labels), generator=generator)


def unpack(inputs: dict[str, torch.Tensor], pad_id: int) -> dict[str, torch.Tensor]:
    """Returns the padded batch that a shared-prefix batch stands for."""
    segments = inputs["segments"]
    ids, labels = inputs["input_ids"][0], inputs["labels"][0]
    prefix = ids[segments == 0].tolist()
    rows: list[Row] = []
    start = 0
    for segment in range(1, int(segments.max()) + 1):
        answer = int((labels[segments == segment] != IGNORE).sum())
        row_ids = [*prefix, *ids[segments == segment].tolist()]
        rows.append(Row(row_ids, len(row_ids) - answer, 0, float(inputs["weights"][start])))
        start += answer
    return {key: value.to(ids.device) for key, value in pad(rows, pad_id).items()}


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
