"""Write the token files that both stages are trained on.

    python tools/pretrain/tokens.py CORPUS TOKENIZER OUT [--avoid FOLDER]

OUT/stage1.npy is one stream of tokens (n,), OUT/held_out.npy the stream of every hundredth document, which neither
stage sees, and OUT/stage2.npy the windows (windows, 513) of stage 2; all are uint16, and the highest bit marks a token
that is an answer. OUT/tokens.json, written last, says what they were made from. The files do not depend on the machine
or its number of cores, so that a GPU is not kept waiting for text: they may be made elsewhere and carried.
"""

import json
import multiprocessing
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import typer
from corpus import encode_epoch, keep_best, read_documents
from export import copy_tokenizer
from instruct import windows
from opinions import bare, load_material
from transformers import AutoTokenizer

DENSE = 0.25  # the share of the corpus, densest in words of opinion, that stage 2 goes on with
PART = 256  # windows of stage 2 that one process composes at a time


def stage2_part(folder: Path, dense: int, avoid: list[Path], seed: int, part: int, count: int) -> np.ndarray:
    """Returns `count` windows of part number `part`: a function of the seed and the part alone."""
    taken = frozenset(bare(json.loads(line)["sentence"]) for source in avoid for path in sorted(source.glob("*.jsonl"))
                      for line in path.read_text(encoding="utf-8").splitlines())  # fmt: skip
    material = replace(load_material(Path(__file__).parent / "opinions"), avoid=taken)
    stream = np.load(folder / "stage1.npy", mmap_mode="r")[:dense]
    source = windows(AutoTokenizer.from_pretrained(folder), material, stream, random.Random(f"{seed}-{part}"))
    return np.stack([next(source) for _ in range(count)])


def main(
    corpus: Path,
    tokenizer_folder: Path,
    out: Path,
    avoid: list[Path] | None = None,
    share: float = 1.0,
    stage2_windows: int = 12_288,
    seed: int = 1,
) -> None:
    """Encode CORPUS with the tokenizer in TOKENIZER_FOLDER, compose the windows of stage 2, write both into OUT.

    No opinion is drawn whose words equal those of a sentence in a folder given with --avoid: the test sets.
    """
    out.mkdir(parents=True, exist_ok=True)
    copy_tokenizer(tokenizer_folder, out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    everything = list(read_documents(corpus))
    characters = sum(map(len, everything))
    documents = keep_best(everything, share)  # the densest in words of opinion come first
    held_out = set(random.Random(seed).sample(range(len(documents)), max(1, len(documents) // 100)))
    dense: list[str] = []
    rest: list[str] = []
    seen = 0
    for i, document in enumerate(documents):
        seen += len(document)
        if i not in held_out:
            (dense if seen <= DENSE * characters or not dense else rest).append(document)
    streams = [encode_epoch(tokenizer, part, seed) for part in (dense, rest) if part]
    np.save(out / "stage1.npy", np.concatenate(streams))
    held = encode_epoch(tokenizer, [documents[i] for i in sorted(held_out)], seed)
    np.save(out / "held_out.npy", held)
    parts = [
        (out, len(streams[0]), avoid or [], seed, part, min(PART, stage2_windows - part * PART))
        for part in range(-(-stage2_windows // PART))
    ]
    if len(parts) == 1:
        made = [stage2_part(*parts[0])]
    else:
        with multiprocessing.get_context("spawn").Pool(min(os.cpu_count() or 1, len(parts))) as pool:
            made = pool.starmap(stage2_part, parts)
    np.save(out / "stage2.npy", np.concatenate(made))
    about = {
        "corpus": corpus.name, "share": share, "seed": seed, "documents": len(documents),
        "held_out_documents": len(held_out), "stage1_tokens": sum(map(len, streams)), "dense_tokens": len(streams[0]), "held_out_tokens": len(held),
        "stage2_windows": stage2_windows, "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    (out / "tokens.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    megabytes = sum(path.stat().st_size for path in out.glob("*.npy")) / 1e6
    print(f"{about['stage1_tokens']:,} tokens, {stage2_windows:,} windows of stage 2, {megabytes:.1f} MB in {out}")


if __name__ == "__main__":
    typer.run(main)
