"""Random rows and their predictions, and a finished run of a tiny backbone, for several test files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from helpers.tiny import LABELS, SENTENCES, awaken, backbone, tokenizer

from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.models import manifest
from loraft.models.adapter import add_adapter
from loraft.models.load import build
from loraft.runs.atomic_files import write_text
from loraft.runs.run import Run

Arrays = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


@pytest.fixture(scope="session")
def random_rows() -> Callable[..., Arrays]:
    """Makes references of 3 labels, predictions of which about `accuracy` are right, and unrelated probabilities."""

    def make(n: int, seed: int = 0, accuracy: float = 0.8) -> Arrays:
        rng = np.random.default_rng(seed)
        references = rng.integers(0, 3, n)
        predictions = np.where(rng.random(n) < accuracy, references, rng.integers(-1, 3, n))
        return references, predictions, rng.dirichlet([1.0, 1.0, 1.0], n)

    return make


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run that never trained: a tiny backbone, a random adapter, and a test split of `SENTENCES`."""
    folder = tmp_path_factory.mktemp("runs")
    backbone().save_pretrained(folder / "backbone")
    tokenizer().save_pretrained(folder / "backbone")
    names = ("negative", "neutral", "positive")
    rows = [{"sentence": text, "sentiment": names[k]} for text, k in zip(SENTENCES, LABELS, strict=True)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_text(folder / "data" / "test.jsonl", lines)
    write_text(folder / "data" / "khác.jsonl", lines.partition("\n")[0])
    config = resolve(
        overrides=[f"model.name={folder / 'backbone'}", f"data.source={folder / 'data'}", "lora.r=2",
                   "eval.bootstrap_samples=100"]
    )  # fmt: skip
    made = Run.create(folder, "của em")
    write_text(made.config_path, dump_config(config))
    encoder, base = build(config)
    identity = manifest.identify(config, base, made.path)
    model = add_adapter(base, config.lora, seed=1)
    awaken(model)
    model.save_pretrained(str(made.adapter))
    data = manifest.DataIdentity("feedback", {}, train_labels=dict(zip(encoder.task.labels, (998, 1, 1), strict=True)))
    manifest.write(made.adapter, manifest.describe(config, encoder, identity, data, {}))
    made.finish({})
    return made


@pytest.fixture
def backbone_folder(run: Run) -> Path:
    """The folder of the run's backbone."""
    return run.path.parent / "backbone"
