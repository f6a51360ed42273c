"""Stage 1: pre-train the bundled backbone on plain text, next token by next token.

    python tools/pretrain/pretrain.py CORPUS TOKENIZER OUT --steps 2600

The learning rate warms up, stays, and falls linearly over the last `--decay` of the steps; since it stays before it
falls, a run may be stopped at a checkpoint and finished with fewer (or more) `--steps` than it was started with.
Every step is a pure function of the seed and the step number; OUT/state.pt holds what a resumed run needs and
OUT/log.jsonl one line every ten steps.

Muon orthogonalises the update of each matrix (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/);
embeddings and norms are AdamW's.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import typer
from corpus import encode_epoch, keep_best, read_documents
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM


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


def optimizers_for(model: LlamaForCausalLM, lr: float, embedding_lr: float) -> list[torch.optim.Optimizer]:
    """Returns Muon for the matrices of the blocks and AdamW for everything else."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=embedding_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def schedule(step: int, steps: int, warmup: int, decay: float) -> float:
    """Returns the factor on the learning rate: linear warm-up, constant, linear to 3 % over the last `decay`."""
    falling = max(1, int(steps * decay))
    return min(1.0, (step + 1) / warmup, 0.03 + 0.97 * max(0, steps - step) / falling)


def batch_at(stream: np.ndarray, order: np.ndarray, step: int, batch: int, length: int) -> torch.Tensor:
    """Returns the windows of length + 1 that `order` names for this step.

    Neighbouring windows come from one document, so they are taken in a random order: a batch of neighbours is hardly
    more than one example.
    """
    rows = order[np.arange(step * batch, (step + 1) * batch) % len(order)]
    return torch.from_numpy(np.stack([stream[r * length : r * length + length + 1] for r in rows]).astype(np.int64))


def main(
    corpus: Path,
    tokenizer_folder: Path,
    out: Path,
    steps: int = 2600,
    decay: float = 0.35,
    batch: int = 32,
    length: int = 256,
    width: int = 256,
    depth: int = 6,
    heads: int = 4,
    kv_heads: int = 2,
    hidden: int = 640,
    lr: float = 6e-3,
    embedding_lr: float = 3e-3,
    share: float = 0.7,
    epochs: int = 2,
    seed: int = 1,
    save_every: int = 50,
) -> None:
    """Pre-train on CORPUS with the tokenizer in TOKENIZER_FOLDER; checkpoints and the log go to OUT."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    cache = out / f"stream-{share}-{epochs}-{seed}.npy"
    if not cache.exists():
        documents = keep_best(list(read_documents(corpus)), share)
        np.save(cache, np.concatenate([encode_epoch(tokenizer, documents, seed + epoch) for epoch in range(epochs)]))
    stream = np.load(cache, mmap_mode="r")
    held_out, stream = stream[: 64 * length + 1], stream[64 * length + 1 :]
    order = np.random.default_rng(seed).permutation((len(stream) - 1) // length)
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = build_model(len(tokenizer), width, depth, heads, kv_heads, hidden, special)
    optimizers = optimizers_for(model, lr, embedding_lr)
    base_lrs = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    start, seconds = 0, 0.0
    state_path = out / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        start, seconds = state["step"], state["seconds"]
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters, {len(stream):,} tokens in the stream, {steps * batch * length:,} to see")

    @torch.compile
    def loss_of(tokens: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden_states = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
            logits = model.lm_head(hidden_states)
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    log = (out / "log.jsonl").open("a", encoding="utf-8")
    clock = time.perf_counter()
    for step in range(start, steps):
        factor = schedule(step, steps, warmup=60, decay=decay)
        for optimizer, lrs in zip(optimizers, base_lrs, strict=True):
            for group, base in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = base * factor
        loss = loss_of(batch_at(stream, order, step, batch, length))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 10 == 0:
            elapsed = time.perf_counter() - clock
            entry = {
                "step": step + 1,
                "tokens": (step + 1) * batch * length,
                "loss": round(loss.item(), 4),
                "lr": round(lr * factor, 6),
                "seconds": round(seconds + elapsed, 1),
                "tokens_per_second": round((step + 1 - start) * batch * length / elapsed),
            }
            if (step + 1) % save_every == 0 or step + 1 == steps:
                with torch.no_grad():
                    rows = batch_at(held_out, np.arange(64), 0, batch, length)
                    entry["held_out_loss"] = round(loss_of(rows).item(), 4)
                state = {
                    "model": model.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                    "step": step + 1,
                    "seconds": seconds + elapsed,
                }
                torch.save(state, state_path.with_suffix(".tmp"))
                os.replace(state_path.with_suffix(".tmp"), state_path)
            print(json.dumps(entry), file=log, flush=True)
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")


if __name__ == "__main__":
    typer.run(main)
