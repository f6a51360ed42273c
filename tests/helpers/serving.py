"""What stands in for a loaded run behind the server, tiny runs, and a Modelfile's grammar."""

import gc
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from helpers.tiny import backbone, tokenizer
from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.delivery import serving
from loraft.delivery.server import Service
from loraft.evaluation.predict import Prediction
from loraft.models import manifest
from loraft.models.adapter import add_adapter
from loraft.models.calibration import NONE, Calibration
from loraft.models.load import build
from loraft.runs.atomic_files import write_text
from loraft.runs.run import Run

LABELS = ("tiêu cực", "tích cực")


@dataclass
class Lengths:
    """A double of `Classifier`: the probability of the second label is 1 / (1 + characters)."""

    labels: tuple[str, ...] = LABELS
    calibration: Calibration = NONE
    go: threading.Event = field(default_factory=threading.Event)  # computes nothing until it is set
    entered: threading.Event = field(default_factory=threading.Event)
    batches: list[list[str]] = field(default_factory=list)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        self.batches.append(list(texts))
        self.entered.set()
        assert self.go.wait(10)
        if any("lỗi" in text for text in texts):
            raise ValueError(f"bí mật: {texts}")
        shares = [1 / (1 + len(text)) for text in texts]
        return [
            Prediction(i, text, self.labels[share > 0.5], dict(zip(self.labels, (1 - share, share), strict=True)))
            for i, (text, share) in enumerate(zip(texts, shares, strict=True), 1)
        ]

    def prompt_tokens(self, texts: Sequence[str]) -> list[int]:
        return [100 + len(text) for text in texts]


@contextmanager
def listening(service: Service) -> Iterator[tuple[int, Any]]:
    """Serves in a thread, where no signal comes; the port, and uvicorn's server, whose `handle_exit` stands for one."""
    import uvicorn

    made, ready = [], threading.Event()
    with (
        patch.object(uvicorn, "Server", lambda config, real=uvicorn.Server: made.append(real(config)) or made[0]),
        patch.object(serving, "LATE_SECONDS", 0),
        serving.listening_socket("127.0.0.1", 0) as bound,
        ThreadPoolExecutor(1) as pool,
    ):
        port = bound.getsockname()[1]
        ended = pool.submit(serving.serve, service, bound, ready=ready.set)
        assert ready.wait(10)
        try:
            yield port, made[0]
        finally:
            if not service.stopping:
                made[0].handle_exit(signal.SIGTERM, None)
            ended.result(30)
            gc.unfreeze()


def open_lengths() -> Lengths:
    """One that computes at once."""
    model = Lengths()
    model.go.set()
    return model


INSTRUCTIONS = (
    "from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message",
    "requires",
)  # fmt: skip


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """Instructions and their arguments, by the states of ollama's parser/parser.go: a name, a space, a value that ends
    with its line unless it is in open quotes.

    Raises:
        ValueError: what ollama refuses.
    """
    found, lines = [], text.splitlines(keepends=True)
    while lines:
        line = lines.pop(0)
        if not line.strip() or line.startswith("#"):
            continue
        name, _, value = line.partition(" ")
        if name.lower() not in INSTRUCTIONS:
            raise ValueError(f"no instruction: {name}")
        key = name.lower()
        if key == "parameter":
            key, _, value = value.partition(" ")
        while _unquoted(value.strip()) is None:
            if not lines:
                raise ValueError(f"open quotes: {value}")
            value += lines.pop(0)
        found.append((key, str(_unquoted(value.strip()))))
    if "from" not in dict(found):
        raise ValueError("no FROM line")
    return found


def _unquoted(value: str) -> str | None:
    for quotes in ('"""', '"'):
        if value.startswith(quotes):
            closed = len(value) >= 2 * len(quotes) and value.endswith(quotes)
            return value[len(quotes) : -len(quotes)] if closed else None
    return value


def tiny_runs(folder: Path, *names: str) -> list[Run]:
    """Finished runs that never trained, over one tiny backbone in fp32, each with a random adapter of its own."""
    backbone().save_pretrained(folder / "backbone")
    tokenizer().save_pretrained(folder / "backbone")
    config = resolve(overrides=[f"model.name={folder / 'backbone'}", "model.dtype=fp32", "lora.r=2"])
    made = []
    for seed, name in enumerate(names):
        run = Run.create(folder, name)
        encoder, base = build(config)
        identity = manifest.identify(config, base, run.path)
        model = add_adapter(base, config.lora, seed=seed)
        torch.manual_seed(seed)
        for key, weight in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.2)
        model.save_pretrained(str(run.adapter))
        about = manifest.describe(config, encoder, identity, manifest.DataIdentity("feedback", {}), {})
        manifest.write(run.adapter, about)
        write_text(run.config_path, dump_config(config))
        run.finish({})
        made.append(run)
    return made
