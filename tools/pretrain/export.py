"""Write a checkpoint as a plain Hugging Face folder: bf16 safetensors, config, tokenizer.

python tools/pretrain/export.py MODEL_FOLDER src/loraft/bundled/loraft-vi-tiny
"""

import shutil
from pathlib import Path

import torch
import typer
from transformers import LlamaForCausalLM

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copies the tokenizer's files as they are."""
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, out / name)


def main(model_folder: Path, out: Path) -> None:
    """Save MODEL_FOLDER in bf16 into OUT and print what it weighs."""
    model = LlamaForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(out)
    copy_tokenizer(model_folder, out)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {size / 2**20:.2f} MiB in {out}")


if __name__ == "__main__":
    typer.run(main)
