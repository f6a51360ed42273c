"""Train the backbone on token files: stage 1 from nothing, stage 2 from the weights of stage 1.

    python tools/pretrain/pretrain.py TOKENS STAGE1
    python tools/pretrain/pretrain.py TOKENS STAGE2 --start STAGE1/model

TOKENS is a folder that tokens.py wrote; what is not given comes from `RECIPES`, by stage and device. The learning rate
warms up, stays, and falls linearly to zero over the last `--decay` of the run. A run ends after `--steps`, or after
`--minutes` if that is sooner: its progress is the larger of the two shares, so that the learning rate has fallen then,
too. Without a limit every step is a pure function of the seed and the step number. OUT/state.pt, written every
`--save-seconds`, holds what the same command needs to go on; OUT/log.jsonl has some 200 lines; OUT/model is the result.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import typer
from export import copy_tokenizer
from optimizers import optimizers_for
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

OTHER_WEIGHT = 0.3  # of a token that is no answer; in stage 1 none is, so that all weigh the same


@dataclass(frozen=True)
class Recipe:
    """What depends on stage and device; `length` in tokens, `decay` a share of the run, warm-up in steps."""

    steps: int
    batch: int
    lr: float  # of Muon
    embedding_lr: float  # of AdamW
    warmup: int
    decay: float
    length: int = 512


RECIPES = {
    ("stage 1", "cpu"): Recipe(1900, 32, 2.5e-3, 2e-3, 60, 0.42, 256),
    ("stage 2", "cpu"): Recipe(600, 16, 1.2e-3, 1e-3, 20, 0.9),
    # 406 million and 13 million tokens in batches of 65,536 and 32,768: eight and four times those of the CPU, hence
    # higher learning rates.
    ("stage 1", "cuda"): Recipe(6200, 128, 4e-3, 3e-3, 200, 0.5),
    ("stage 2", "cuda"): Recipe(400, 64, 1.6e-3, 1.2e-3, 20, 0.9),
}


class Windows:
    """Draws batches of windows from a token file that lies on the device whole.

    A stream is cut anew in every pass, at another offset. Neighbouring windows come from one document, so they are
    taken in a random order: a batch of neighbours is hardly more than one example.
    """

    def __init__(self, path: Path, length: int, batch: int, seed: int, device: torch.device) -> None:
        stored = np.load(path, mmap_mode="r")
        self.stream = stored.ndim == 1
        self.length = length if self.stream else stored.shape[1] - 1
        self.stride = length if self.stream else stored.shape[1]
        self.batches = ((stored.size - 1) // length - 1 if self.stream else len(stored)) // batch  # in one pass
        if self.batches < 1:
            raise SystemExit(
                f"{path}: too few tokens for one batch (got {stored.size:,}); --batch {batch} is too large"
            )
        self.batch, self.seed, self.device, self.pass_ = batch, seed, device, -1
        # int16 where the file has uint16, which torch has few operations for: the marked tokens are negative
        self.tokens = torch.from_numpy(np.array(stored).reshape(-1).view(np.int16)).to(device)
        self.within = torch.arange(self.length + 1, device=device)

    def at(self, step: int) -> torch.Tensor:
        """Returns the batch of this step, int16 (batch, length + 1)."""
        pass_, place = divmod(step, self.batches)
        if pass_ != self.pass_:
            rng = np.random.default_rng((self.seed, pass_))
            offset = int(rng.integers(self.length)) if self.stream else 0
            rows = rng.permutation(self.batches * self.batch) * self.stride + offset
            self.starts, self.pass_ = torch.from_numpy(rows).to(self.device), pass_
        starts = self.starts[place * self.batch : (place + 1) * self.batch]
        return self.tokens[starts[:, None] + self.within]


def causal_attention(
    module: torch.nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, _: None, scaling: float, **__: object
) -> tuple[torch.Tensor, None]:
    """Returns causal attention (batch, tokens, heads, head width).

    transformers' own builds a mask under torch.compile, and with a mask there is no flash attention; it builds none for
    an attention function that it does not know.
    """
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True).transpose(1, 2), None


AttentionInterface.register("causal", causal_attention)


def build_model(
    vocab: int, width: int, depth: int, heads: int, kv_heads: int, hidden: int, special: dict[str, int]
) -> LlamaForCausalLM:
    """Returns a fresh Llama with tied embeddings; projections that write to the residual stream start smaller."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        **special,
    )
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.normal_(parameter, std=0.02 / (2 * depth) ** 0.5)
    return model


def losses_at(
    head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, answers: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the weighted loss of all targets and the loss of the answers among them, in nats."""
    loss = F.cross_entropy(head(hidden).float().flatten(0, 1), targets.flatten(), reduction="none")
    answers = answers.flatten().float()
    weights = OTHER_WEIGHT + (1 - OTHER_WEIGHT) * answers
    return (loss * weights).sum() / weights.sum(), (loss * answers).sum() / answers.sum().clamp(min=1.0)


def losses_of(model: LlamaForCausalLM, windows: torch.Tensor, compiled: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns what `losses_at` returns for int16 windows (batch, tokens + 1)."""
    ids = (windows & 0x7FFF).long()
    at = compiled_losses_at if compiled else losses_at
    with torch.autocast(windows.device.type, torch.bfloat16):
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        return at(model.lm_head, hidden, ids[:, 1:], windows[:, 1:] < 0)


compiled_losses_at = torch.compile(losses_at, fullgraph=True, dynamic=False)


def compile_layers(model: LlamaForCausalLM, windows: torch.Tensor) -> bool:
    """Compiles the layers and the loss for windows of this shape; returns False, after a line, where that fails.

    The layers share one compiled function; the whole model in one graph takes as many times longer to compile as it has
    layers.
    """
    clock = time.perf_counter()
    try:
        for layer in model.model.layers:
            layer.compile(fullgraph=True, dynamic=False)
        losses_of(model, windows, True)[0].backward()  # the backward pass is compiled only now
    except Exception as error:
        print(f"note: torch.compile failed, going on without it: {str(error).splitlines()[0]}", file=sys.stderr)
        for layer in model.model.layers:
            layer._compiled_call_impl = None
        return False
    finally:
        model.zero_grad(set_to_none=True)
    print(f"compiled in {time.perf_counter() - clock:.0f} s")
    return True


def schedule(step: int, progress: float, recipe: Recipe) -> float:
    """Returns the factor on the learning rate: linear warm-up, constant, linear to zero over the last `decay`."""
    return min(1.0, (step + 1) / recipe.warmup, (1 - progress) / recipe.decay)


def update(
    model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer], windows: torch.Tensor, compiled: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Trains one step and returns what `losses_of` returned; the device is not waited for."""
    loss, answer_loss = losses_of(model, windows, compiled)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.detach(), answer_loss.detach()


def held_out_windows(path: Path, length: int, batch: int, device: torch.device) -> torch.Tensor:
    """Returns the first batch of windows of the held-out documents, int16 (batch, length + 1); fewer if they are few."""
    tokens = np.load(path)[: batch * length + 1].view(np.int16)
    length = min(length, len(tokens) - 1)
    return torch.from_numpy(tokens).to(device).unfold(0, length + 1, length)


def main(
    tokens: Path,
    out: Path,
    start: Path | None = None,
    device: str | None = None,
    steps: int | None = None,
    minutes: float = float("inf"),
    batch: int | None = None,
    length: int | None = None,
    lr: float | None = None,
    embedding_lr: float | None = None,
    weight_decay: float = 0.1,
    decay: float | None = None,
    width: int = 256,
    depth: int = 6,
    heads: int = 4,
    kv_heads: int = 2,
    hidden: int = 640,
    seed: int = 1,
    save_seconds: float = 120,
    compile: bool = True,
) -> None:
    """Train on TOKENS: stage 1, or stage 2 with the model that --start names; checkpoints and log go to OUT."""
    out.mkdir(parents=True, exist_ok=True)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    stage = "stage 2" if start else "stage 1"
    asked = {"steps": steps, "batch": batch, "length": length, "lr": lr, "embedding_lr": embedding_lr, "decay": decay}
    given = {key: value for key, value in asked.items() if value is not None}
    recipe = replace(RECIPES[stage, "cuda" if where.type == "cuda" else "cpu"], **given)
    torch.manual_seed(seed)
    about = json.loads((tokens / "tokens.json").read_text(encoding="utf-8"))
    if start:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    else:
        special = {key: about[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model = build_model(about["vocab_size"], width, depth, heads, kv_heads, hidden, special)
    model.set_attn_implementation("causal")
    model.to(where)
    source = Windows(tokens / ("stage2.npy" if start else "stage1.npy"), recipe.length, recipe.batch, seed, where)
    held_out = held_out_windows(tokens / "held_out.npy", source.length, recipe.batch, where)
    optimizers = optimizers_for(model, recipe.lr, recipe.embedding_lr, weight_decay)
    first, seconds = 0, 0.0
    state_path = out / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, map_location=where, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first, seconds = state["step"], state["seconds"]
    parameters, per_step = sum(p.numel() for p in model.parameters()), recipe.batch * source.length
    print(
        f"{stage} on {where.type}: {parameters:,} parameters, {recipe.steps * per_step:,} tokens to see, "
        f"{source.batches * per_step:,} in one pass; {recipe}"
    )
    clock = saved_at = time.perf_counter()
    compiled = compile and first < recipe.steps and compile_layers(model, source.at(first))
    log_every = max(10, recipe.steps // 200)
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        for step in range(first, recipe.steps):
            progress = max(step / recipe.steps, (seconds + time.perf_counter() - clock) / (60 * minutes))
            factor = schedule(step, min(progress, 1.0), recipe)
            for optimizer, base in zip(optimizers, (recipe.lr, recipe.embedding_lr), strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = base * factor
            loss, answer_loss = update(model, optimizers, source.at(step), compiled)
            done = step + 1
            last = done == recipe.steps or progress >= 1
            if last or done % log_every == 0:  # the only place where the device is waited for
                entry = {"step": done, "tokens": done * per_step, "loss": round(loss.item(), 4)}
                if start:
                    entry["answer_loss"] = round(answer_loss.item(), 4)
                elapsed = time.perf_counter() - clock
                entry |= {"lr": round(recipe.lr * factor, 6), "seconds": round(seconds + elapsed, 1)}
                entry["tokens_per_second"] = round((done - first) * per_step / elapsed)
                if last or time.perf_counter() - saved_at >= save_seconds:
                    # with gradients on, though none are taken: without them all would be compiled once more
                    entry["held_out_loss"] = round(losses_of(model, held_out, compiled)[0].item(), 4)
                    state = {
                        "model": model.state_dict(),
                        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                        "step": recipe.steps if last else done,
                        "seconds": seconds + elapsed,
                    }
                    torch.save(state, state_path.with_suffix(".tmp"))
                    os.replace(state_path.with_suffix(".tmp"), state_path)
                    saved_at = time.perf_counter()
                print(json.dumps(entry), file=log, flush=True)
            if last:
                break
    model.save_pretrained(out / "model")
    copy_tokenizer(tokens, out / "model")


if __name__ == "__main__":
    typer.run(main)
