"""Stage 2: teach the pre-trained backbone the chat format and opinions.

    python tools/pretrain/instruct.py STAGE1/model CORPUS OUT --steps 850

Three kinds of text in windows of 512 tokens: chats (`conversations.py`, with and without demonstrations), opinions
with their labels written one after the other, and the part of the stage-1 corpus that is densest in words of opinion,
so that the language is not forgotten. Every token counts a little, for the language of opinions is new; answers,
end-of-turn tokens and the labels behind demonstrations count fully. The text is a pure function of the seed, so a
resumed run (OUT/state.pt) draws it again up to its step.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import typer
from conversations import sample_conversation
from corpus import encode_epoch, keep_best, read_documents
from opinions import Material, bare, load_material, sample_opinion
from pretrain import optimizers_for
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

LENGTH = 512
SHARES = {"chat": 0.42, "labelled": 0.25, "corpus": 0.33}  # of the windows
OTHER_WEIGHT = 0.3  # of a token that is no answer
DATES = [
    f"{day:02d} {month} {year}"
    for day in (1, 9, 17, 26)
    for month in ("Jan", "Apr", "Jul", "Nov")
    for year in (2023, 2024, 2026)
]


def answer_mask(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> np.ndarray:
    """Returns which tokens are answers: assistant turns with their end, and label words behind `Sentiment:`."""
    start, end, stop = (
        tokenizer.convert_tokens_to_ids(f"<|{n}|>") for n in ("start_header_id", "end_header_id", "eot_id")
    )
    assistant = tokenizer("assistant", add_special_tokens=False)["input_ids"]
    sentiment = tokenizer("Sentiment:", add_special_tokens=False)["input_ids"]
    labels = {tokenizer(f" {w}", add_special_tokens=False)["input_ids"][0] for w in ("positive", "negative", "neutral")}
    header = [start, *assistant, end]
    mask = np.zeros(len(ids), dtype=bool)
    inside = False
    for i in range(len(ids)):
        if inside:
            mask[i] = True
            inside = ids[i] != stop
        elif ids[max(0, i - len(header) - 1) : i - 1] == header:  # header and the first of two line breaks lie behind
            inside = True
        elif ids[i] in labels and ids[max(0, i - len(sentiment)) : i] == sentiment:
            mask[i] = True
    return mask


def chat_text(tokenizer: PreTrainedTokenizerFast, material: Material, rng: random.Random) -> str:
    """Returns one rendered chat; the date is mostly the one that loraft pins."""
    date = "26 Jul 2024" if rng.random() < 0.7 else rng.choice(DATES)
    return str(tokenizer.apply_chat_template(sample_conversation(material, rng), tokenize=False, date_string=date))


def labelled_text(material: Material, rng: random.Random) -> str:
    """Returns a page of opinions, each with its label, as demonstrations are written."""
    rows = [sample_opinion(material, rng) for _ in range(rng.randint(8, 16))]
    return (
        "<|begin_of_text|>" + "\n".join(f"Sentence: {o.text}\nSentiment: {o.label}\n" for o in rows) + "<|end_of_text|>"
    )


def windows(
    tokenizer: PreTrainedTokenizerFast, material: Material, stream: np.ndarray, rng: random.Random
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (ids, weights) of LENGTH + 1 tokens; whole chats are put behind each other until a window is full."""
    kinds, shares = list(SHARES), list(SHARES.values())
    while True:
        kind = rng.choices(kinds, shares)[0]
        ids: list[int] = []
        if kind == "corpus":
            at = rng.randrange(len(stream) - LENGTH - 1)
            ids = stream[at : at + LENGTH + 1].astype(np.int64).tolist()
            yield np.array(ids), np.full(LENGTH + 1, OTHER_WEIGHT, dtype=np.float32)
            continue
        while len(ids) <= LENGTH:
            text = chat_text(tokenizer, material, rng) if kind == "chat" else labelled_text(material, rng)
            piece = tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(piece) <= LENGTH:
                ids += piece
        weights = np.where(answer_mask(tokenizer, ids), 1.0, OTHER_WEIGHT).astype(np.float32)
        yield np.array(ids[: LENGTH + 1]), weights[: LENGTH + 1]


def main(
    stage1: Path,
    corpus: Path,
    out: Path,
    avoid: list[Path] | None = None,
    steps: int = 850,
    batch: int = 16,
    lr: float = 1.2e-3,
    embedding_lr: float = 1e-3,
    seed: int = 1,
) -> None:
    """Tune the model in STAGE1; the result goes to OUT/model, the log to OUT/log.jsonl.

    No opinion is drawn whose words equal those of a sentence in a folder given with --avoid: the test sets.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(stage1)
    model = LlamaForCausalLM.from_pretrained(stage1, dtype=torch.float32)
    taken = frozenset(bare(json.loads(line)["sentence"]) for folder in avoid or [] for path in folder.glob("*.jsonl")
                      for line in path.read_text(encoding="utf-8").splitlines())  # fmt: skip
    material = replace(load_material(Path(__file__).parent / "opinions"), avoid=taken)
    documents = keep_best(list(read_documents(corpus)), 0.25)
    stream = encode_epoch(tokenizer, documents, seed + 100)
    source = windows(tokenizer, material, stream, random.Random(seed))
    optimizers = optimizers_for(model, lr, embedding_lr)

    @torch.compile
    def losses_of(tokens: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
            logits = model.lm_head(hidden)
        loss = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        weights = weights[:, 1:].flatten()
        answers = (weights == 1.0).float()
        return (loss * weights).sum() / weights.sum(), (loss * answers).sum() / answers.sum().clamp(min=1.0)

    start, seconds = 0, 0.0
    state_path = out / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        start, seconds = state["step"], state["seconds"]
        for _ in range(start * batch):
            next(source)
    clock = time.perf_counter()
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        for step in range(start, steps):
            factor = min(1.0, (step + 1) / 20, (steps - step) / (0.9 * steps))
            for optimizer, base in zip(optimizers, (lr, embedding_lr), strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = base * factor
            pairs = [next(source) for _ in range(batch)]
            tokens = torch.from_numpy(np.stack([ids for ids, _ in pairs]).astype(np.int64))
            loss, answer_loss = losses_of(tokens, torch.from_numpy(np.stack([w for _, w in pairs])))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if (step + 1) % 10 == 0:
                entry = {
                    "step": step + 1,
                    "tokens": (step + 1) * batch * LENGTH,
                    "loss": round(loss.item(), 4),
                    "answer_loss": round(answer_loss.item(), 4),
                    "seconds": round(seconds + time.perf_counter() - clock, 1),
                }
                print(json.dumps(entry), file=log, flush=True)
            if (step + 1) % 50 == 0:
                state = {
                    "model": model.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                    "step": step + 1,
                    "seconds": seconds + time.perf_counter() - clock,
                }
                torch.save(state, state_path.with_suffix(".tmp"))
                os.replace(state_path.with_suffix(".tmp"), state_path)
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")


if __name__ == "__main__":
    typer.run(main)
