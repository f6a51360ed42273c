"""Write a run's adapter and backbone as one model, to a folder of its own, and check that it answers as the run does.

The folder holds safetensors, config, tokenizer, chat template and generation config as transformers, vLLM and
llama.cpp's converter read them, and `loraft.json`, by which `eval`, `predict` and `loraft.load` use it like a run.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from rich.table import Table

from loraft.config.schema import Config
from loraft.data.dataset import Split, load_data, warn_of_notes
from loraft.data.examples import Examples
from loraft.delivery.merged_model import Base, merged_and_measured
from loraft.delivery.output_folder import check_folder, open_to_readers, written_aside
from loraft.delivery.pinned_template import pinned_template, with_own_template
from loraft.display import table
from loraft.engine.probabilities import to_probs
from loraft.errors import BackboneError, ConfigError, RunError
from loraft.evaluation import multilabel
from loraft.evaluation.classifier import load
from loraft.models import manifest
from loraft.models.backbone import fingerprint
from loraft.models.calibration import NONE, Calibration
from loraft.models.device import DTYPES, pick_device, pick_dtype
from loraft.models.load import build_encoder
from loraft.runs import validation_scores
from loraft.runs.bundle import config_of
from loraft.runs.environment import custom_code
from loraft.runs.hashes import hashes_of
from loraft.runs.records import as_json, write_record
from loraft.runs.run import MANIFEST_FILE, Bundle, Run
from loraft.runs.validation_scores import VALIDATION_FILE, ValidationScores

LARGEST_FILE = "5GB"  # of weights; a larger model is several files and an index
AGREEMENT = 0.99  # of the labels, by default


@dataclass(frozen=True)
class Weights:
    """Which weights are merged, as a user asks for them.

    Attributes:
        base: for QLoRA, the weights under the adapter: `dequantised` (the default), as it was trained, or `original`.
        dtype: of the merged weights: bf16, fp16 or fp32; that of the training by default.
    """

    base: str | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Comparison:
    """How the labels of N rows and their log-probabilities change.

    Attributes:
        agreement: share of the rows with the same label, or label set.
        changed: number of the others.
        log_prob_change: largest absolute change of a label's score, in nats.
        probability_change: largest absolute change of a label's probability, in [0, 1].
    """

    agreement: float
    changed: int
    log_prob_change: float
    probability_change: float


@dataclass(frozen=True)
class Merge:
    """What `merge` wrote, which is `merged` in its `loraft.json`.

    Attributes:
        backbone, revision: of the run; what the manifest calls its backbone are the merged weights.
        base: the weights under the adapter: dequantised or original; None where they were never quantised.
        dtype: of the merged weights.
        source, split, rows: where the scored rows come from, as they were asked for, and their number.
        compared: the merged weights with the run.
        rounding: as `merged_model.merge` returns it, for each dtype.
        adapter_sha256: of the weights of the run's adapter.
        calibration: of the run, which `loraft.json` keeps; None without one.
        validation_rows: in the `validation_scores.json` of the merged weights, that promises need; 0 for none.
    """

    backbone: str
    revision: str | None
    base: str | None
    dtype: str
    source: str
    split: str
    rows: int
    compared: Comparison
    rounding: dict[str, float]
    adapter_sha256: str | None
    calibration: Calibration | None = None
    validation_rows: int = 0


def merge(
    run: str | Path,
    output: Path,
    *,
    config: Config | None = None,
    weights: Weights | None = None,
    split: str = "validation",
    min_agreement: float = AGREEMENT,
    force: bool = False,
) -> Merge:
    """Writes a finished run's merged weights to a folder, scores rows with both, and returns how they differ.

    Only one model is in memory at a time. Where the labels differ too often nothing is written.

    Args:
        run: its directory, or a bundle's.
        output: the folder; it may be empty, or with `force` an earlier output.
        config: the run's own by default; may change data, device and the dtype that the run is scored in.
        weights: which to merge.
        split: a split's name or a labelled file: the rows to score.
        min_agreement: least share of the rows with the same label.
        force: replace an earlier output.

    Raises:
        ConfigError: an argument is not allowed, or `output` is something else.
        RunError: the run is not finished, or merged already; or the labels agree too seldom.
        BackboneError: backbone or adapter cannot be loaded or merged.
        DataError: the rows cannot be read.
        StorageError: the folder cannot be written.
    """
    opened = Run.open(run)
    opened.read_results()  # refuses one that is not finished
    content, config = manifest.read(opened.adapter), config_of(opened) if config is None else config
    if content.merged is not None:
        raise RunError(f"{opened.path}: is merged already; name a run, or an adapter with its {MANIFEST_FILE}")
    base, dtype = _chosen(config, weights or Weights(), content.backbone.dtype or "fp32")
    check_agreement(min_agreement)
    check_folder(output, exported=False, force=force)
    data = load_data(config, split)
    warn_of_notes([data])
    calibration = manifest.calibration(opened.adapter, config)
    several = config.prompt.kind == "multilabel"
    thresholds = manifest.thresholds(opened.adapter, len(content.labels), calibration) if several else ()
    with written_aside(output) as folder:  # from the beginning, so that a folder that cannot be made costs no time
        own_NK = _scores(opened, config, data.texts)
        rounding, bundle = _write(opened, config, base, dtype, folder), Bundle(folder)
        found_NK = _scores(bundle, _like(config, config_of(bundle)), data.texts)
        compared = compare(own_NK, found_NK, thresholds, calibration)
        if compared.agreement < min_agreement:
            finer = ["--dtype fp32"] if dtype != "fp32" else []
            finer += ["--base dequantised"] if base == "original" else []
            computed = pick_dtype(config.model, config.quant, pick_device(config.model.device))
            finer += ["--set model.dtype=fp32"] if computed != DTYPES["fp32"] else []
            raise RunError(
                f"{output}: is not written, since {compared.changed} of {len(own_NK)} labels are others than the run's"
                f" (got an agreement of {compared.agreement:.4f}); allowed from {min_agreement} (--min-agreement)"
                + (f"; try {' and '.join(finer)}" if finer else "")
            )
        one, source = content.backbone, config.data.source
        adapter = manifest.adapter_hash(opened.adapter, content)
        scores, written = rescored(opened, data, found_NK), manifest.read(folder)
        made = Merge(one.name, one.revision, base, dtype, source, split, len(own_NK), compared, rounding, adapter,
                     content.calibration, 0 if scores is None else len(scores.rows))  # fmt: skip
        if scores is not None:
            validation_scores.write(folder, scores)
            written = replace(written, files=(written.files or {}) | hashes_of(folder, [VALIDATION_FILE]))
        write_record(bundle.results_path, replace(written, merged=as_json(made)))
    return made


def rescored(run: Run, data: Split, log_probs_NK: np.ndarray) -> ValidationScores | None:
    """The validation scores of what was made of a run; None where the rows are not all that the run was validated on.

    Args:
        run: with the file of its own scores.
        data: N rows.
        log_probs_NK: their scores by what was made of the run, before calibration, in nats.
    """
    own, prints = validation_scores.read(run.adapter), manifest.read(run.adapter).data.fingerprints
    place = {row: n for n, row in enumerate(data.examples.rows.tolist())}
    if own is None or not len(own.rows) == len(place) == len(data) or place.keys() != {*own.rows}:
        return None
    order = [place[row] for row in own.rows]
    for name, aside in (("validation", False), ("calibration", True)):
        part = [data.examples[n] for n, one in zip(order, own.set_aside, strict=True) if one == aside]
        if part and Split(name, Examples(part), data.source).fingerprint != prints.get(name):
            return None
    return replace(own, log_probs=tuple(map(tuple, log_probs_NK[order].tolist())))


def compare(
    before_NK: np.ndarray,
    after_NK: np.ndarray,
    thresholds: Sequence[float] = (),
    calibration: Calibration = NONE,
) -> Comparison:
    """Returns how labels change between two scorings of the same rows.

    Args:
        before_NK, after_NK: the labels' scores before calibration, in nats; with several labels a row as
            `multilabel.probabilities` takes.
        thresholds: of each label, where a row may have several, for calibrated probabilities.
        calibration: of both, whose labels and probabilities are compared.
    """
    probs = multilabel.probabilities if thresholds else to_probs
    one_NK, other_NK = (probs(calibration.adjusted(scores)) for scores in (before_NK, after_NK))
    if thresholds:
        same_N = ((one_NK >= thresholds) == (other_NK >= thresholds)).all(axis=1)
    else:
        same_N = one_NK.argmax(axis=1) == other_NK.argmax(axis=1)
    changes = [float(np.abs(one - other).max()) for one, other in ((before_NK, after_NK), (one_NK, other_NK))]
    return Comparison(float(same_N.mean()), int((~same_N).sum()), *changes)


def check_agreement(least: float) -> None:
    """Refuses a least agreement that is no share.

    Raises:
        ConfigError: it is not from 0 to 1.
    """
    if not 0 <= least <= 1:  # NaN, too
        raise ConfigError(f"--min-agreement: not from 0 to 1 (got {least}); give a share of the rows")


def add_comparison(found: Table, rows: int, same: Comparison) -> None:
    """Adds to a table how the answers of so many rows compare with the run's, both calibrated."""
    table.add_row(found, "labels as by the run", f"{rows - same.changed} ({same.agreement:.2%})")
    table.add_row(found, "largest change of a log-probability, nats", f"{same.log_prob_change:.2g}")
    table.add_row(found, "largest change of a probability", f"{same.probability_change:.2g}")


def tables(made: Merge) -> list[Table]:
    """What was compared, and what each dtype would round away, for people."""
    found = table.number_table("merged model", "value")
    table.add_row(found, "weights", f"{made.base or 'as trained'}, {made.dtype}")
    table.add_row(found, f"rows of {made.split}", str(made.rows))
    add_comparison(found, made.rows, made.compared)
    table.add_row(found, "validation rows kept, for promises", f"{made.validation_rows:,}")
    lost = table.number_table("dtype", "of the adapter's update, rounded away")
    for dtype, share in made.rounding.items():
        table.add_row(lost, dtype, f"{share:.2%}")
    return [found, lost]


def notes(calibration: Calibration | None, validation_rows: int) -> list[str]:
    """What to know of a model that loraft and other programs can run, one sentence a line.

    Args:
        calibration: that its `loraft.json` keeps.
        validation_rows: in its `validation_scores.json`.
    """
    told = []
    if calibration is not None and calibration != NONE:
        told.append(f"loraft calibrates its probabilities: {calibration.words}")
        biased = ", and may answer another label, since biases change labels" if calibration.bias else ""
        told.append(f"a server that generates the answer does not{biased}")
    if not validation_rows:
        told.append(
            "no validation scores are kept, which predict --max-error and --sets need: those of the run's own rows"
        )
    return told


def _chosen(config: Config, weights: Weights, trained: str) -> tuple[Base | None, str]:
    """The base and the dtype, checked, the latter else that of the training; no base over unquantised weights.

    Raises:
        ConfigError: one is unknown, or a base makes no difference.
    """
    base, dtype = weights.base, weights.dtype or trained
    for flag, value, allowed in (("--base", base, get_args(Base)), ("--dtype", dtype, tuple(DTYPES))):
        if value is not None and value not in allowed:
            raise ConfigError(f"{flag}: unknown (got {value!r}); allowed: {', '.join(allowed)}")
    if config.quant.method != "none":
        return "original" if base == "original" else "dequantised", dtype
    if base is not None:
        raise ConfigError(f"--base: the run's backbone is not quantised (got {base}); leave it out")
    return None, dtype


def _scores(run: Run, config: Config, texts: Sequence[str]) -> np.ndarray:
    """The labels' scores as a user of the run gets them; the model is gone from memory afterwards."""
    found = load(run.path, config=config).log_probs(texts)
    gc.collect()
    return found


def _like(config: Config, merged: Config) -> Config:
    """The config of the merged weights, computed on the device and in the batches of the run's."""
    own = {"device": config.model.device, "trust_remote_code": config.model.trust_remote_code}
    return merged.model_copy(update={"model": merged.model.model_copy(update=own), "eval": config.eval})


def _write(run: Run, config: Config, base: Base | None, dtype: str, folder: Path) -> dict[str, float]:
    """Writes the merged model with its manifest, and returns the rounding errors as `merged_model.merge` does.

    Raises:
        BackboneError: the tokenizer that was written gives other prompts than that of the run.
    """
    encoder, model, rounding = merged_and_measured(run, config, base or "dequantised", dtype)
    model.save_pretrained(folder, max_shard_size=LARGEST_FILE)
    tokenizer, trained = encoder.tokenizer, config_of(run)
    tokenizer.chat_template, trained = pinned_template(tokenizer, trained.prompt), with_own_template(trained)
    tokenizer.save_pretrained(folder)
    code = custom_code(config.model.model_copy(update={"name": str(folder)}))
    quant = trained.quant.model_copy(update={"method": "none"}).model_dump()
    identity = manifest.BackboneIdentity(".", None, fingerprint(model), quant, dtype, custom_code=code)
    content = replace(
        manifest.read(run.adapter), backbone=identity, prompt=trained.prompt.model_dump(), config=trained.model_dump(),
        merged={},
    )  # fmt: skip
    open_to_readers(folder)
    write_record(folder / MANIFEST_FILE, content)
    again = build_encoder(_like(config, config_of(Bundle(folder))))
    if again.prompt_hash != content.prompt_sha256:
        raise BackboneError(f"{run.path}: its tokenizer gives other prompts once it is saved; use the run as it is")
    manifest.write(folder, replace(content, chat_template_sha256=again.template_hash))
    return rounding
