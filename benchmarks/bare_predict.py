"""The least that a prediction costs: import torch and transformers, load the bundled backbone, run one forward.

What `loraft predict` takes from a cold start is compared with this: `python benchmarks/bare_predict.py`.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

FOLDER = Path(__file__).parents[1] / "src/loraft/bundled/loraft-vi-tiny"

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.bfloat16).eval()
inputs = tokenizer("thầy giảng bài rất dễ hiểu", return_tensors="pt")
with torch.inference_mode():
    logits = model(**inputs).logits
print(tokenizer.decode(logits[0, -1].argmax()))
