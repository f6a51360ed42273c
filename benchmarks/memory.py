"""Predicted against measured peak memory of a training, setting by setting, each in a process of its own.

    python benchmarks/memory.py      # on the CPU; writes results/memory.json and the table of docs/memory.md
    python benchmarks/memory.py --device cuda

Measured is the most memory above that of a process in which all libraries are loaded and a model of two layers was
trained, so above the idle process. On the CPU there are two measurements: with the C library giving every freed block
of 128 KiB or more back at once (MALLOC_MMAP_THRESHOLD_), which is what the tensors take, and as it is by default, when
it keeps freed blocks.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from loraft.config.resolve import resolve
from loraft.config.schema import Config, ModelConfig
from loraft.delivery.memory_plan import Planned
from loraft.engine.collator import TrainingRow
from loraft.models.adapter import add_adapter
from loraft.models.backbone import load_backbone, load_tokenizer
from loraft.models.device import DTYPE_NAMES, pick_device, pick_dtype
from loraft.runs.environment import environment
from loraft.runs.records import as_json
from loraft.training.dataset import TrainingData
from loraft.training.memory import Peak, _give_freed_memory_back
from loraft.training.trainer import LabelTrainer

HERE = Path(__file__).parent
OUT, PAGE = HERE / "results" / "memory.json", HERE.parent / "docs" / "memory.md"
BEGIN, END = "<!-- made by benchmarks/memory.py -->", "<!-- end -->"
MIB = 2**20
PROMPT, ANSWER = 40, 3  # tokens that all rows share, and those of an answer
BACKBONES = {
    "loraft-vi-tiny": None,
    # Source: config.json of HuggingFaceTB/SmolLM2-135M
    "SmolLM2-135M shape": LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True,
    ),
    "toy": LlamaConfig(
        vocab_size=8192, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True,
    ),
}  # fmt: skip
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


@dataclass(frozen=True)
class Setting:
    """One training: its backbone, method, batch and length."""

    backbone: str
    quant: str
    batch: int
    length: int
    checkpointing: bool = False
    shared_prefix: str = "auto"

    def config(self, folder: Path, device: str) -> Config:
        """The config; backbones that do not ship with loraft lie in a folder."""
        name = self.backbone if BACKBONES[self.backbone] is None else str(folder / self.backbone.replace(" ", "-"))
        return resolve(
            flags={"model.name": name, "quant.method": self.quant},
            overrides=[
                f"model.device={device}", f"train.per_device_train_batch_size={self.batch}", "train.max_steps=3",
                "train.eval_steps=1000", f"train.gradient_checkpointing={str(self.checkpointing).lower()}",
                f"train.shared_prefix={self.shared_prefix}",
            ],
        )  # fmt: skip

    def rows(self) -> list[TrainingRow]:
        """Rows of one length that share their prompt."""
        own = self.length - PROMPT
        return [TrainingRow([5] * PROMPT + [6 + i % 50] * own, self.length - ANSWER, 0, 1.0) for i in range(self.batch)]


TINY, SMOL = "loraft-vi-tiny", "SmolLM2-135M shape"
SETTINGS = [
    Setting(TINY, "none", 1, 1024),
    Setting(TINY, "none", 16, 128),
    Setting(TINY, "none", 32, 64),
    Setting(TINY, "none", 16, 256),
    Setting(TINY, "none", 16, 256, checkpointing=True),
    Setting(TINY, "none", 8, 256, shared_prefix="off"),
    Setting(TINY, "nf4", 16, 256),
    Setting(TINY, "nf4", 32, 64),
    Setting(SMOL, "none", 1, 256),
    Setting(SMOL, "none", 4, 128),
    Setting(SMOL, "none", 4, 128, checkpointing=True),
    Setting(SMOL, "nf4", 2, 64),
]


def predicted(setting: Setting, folder: Path, device: str) -> dict[str, Any]:
    """Memory by `loraft plan`'s count, in MiB, and the dtype of the weights."""
    config = setting.config(folder, device)
    where = pick_device(device)
    dtype = pick_dtype(config.model, config.quant, where)
    memory = Planned(config, "qlora" if setting.quant == "nf4" else "lora", dtype, where).memory(setting.rows())
    parts = {key: round(value / MIB, 1) for key, value in asdict(memory).items()}
    return {"dtype": DTYPE_NAMES[dtype], "parts_mib": parts, "predicted_mib": round(memory.peak / MIB, 1)}


def measured(setting: Setting, folder: Path, device: str) -> dict[str, Any]:
    """The peak of three steps above the idle process, in MiB; in a fresh process."""
    trained(Setting("toy", setting.quant, 2, 64), folder, device)
    _give_freed_memory_back()
    idle = 0.0 if device == "cuda" else psutil.Process().memory_info().rss / MIB
    peak, method = trained(setting, folder, device)
    return {"measured_mib": round(peak - idle, 1), "method": method}


def trained(setting: Setting, folder: Path, device: str) -> tuple[float, str]:
    """Trains three steps; returns the peak of the process or the card in MiB, and how batches went through."""
    config = setting.config(folder, device)
    model = add_adapter(load_backbone(config.model, config.quant), config.lora, seed=1)
    gc.collect()
    data = TrainingData(setting.rows(), load_tokenizer(ModelConfig()), lambda current: {"macro_f1": 0.5})
    with tempfile.TemporaryDirectory() as runs:
        peak = Peak(torch.device(device))
        trainer = LabelTrainer.build(model, data, config.train, output_dir=runs, seed=1)
        trainer.train()
        mib = peak.mib()
    if mib is None or trainer.args.per_device_train_batch_size != setting.batch:
        raise SystemExit("memory: the peak of this process is not known here, or the batch was divided")
    return mib, trainer.method.value


def in_a_process(setting: Setting, folder: Path, device: str, **environ: str) -> dict[str, Any]:
    """What `measured` returns in a fresh process with these variables of the environment."""
    command = [sys.executable, __file__, "--one", json.dumps(asdict(setting)), "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--device", device], capture_output=True, text=True, check=True, env=os.environ | environ
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(record: dict[str, Any]) -> str:
    """The settings as a table in Markdown."""
    lines = [
        "| backbone, weights | batch x length | | predicted, MiB | measured | off by | kept by glibc too |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in record["settings"]:
        how = "QLoRA" if one["quant"] == "nf4" else "LoRA"
        how += ", activations twice" if one["checkpointing"] else ""
        how += ", padded rows" if one["shared_prefix"] == "off" else ""
        kept = f"{one['default_heap_mib']:.0f}" if "default_heap_mib" in one else ""
        lines.append(
            f"| {one['backbone']}, {one['dtype']} | {one['batch']} x {one['length']} | {how} |"
            f" {one['predicted_mib']:.0f} | {one['measured_mib']:.0f} | {one['off']:+.1%} | {kept} |"
        )
    worst = max(abs(one["off"]) for one in record["settings"])
    return "\n".join([*lines, "", f"Largest difference: {worst:.1%} of the measured peak."])


def main() -> None:
    """Measures every setting and writes the record and the table, after each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measured(Setting(**json.loads(asked.one)), asked.folder, asked.device)))
        return
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for backbone, config in BACKBONES.items():
            if config is not None:
                torch.manual_seed(0)
                AutoModelForCausalLM.from_config(config).save_pretrained(folder / backbone.replace(" ", "-"))
        for setting in SETTINGS:
            one = {**asdict(setting), **predicted(setting, folder, asked.device)}
            if asked.device == "cpu":
                one |= in_a_process(setting, folder, "cpu", **GIVEN_BACK)
                one["default_heap_mib"] = in_a_process(setting, folder, "cpu")["measured_mib"]
            else:
                one |= in_a_process(setting, folder, asked.device)
            one["off"] = round(one["predicted_mib"] / one["measured_mib"] - 1, 4)
            found.append(one)
            print(json.dumps(one), file=sys.stderr, flush=True)
            made_in = {key: value for key, value in as_json(environment()).items() if key != "command"}
            record = {"environment": made_in, "device": asked.device, "settings": found}
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            if asked.out == OUT and PAGE.exists():
                head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
                text = f"{head}{BEGIN}\n{table(record)}\n{END}{rest.split(END)[1]}"
                PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
