"""Torch's names of the dtypes that a config can name, for code that must not import torch."""

TORCH_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
