"""The manifest of an adapter, `loraft.json`: which backbone, prompt and labels it was trained with.

It is checked before prediction, since an adapter gives wrong answers with another backbone or prompt.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from loraft.config.names import relative
from loraft.config.schema import Config, ModelConfig
from loraft.data.dataset import Split
from loraft.errors import RunError, listed
from loraft.models.backbone import fingerprint
from loraft.models.calibration import NONE, Calibration
from loraft.models.device import DTYPE_NAMES
from loraft.models.encoder import Encoder
from loraft.runs.environment import Environment, custom_code, package_versions
from loraft.runs.from_hub import ADAPTER_FILES
from loraft.runs.hashes import hashes_of, sha256_of
from loraft.runs.peft_folder import AGAIN, WEIGHTS_FILE
from loraft.runs.records import read_record, write_record
from loraft.runs.run import MANIFEST_FILE

EXTREME = 1e6  # beyond which no temperature, its inverse or bias is taken: scores would overflow
VERSIONED = ("loraft", "torch", "transformers", "peft", "trl", "bitsandbytes")


@dataclass(frozen=True)
class BackboneIdentity:
    """The backbone that an adapter belongs to.

    Attributes:
        name, revision: as in the config; a local one's name is its absolute path.
        fingerprint: `backbone.fingerprint` of it without the adapter.
        quant: the config's `quant` section.
        dtype: of its weights that are not quantised; None in files of versions that did not write it.
        relative_path: of a local backbone, from the run's folder, for the case that both were moved together.
        custom_code: Python code that came with it and ran; see `environment.custom_code`.
    """

    name: str
    revision: str | None
    fingerprint: str
    quant: dict[str, Any]
    dtype: str | None = None
    relative_path: str | None = None
    custom_code: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DataIdentity:
    """The data that an adapter was trained on.

    Attributes:
        source: as in the config.
        fingerprints: `Split.fingerprint` of each split by its name.
        pool: fingerprint of the rows that `data.split` drew the splits from; None without it.
        train_labels: number of training rows of each label; empty in files of earlier versions.
    """

    source: str
    fingerprints: dict[str, str]
    pool: str | None = None
    train_labels: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The content of `loraft.json`.

    Attributes:
        labels, label_words: names of the K labels and their words in answers, in id order.
        chat_template_sha256: hash of the chat template.
        date_string: the date in the prompt.
        prompt_sha256: hash of all text around the sentence, and of the answers.
        backbone, data: the backbone and the data of the training.
        prompt: the config's `prompt` section.
        scores: accuracy and macro_f1 on the test split, as fractions.
        thresholds: of each label, chosen on validation; None with one label a row.
        versions: of the libraries at training; None where one was not installed.
        files: SHA-256 of the adapter's files, or of all files of merged weights, see `peft_folder.refuse_changed`; None
            in files of earlier versions.
        config: the whole config of the training; None in files of earlier versions.
        calibration: of its probabilities; None in files of earlier versions.
        merged: how the adapter was merged into the backbone, where the weights beside this file are merged ones; the
            backbone is then that of the merged weights.
        started_from: the adapter that the training went on from: its run and the hash of its weights.
    """

    labels: tuple[str, ...]
    label_words: tuple[str, ...]
    chat_template_sha256: str
    date_string: str
    prompt_sha256: str
    backbone: BackboneIdentity
    prompt: dict[str, Any]
    data: DataIdentity
    scores: dict[str, float]
    versions: dict[str, str | None]
    thresholds: tuple[float, ...] | None = None
    files: dict[str, str] | None = None
    config: dict[str, Any] | None = None
    merged: dict[str, Any] | None = None
    calibration: Calibration | None = None
    started_from: dict[str, str] | None = None


def identify(config: Config, base: PreTrainedModel, run: Path) -> BackboneIdentity:
    """Returns the identity of a backbone without adapter, for the adapter of a run in the folder `run`."""
    model, local = config.model, os.path.isabs(config.model.name)
    return BackboneIdentity(
        model.name,
        model.revision,
        fingerprint(base),
        config.quant.model_dump(),
        DTYPE_NAMES.get(base.dtype),
        relative(model.name, run) if local else None,
        custom_code(model),
    )


def describe(
    config: Config,
    encoder: Encoder,
    backbone: BackboneIdentity,
    data: DataIdentity,
    scores: dict[str, float],
    thresholds: tuple[float, ...] | None = None,
    made_in: Environment | None = None,
) -> Manifest:
    """Returns the manifest of an adapter.

    Args:
        config: of the training.
        encoder: of the training prompts.
        backbone: that the adapter was trained on.
        data: of the training.
        scores: accuracy and macro_f1 on the test split, as fractions.
        thresholds: of each label, where a row has several.
        made_in: as it was when the training began; by default the present one.
    """
    packages = package_versions(VERSIONED) if made_in is None else made_in.packages
    return Manifest(
        labels=encoder.task.labels,
        label_words=encoder.task.label_words,
        chat_template_sha256=encoder.template_hash,
        date_string=encoder.date_string,
        prompt_sha256=encoder.prompt_hash,
        backbone=backbone,
        prompt=config.prompt.model_dump(),
        data=data,
        scores=scores,
        versions={name: packages[name] for name in VERSIONED},
        thresholds=thresholds,
        config=config.model_dump(),
    )


def write(adapter: Path, content: Manifest) -> None:
    """Writes the manifest of an adapter, or of merged weights, beside its files, with their hashes."""
    names: Iterable[str] = [name for name in ADAPTER_FILES if (adapter / name).exists() and name != MANIFEST_FILE]
    if content.merged is not None:
        found = (path for path in adapter.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
        names = [path.relative_to(adapter).as_posix() for path in found]
    files = hashes_of(adapter, names)
    write_record(adapter / MANIFEST_FILE, replace(content, files=files))


def read(adapter: Path) -> Manifest:
    """Returns the manifest in an adapter's folder.

    Raises:
        RunError: it is missing or damaged, or was written by a later version.
    """
    path = adapter / MANIFEST_FILE
    if not adapter.exists():
        raise RunError(f"{adapter}: the run's adapter is missing; {AGAIN}")
    if not path.exists():
        raise RunError(f"{path}: is missing, so the adapter's labels and prompt are unknown; train with loraft train")
    return read_record(path, Manifest, AGAIN)


def adapter_hash(folder: Path, content: Manifest) -> str | None:
    """Returns the SHA-256 of an adapter's weights, or of those that merged weights were made of; None if not known."""
    if content.merged is not None:
        return content.merged.get("adapter_sha256")
    return (content.files or {}).get(WEIGHTS_FILE) or sha256_of(folder / WEIGHTS_FILE)


def thresholds(adapter: Path | None, num_labels: int, calibration: Calibration = NONE) -> tuple[float, ...]:
    """Returns the threshold of each label that was chosen for an adapter; 0.5 without one, or if it has no manifest.

    Those of the file are for probabilities before calibration; with a calibration they are as its own are.
    """
    found = read(adapter).thresholds if adapter is not None and (adapter / MANIFEST_FILE).exists() else None
    return tuple(calibration.of_yes(np.array(found)).tolist()) if found else (0.5,) * num_labels


def calibration(adapter: Path | None, config: Config) -> Calibration:
    """Returns the calibration of an adapter's probabilities; `NONE` without one, and where the config wants none.

    Raises:
        RunError: the manifest is damaged.
    """
    if adapter is None or not config.eval.calibrate or not (adapter / MANIFEST_FILE).exists():
        return NONE
    found = read(adapter)
    one = found.calibration or NONE
    several = config.prompt.kind == "multilabel"  # whose answers, yes or no, have no biases
    if one.bias is not None and (several or len(one.bias) != len(found.labels)):
        which = ", of which a row may have several" if several else ""
        raise RunError(
            f"{adapter / MANIFEST_FILE}: {len(one.bias)} biases for {len(found.labels)} labels{which}; {AGAIN}"
        )
    numbers = (one.temperature, *(one.bias or ()))
    if max(1 / one.temperature, *map(abs, numbers)) > EXTREME:
        got = listed(f"{number:g}" for number in numbers)
        raise RunError(f"{adapter / MANIFEST_FILE}: no fit gives such numbers (got {got}); {AGAIN}")
    return one


def check_code(manifest: Manifest, where: Path, model: ModelConfig) -> None:
    """Raises an error if the Python code that comes with the backbone is not that of the training, before it runs.

    Raises:
        RunError: it may run, and a file of it differs.
    """
    then, now = manifest.backbone.custom_code, custom_code(model)
    differing = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    if now and differing:
        raise RunError(
            f"{where}: the Python code of {model.name} is not that of the training (got other {listed(differing)});"
            " put it back, or train again"
        )


def check(manifest: Manifest, where: Path, encoder: Encoder, base: PreTrainedModel | None) -> None:
    """Raises an error if the adapter was trained with another backbone, quantisation, prompt, date or label set.

    Args:
        manifest: of the adapter.
        where: the adapter's folder, for the message.
        encoder: of the present prompts.
        base: the present backbone, without adapter; None where its weights were checked already.

    Raises:
        RunError: something differs; the message has one line for each difference.
    """
    compared = {
        "labels": (manifest.labels, encoder.task.labels),
        "words of the labels": (manifest.label_words, encoder.task.label_words),
        "chat template": (manifest.chat_template_sha256, encoder.template_hash),
        "date in the prompt": (manifest.date_string, encoder.date_string),
        "prompt (system message, template, answer prefix)": (manifest.prompt_sha256, encoder.prompt_hash),
        "end of turn in the scores": (
            str(manifest.prompt.get("score_end_of_turn", False)),  # bundles of earlier versions lack the key
            str(encoder.task.score_end_of_turn),
        ),
    }
    if base is not None:
        then = manifest.backbone.fingerprint
        compared["weights of the backbone or their quantisation"] = (then, fingerprint(base))
    differences = [
        f"  {what}: {_shown(then)} then, {_shown(now)} now" for what, (then, now) in compared.items() if then != now
    ]
    if differences:
        raise RunError(
            f"{where}: the adapter was trained with another backbone or prompt:\n" + "\n".join(differences) + "\n"
            f"use the backbone {manifest.backbone.name} (with --adapter: --model) and the prompt of the training, or"
            " train again"
        )


def check_drawn(manifest: Manifest, trained: Config, config: Config, split: Split) -> None:
    """Raises an error if the rows of a split would be drawn otherwise than at the training.

    Rows of the training could then be among those that the adapter is measured on. Another source is no mistake.

    Args:
        manifest: of the adapter.
        trained: config of the training.
        config: the present one.
        split: rows that the adapter is to be measured on.

    Raises:
        RunError: shares, seed or the rows that they are drawn from differ.
    """
    then, now = trained.data, config.data
    if manifest.data.pool is None or split.pool is None or now.source != then.source:
        return
    draws = {
        "data.split": (str(then.split), str(now.split)),
        "data.fold": (str(then.fold), str(now.fold)),
        "data.split_seed": (str(then.split_seed), str(now.split_seed)),
        "fingerprint of all rows": (manifest.data.pool[:16], split.pool[:16]),
    }
    changed = [f"{key} {old} then, {new} now" for key, (old, new) in draws.items() if old != new]
    if changed:
        raise RunError(
            f"{split.source}: the run drew its splits otherwise (got {'; '.join(changed)}), so these rows may be"
            " training rows; put the file and the keys back, or name a file of other rows with --split FILE"
        )


def _shown(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)
