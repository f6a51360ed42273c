"""Write a checkpoint as a plain Hugging Face folder: bf16 safetensors, config, tokenizer.

python tools/pretrain/export.py MODEL_FOLDER src/loraft/bundled/loraft-vi-tiny
"""

from pathlib import Path

import torch
import typer
from transformers import AutoTokenizer, LlamaForCausalLM


def main(model_folder: Path, out: Path) -> None:
    """Save MODEL_FOLDER in bf16 into OUT and print what it weighs."""
    model = LlamaForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(out)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {size / 2**20:.2f} MiB in {out}")


if __name__ == "__main__":
    typer.run(main)
