"""Finished runs that never trained: a tiny random backbone, and an adapter with random weights."""

import shutil
from dataclasses import replace
from pathlib import Path

from helpers.tiny import LABELS, SENTENCES, awaken, backbone, tokenizer
from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.data.dataset import Split, load_data
from loraft.data.examples import Examples
from loraft.models import manifest
from loraft.models.adapter import add_adapter
from loraft.models.calibration import Calibration
from loraft.models.load import build
from loraft.runs import validation_scores
from loraft.runs.atomic_files import to_json, write_text
from loraft.runs.bundle import config_of
from loraft.runs.run import Run
from loraft.runs.validation_scores import ValidationScores

NAMES = ("negative", "neutral", "positive")
ORDER = (0, 2, 4, 1, 3, 5)  # of validation rows: those that chose, and those set aside


def finished_run(folder: Path, *overrides: str, model: str = "llama") -> Run:
    """Makes a run in `folder`: of an architecture of `tiny.CONFIGS`, with rows for validation and test.

    Args:
        folder: that is to hold backbone, data and run.
        overrides: as in `resolve`.
        model: the architecture; or an absolute path of a backbone.
    """
    name = Path(model)
    if not name.is_absolute():
        name = folder / "backbone"
        backbone(model).save_pretrained(name)
        tokenizer().save_pretrained(name)
    rows = [{"sentence": text, "sentiment": NAMES[k]} for text, k in zip(SENTENCES, LABELS, strict=True)]
    for split in ("train", "validation", "test"):
        write_text(folder / "data" / f"{split}.jsonl", "".join(to_json(row, indent=None) + "\n" for row in rows))
    given = [f"model.name={name}", f"data.source={folder / 'data'}", "model.dtype=fp32", "lora.r=2"]
    config = resolve(overrides=[*given, *overrides])
    made = Run.create(folder, "của em")
    write_text(made.config_path, dump_config(config))
    encoder, base = build(config)
    identity = manifest.identify(config, base, made.path)
    adapted = add_adapter(base, config.lora, seed=1)
    awaken(adapted)
    adapted.save_pretrained(str(made.adapter))
    manifest.write(
        made.adapter, manifest.describe(config, encoder, identity, manifest.DataIdentity("feedback", {}), {})
    )
    made.finish({"labels": list(NAMES)})
    return made


def calibrated_copy(run: Run, folder: Path, one: Calibration) -> Run:
    """A copy of a run whose manifest has this calibration and the fingerprints of its rows, with validation scores."""
    made = Run(shutil.copytree(run.path, folder))
    data = load_data(config_of(made), "validation")
    parts = [Split(name, Examples(data.examples[n] for n in half), "")
             for name, half in (("validation", ORDER[:3]), ("calibration", ORDER[3:]))]  # fmt: skip
    content = manifest.read(made.adapter)
    prints = {part.name: part.fingerprint for part in parts}
    rows, labels = data.examples.rows.tolist(), data.labels.tolist()
    scores = ValidationScores(content.labels, tuple(rows[n] for n in ORDER), tuple(labels[n] for n in ORDER),
                              ((0.0,) * 3,) * 6, (False,) * 3 + (True,) * 3)  # fmt: skip
    validation_scores.write(made.adapter, scores)
    manifest.write(made.adapter, replace(content, calibration=one, data=replace(content.data, fingerprints=prints)))
    return made
