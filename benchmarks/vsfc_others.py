"""Two other ways to train the same backbone on UIT-VSFC, which vsfc.py shows beside LoRA:

    python benchmarks/vsfc_others.py head FOLDER OUT [--seed 42] [--model BACKBONE] [--set KEY=VALUE]
    python benchmarks/vsfc_others.py full FOLDER OUT

head  A classification head on the same backbone with the same LoRA, as transformers' and peft's recipes do it:
      `AutoModelForSequenceClassification` on the bare sentence, right-padded, pooled at its last token; peft's SEQ_CLS,
      which trains the head too. The learning rate is LoRA's.
full  Full fine-tuning: all weights, on loraft's own prompts and answers, scored as loraft scores. The learning rate is
      a tenth of LoRA's, after Schulman et al. 2025, "LoRA Without Regret".

Both: fp32 weights, since bf16 would lose small steps of full fine-tuning; epochs, batch, schedule, clipping,
evaluations and the choice of the best step by macro-F1 on validation as in vsfc.yaml. OUT is a JSON file in the form of
a run's metrics.

Letters: B batch, T tokens, N rows, K labels.
"""

import copy
import json
import random
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, PreTrainedModel, get_scheduler

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.data.dataset import Split, load_data
from loraft.engine import scorer
from loraft.engine.collator import make_rows, pack
from loraft.engine.loss import answer_loss_sum
from loraft.engine.probabilities import to_probs
from loraft.evaluation.classification_report import classification_report
from loraft.evaluation.metrics import core
from loraft.models.adapter import lora_config
from loraft.models.backbone import load_backbone, load_tokenizer
from loraft.models.load import build_encoder
from loraft.models.source import pretrained
from loraft.runs.environment import environment
from loraft.training.learning_rate import rate_for
from loraft.training.memory import Peak

CONFIG = Path(__file__).with_name("vsfc.yaml")
FULL_SHARE = 0.1  # of LoRA's learning rate
EVALUATED = 64  # rows of a batch of the head's evaluation


class Way(StrEnum):
    HEAD = "head"
    FULL = "full"


class Method:
    """A model in training, the loss of training rows by their numbers, and the probabilities of a split, (N, K)."""

    def __init__(
        self,
        model: torch.nn.Module,
        learning_rate: float,
        loss: Callable[[Sequence[int]], torch.Tensor],
        probs_of: Callable[[Split], np.ndarray],
    ) -> None:
        self.model, self.learning_rate, self.loss, self.probs_of = model, learning_rate, loss, probs_of


def head(config: Config, train: Split) -> Method:
    """The backbone with a classification head and an adapter."""
    from peft import get_peft_model

    tokenizer = load_tokenizer(config.model)
    tokenizer.padding_side = "right"
    torch.manual_seed(config.seed)  # of the head and the adapter
    name, where = pretrained(config.model)
    base = AutoModelForSequenceClassification.from_pretrained(
        name, num_labels=len(config.prompt.labels or []), dtype=torch.float32, **where
    )
    base.config.pad_token_id = tokenizer.pad_token_id  # by which the model finds the last token of a sentence
    settings = lora_config(config.lora)
    settings.task_type = "SEQ_CLS"
    model = get_peft_model(base, settings)
    collate = DataCollatorWithPadding(tokenizer)

    def batch_of(texts: Sequence[str]) -> dict[str, torch.Tensor]:
        # split_special_tokens: "</s>" in a sentence is text, and a padding token in it would end the sentence early
        ids = tokenizer(texts, truncation=True, max_length=config.prompt.max_length, split_special_tokens=True)
        return dict(collate([{key: ids[key][i] for key in ("input_ids", "attention_mask")} for i in range(len(texts))]))

    labels_N = torch.tensor(train.labels.tolist())

    def loss(rows: Sequence[int]) -> torch.Tensor:
        found: torch.Tensor = model(**batch_of([train.texts[i] for i in rows]), labels=labels_N[rows]).loss
        return found

    @torch.inference_mode()
    def probs_of(split: Split) -> np.ndarray:
        model.eval()
        parts = [split.texts[start : start + EVALUATED] for start in range(0, len(split), EVALUATED)]
        return torch.cat([model(**batch_of(part)).logits.double().softmax(-1) for part in parts]).numpy()

    rate = config.train.learning_rate or rate_for(base.num_parameters())
    return Method(model, rate, loss, probs_of)


def full(config: Config, train: Split) -> Method:
    """The backbone with all its weights trained."""
    encoder = build_encoder(config)
    model: PreTrainedModel = load_backbone(config.model.model_copy(update={"dtype": "fp32"}), config.quant)
    model.requires_grad_(True)
    prompts = encoder.encode(train.texts)
    rows = make_rows([one.ids for one in prompts], train.labels.tolist(), encoder.completions_K, "none")

    def loss(chosen: Sequence[int]) -> torch.Tensor:
        batch = pack([rows[i] for i in chosen])
        return answer_loss_sum(model, batch, torch.float32) / batch["weights"].sum()

    def probs_of(split: Split) -> np.ndarray:
        model.eval()
        ids = [one.ids for one in encoder.encode(split.texts)]
        return to_probs(scorer.score(model, ids, encoder.completions_K, unscored=encoder.unscored))

    rate = config.train.learning_rate or rate_for(model.num_parameters())
    return Method(model, FULL_SHARE * rate, loss, probs_of)


def fit(method: Method, config: Config, train: Split, validation: Split) -> dict[str, Any]:
    """Trains, leaves the weights of the step with the best macro-F1 on validation, and says how it went."""
    section, labels = config.train, len(config.prompt.labels or [])
    size = section.per_device_train_batch_size
    per_epoch = -(-len(train) // size)
    steps = section.max_steps if section.max_steps > 0 else int(section.num_train_epochs * per_epoch)
    trained = {name: one for name, one in method.model.named_parameters() if one.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=method.learning_rate, weight_decay=section.weight_decay)
    warmup = int(section.warmup_steps * steps) if section.warmup_steps < 1 else int(section.warmup_steps)
    schedule = get_scheduler(section.lr_scheduler_type, optimizer, warmup, steps)
    order, generator = list[int](), random.Random(config.seed)
    peak, started = Peak(torch.device("cpu")), time.perf_counter()
    best: tuple[float, int, dict[str, torch.Tensor]] = (-1.0, 0, {})
    losses = []
    for step in range(1, steps + 1):
        if not order:
            order = generator.sample(range(len(train)), len(train))
        method.model.train()
        loss = method.loss(order[:size])
        order = order[size:]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), section.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        if step % section.eval_steps == 0 or step == steps:
            score = core(validation.labels, method.probs_of(validation).argmax(1), labels)["macro_f1"]
            print(f"step {step}: loss {np.mean(losses[-50:]):.3f}, validation macro-F1 {score:.4f}", flush=True)
            if score > best[0]:
                best = (score, step, copy.deepcopy({name: one.data for name, one in trained.items()}))
    for name, one in trained.items():
        one.data.copy_(best[2][name])
    return {
        "seconds": round(time.perf_counter() - started, 1), "steps": steps, "best_step": best[1],
        "validation_macro_f1": best[0], "peak_memory_mib": peak.mib(), "learning_rate": method.learning_rate,
        "trained_weights": sum(one.numel() for one in trained.values()), "first_loss": losses[0],
        "last_loss": losses[-1],
    }  # fmt: skip


def run(way: Way, config: Config) -> dict[str, Any]:
    """Trains, and scores the test split."""
    train, validation, test = (load_data(config, split) for split in ("train", "validation", "test"))
    method = {Way.HEAD: head, Way.FULL: full}[way](config, train)
    trained = fit(method, config, train, validation)
    probs_NK, section = method.probs_of(test), config.eval
    after = classification_report(
        test.labels, probs_NK, probs_NK.argmax(1), config.prompt.labels or [], seed=config.seed,
        bootstrap_samples=section.bootstrap_samples, confidence=section.confidence,
    )  # fmt: skip
    name = f"{way}-s{config.seed}"
    return {"run": name, "commit": environment().git_commit, "after": after.to_json(), "train": trained}


def main(
    way: Way,
    folder: Path,
    out: Path,
    seed: int = 42,
    model: str = "loraft-vi-tiny",
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value of the config.")] = None,
) -> None:
    """Train one way, and write OUT."""
    flags = {"data.source": str(folder), "model.name": model, "seed": seed}
    config = resolve(config_file=CONFIG, overrides=set_ or [], flags=flags)
    made = run(way, config)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
