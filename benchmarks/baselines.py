"""The ways of doing this job that loraft is measured against, written out as their users run them.

(a) The tutorial's recipe: right-padded batches, labels -100 on the prompt, the model's own loss over a full LM head,
    `generate` of 16 tokens for evaluation, one adapter after the other, each over a freshly loaded backbone. Its
    training step is a bare loop without a trainer's overhead, which is in the recipe's favour.
(b) TRL's own SFTTrainer on conversational prompt-completion rows, with its own preparation, collator and loss; with
    its defaults (activation checkpointing and bf16 autocast), and at its best for a small model (both off).
(c) lm-evaluation-harness's log-likelihood loop: full sequences, longest first, right-padded, log-softmax over all
    positions in the model's dtype. As there, requests that differ in their last token only share one forward.

None of them is slowed down: all get the same frozen weights, the same fp32 adapter, the same rows, and tokens that
are encoded once. Suffixes: B batch, T tokens, V vocabulary, N examples, K labels.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.data.prompt import answer, messages, parse_answer
from loraft.engine.collator import IGNORE, TrainingRow, make_rows
from loraft.engine.scorer import answer_tokens
from loraft.models.adapter import add_adapter
from loraft.models.backbone import load_backbone
from loraft.models.encoder import Encoder
from loraft.training.learning_rate import learning_rate

NEW_TOKENS = 16  # of an answer, in the tutorial
TUTORIAL_BATCH = 8  # of its evaluation; 16 with demonstrations
HARNESS_BATCH = 16


def recipe_batch(rows: Sequence[TrainingRow], pad_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """The tutorial's training batch: right-padded, the prompt's labels -100."""
    longest = max(len(row.input_ids) for row in rows)
    ids_BT = torch.full((len(rows), longest), pad_id)
    labels_BT = torch.full((len(rows), longest), IGNORE)
    mask_BT = torch.zeros((len(rows), longest), dtype=torch.long)
    for b, row in enumerate(rows):
        length = len(row.input_ids)
        ids_BT[b, :length] = torch.tensor(row.input_ids)
        labels_BT[b, row.answer_start : length] = torch.tensor(row.input_ids[row.answer_start :])
        mask_BT[b, :length] = 1
    batch = {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": labels_BT}
    return {key: value.to(device) for key, value in batch.items()}


def recipe_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: Sequence[TrainingRow],
    pad_id: int,
    device: torch.device,
) -> float:
    """One training step of the recipe; returns the loss, the mean over the answers' tokens, in nats."""
    model.train()
    loss = model(**recipe_batch(rows, pad_id, device)).loss
    loss.backward()
    _update(model, optimizer)
    return float(loss.detach())


def _update(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    # clipped as TrainingArguments do it by default
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad()


def adamw(model: torch.nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW over the adapter as TrainingArguments' default builds it: fused, without decay."""
    return torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=learning_rate, weight_decay=0.0, fused=True
    )


@torch.inference_mode()
def recipe_predict(
    model: PreTrainedModel,
    encoder: Encoder,
    prompts: Sequence[Sequence[int]],
    batch_size: int = TUTORIAL_BATCH,
    new_tokens: int = NEW_TOKENS,
) -> list[int | None]:
    """Label ids read off generated answers, None where the answer is no label; left-padded, in the rows' own order."""
    pad = encoder.tokenizer.pad_token_id
    labels: list[int | None] = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        longest = max(map(len, batch))
        ids_BT = torch.full((len(batch), longest), pad)
        mask_BT = torch.zeros((len(batch), longest), dtype=torch.long)
        for b, prompt in enumerate(batch):
            ids_BT[b, longest - len(prompt) :] = torch.tensor(prompt)
            mask_BT[b, longest - len(prompt) :] = 1
        made_BT = model.generate(
            input_ids=ids_BT.to(model.device),
            attention_mask=mask_BT.to(model.device),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=encoder.end_of_turn,
            pad_token_id=pad,
        )
        answers = encoder.tokenizer.batch_decode(made_BT[:, longest:], skip_special_tokens=True)
        labels += [parse_answer(encoder.task, text) for text in answers]
    return labels


@torch.inference_mode()
def loglikelihoods(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    completions_K: Sequence[Sequence[int]],
    batch_size: int = HARNESS_BATCH,
) -> np.ndarray:
    """The log-likelihood of each label's answer after each prompt, N x K, in nats, as lm-evaluation-harness does it.

    Source:
        `HFLM._loglikelihood_tokens` of lm-evaluation-harness 0.4: requests sorted by length, longest first, and
        grouped by context and continuation without its last token (`logits_cache`), one forward for a group.
    """
    answers = answer_tokens(completions_K)
    requests: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for n, prompt in enumerate(prompts):
        for k, continuation in enumerate(answers):
            requests.setdefault((*prompt, *continuation[:-1]), []).append((n, k))
    order = sorted(requests, key=lambda ids: (-len(ids), ids))
    out_NK = np.zeros((len(prompts), len(answers)))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        ids_BT = torch.zeros((len(batch), len(batch[0])), dtype=torch.long)
        for b, ids in enumerate(batch):
            ids_BT[b, : len(ids)] = torch.tensor(ids)
        # no mask: padding on the right is behind everything that a causal model looks at
        log_probs_BTV = model(input_ids=ids_BT.to(model.device)).logits.log_softmax(-1)
        for b, ids in enumerate(batch):
            for n, k in requests[ids]:
                length = len(answers[k])
                own_LV = log_probs_BTV[b, len(ids) - length : len(ids)]
                targets_L1 = torch.tensor(answers[k], device=model.device)[:, None]
                out_NK[n, k] = float(own_LV.gather(1, targets_L1).sum())
    return out_NK


def trl_trainer(
    model: torch.nn.Module,
    encoder: Encoder,
    split: Split,
    *,
    folder: Path,
    batch_size: int,
    learning_rate: float,
    at_its_best: bool = False,
    steps: int = -1,
) -> SFTTrainer:
    """TRL's SFTTrainer on prompt-completion rows; all is its default but batch, rate, steps, and what prints.

    Args:
        at_its_best: without the activation checkpointing and the autocast that are on by default; the weights are in
            bf16 already.
    """
    datasets.disable_progress_bars()
    best: dict[str, Any] = {"gradient_checkpointing": False, "bf16": False} if at_its_best else {}
    args = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        max_steps=steps,
        use_cpu=next(model.parameters()).device.type == "cpu",
        dataloader_pin_memory=next(model.parameters()).device.type == "cuda",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        logging_steps=10**6,
        save_strategy="no",
        **best,
    )
    kwargs = {"date_string": encoder.date_string}
    rows = [
        {
            "prompt": messages(encoder.task, text),
            "completion": [{"role": "assistant", "content": answer(encoder.task, label)}],
            "chat_template_kwargs": kwargs,
        }
        for text, label in zip(split.texts, split.labels.tolist(), strict=True)
    ]
    tokenizer: PreTrainedTokenizerBase = encoder.tokenizer
    dataset = datasets.Dataset.from_list(rows)
    trainer = SFTTrainer(model=model, args=args, processing_class=tokenizer, train_dataset=dataset)
    trainer.remove_callback(PrinterCallback)
    return trainer


def recipe_sweep(config: Config, encoder: Encoder, train: Split, test: Split) -> list[list[int | None]]:
    """The tutorial's sweep: for each rank a fresh backbone, the training steps, and generation on the test rows."""
    prompts = encoder.encode(train.texts)
    rows = make_rows([p.ids for p in prompts], train.labels.tolist(), encoder.completions_K, "none")
    asked = [prompt.ids for prompt in encoder.encode(test.texts)]
    size, steps = config.train.per_device_train_batch_size, config.train.max_steps
    predicted = []
    for rank in config.sweep.ranks:
        base = load_backbone(config.model, config.quant)
        model = add_adapter(base, config.lora.model_copy(update={"r": rank}), seed=config.seed)
        optimizer = adamw(model, learning_rate(config.train, model))
        order = random.Random(config.seed).sample(range(len(rows)), size * steps)
        for step in range(steps):
            batch = [rows[i] for i in order[step * size : (step + 1) * size]]
            recipe_step(model, optimizer, batch, encoder.tokenizer.pad_token_id, base.device)
        model.eval()
        predicted.append(recipe_predict(model, encoder, asked))
    return predicted


def trl_sweep(
    config: Config, encoder: Encoder, train: Split, test: Split, folder: Path, *, at_its_best: bool = False
) -> list[np.ndarray]:
    """A sweep with today's parts: for each rank a fresh backbone, TRL's trainer, and the log-likelihood loop."""
    asked = [prompt.ids for prompt in encoder.encode(test.texts)]
    scores = []
    for rank in config.sweep.ranks:
        base = load_backbone(config.model, config.quant)
        model = add_adapter(base, config.lora.model_copy(update={"r": rank}), seed=config.seed)
        trainer = trl_trainer(
            model, encoder, train, folder=folder / f"r{rank}", learning_rate=learning_rate(config.train, model),
            batch_size=config.train.per_device_train_batch_size, steps=config.train.max_steps, at_its_best=at_its_best,
        )  # fmt: skip
        trainer.train()
        model.eval()
        scores.append(loglikelihoods(model, asked, encoder.completions_K))
    return scores
