"""`loraft audit`: labels that are probably wrong, by adapters that did not learn from the rows they judge.

The same command can be run again: it goes on after an interruption, and shows a finished audit again.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loraft.config.kinds import refuse_label_sets
from loraft.config.names import shortened
from loraft.config.resolve import load_config
from loraft.config.schema import Config
from loraft.config.yaml_io import dump_config
from loraft.data.dataset import Split, load_data, warn_of_notes
from loraft.data.splitting import DrawError, drawn_splits, near_duplicate_groups
from loraft.display.progress import shown
from loraft.errors import ConfigError, DataError, RunError
from loraft.evaluation import confident_learning
from loraft.evaluation.baselines import tfidf
from loraft.evaluation.confident_learning import self_confidence
from loraft.runs.atomic_files import write_text
from loraft.runs.environment import keep_environment
from loraft.runs.lock import locked
from loraft.runs.predictions import PredictedRow, read_rows, write_rows
from loraft.runs.resume import OUTPUT_KEYS, STUDY_SECTIONS, check_same_config
from loraft.runs.run import Run
from loraft.runs.storage import reraise
from loraft.runs.study_folders import AuditFolder
from loraft.studies.audit.records import FOLDS, AuditResult, Conflict, SuspectRow

if TYPE_CHECKING:  # imports torch
    from loraft.studies.audit.fold_adapters import FoldAdapters

INVERSE_PENALTY = 5.0  # C of the logistic regression; chosen on test rows of finished runs
TINY = 1e-12  # of probabilities that are multiplied


def audit_folder(config: Config, split: str = "train") -> AuditFolder:
    """The directory of the audit of this config and split; it may not exist yet."""
    parts = ["audit", Path(config.model.label).name, Path(config.data.source).name, Path(config.prompt.task).stem]
    parts += [Path(split).stem] if split != "train" else []
    parts += ["nf4"] if config.quant.method == "nf4" else []
    name = config.name or shortened("-".join([*parts, f"s{config.seed}"]))
    return AuditFolder(Path(config.output.folder) / name)


def audit(
    config: Config, *, split: str = "train", force: bool = False, quiet: bool = False, drop: int = 0
) -> AuditResult:
    """Trains one adapter for each of five folds, and finds the labels that they contradict.

    Args:
        config: as of a training. Its validation and test split are not used.
        split: that is audited: "train", "validation", "test", another name in the source, or a file.
        force: begin anew.
        quiet: show no progress.
        drop: number of rows that a copy shall lack.

    Raises:
        ConfigError: a row has any number of labels, the config's adapters cannot share a backbone, or `drop` leaves
            no row.
        DataError: too few rows of a label for five folds.
        RunError: the folder holds an audit of another config or other rows.
    """
    refuse_label_sets(config, "audit")
    _refuse_own_backbones(config)
    rows = load_data(config, split)
    if drop >= len(rows):
        raise ConfigError(f"--drop-worst: would leave no row (got {drop} of {len(rows)} rows); drop fewer")
    fold_N = folds_of(config, rows)
    warn_of_notes([rows])
    folder = audit_folder(config, split)
    with locked(folder.path, force=force), shown(quiet=quiet):
        folder.check(force=force, resume=False)
        if not force and folder.begun:
            _check_begun(folder, config, rows)
        if folder.finished and not force:
            return AuditResult.of(folder)
        from loraft.models.load import build
        from loraft.studies.audit.fold_adapters import FoldAdapters

        encoder, base = build(config)  # what cannot be loaded is told before anything in the folder changes
        folder = AuditFolder.create(folder.path.parent, folder.name, force=force)
        try:
            write_text(folder.config_path, dump_config(config))
            write_text(folder.rows_path, _written(rows))
            keep_environment(folder.environment_path, config, anew=force)
            return _judged(FoldAdapters(config, rows, np.asarray(fold_N), base, encoder), folder)
        except Exception as error:
            if not any(folder.path.glob("folds-*/joint.json")):  # nothing is trained: earlier work comes back
                folder.discard()
            reraise(error, folder)


def _judged(adapters: "FoldAdapters", folder: AuditFolder) -> AuditResult:
    """Trains the adapters that are not trained yet, and writes the result."""
    from loraft.engine.probabilities import to_probs

    config, rows, labels = adapters.config, adapters.split, adapters.encoder.task.labels
    log_probs_NK, seconds = adapters.scores(folder)
    probs_NK = combined(to_probs(log_probs_NK), linear_probabilities(rows, adapters.fold_N, len(labels)))
    write_rows(
        Run(folder.path),
        [
            PredictedRow(
                one.row, one.text, labels[label], labels[int(p.argmax())], dict(zip(labels, p.tolist(), strict=True))
            )
            for one, label, p in zip(rows.examples, rows.labels.tolist(), probs_NK, strict=True)
        ],
        texts=config.output.texts,
    )
    found = found_in(config, rows, probs_NK, labels)
    result = AuditResult(
        path=str(folder.path), backbone=config.model.label, data=config.data.source, task=config.prompt.task,
        labels=labels, split=rows.name, source=rows.source, rows=len(rows), fingerprint=fingerprint(rows), folds=FOLDS,
        seconds=round(seconds, 1), **found,
    )  # fmt: skip
    folder.finish(result)
    for one in folder.path.glob("folds-*"):  # weights and checkpoints
        shutil.rmtree(one)
    return result


def linear_probabilities(rows: Split, fold_N: np.ndarray, num_labels: int) -> np.ndarray:
    """Out-of-fold probabilities, (N, K), of logistic regression on TF-IDF of words and word pairs, same folds."""
    probs_NK, texts = np.zeros((len(rows), num_labels)), np.array(rows.texts, dtype=object)
    for fold in range(FOLDS):
        own = fold_N == fold
        classifier = linear_model(int((~own).sum())).fit(texts[~own], rows.labels[~own])
        probs_NK[np.ix_(own, classifier.classes_)] = classifier.predict_proba(texts[own])
    return probs_NK


def linear_model(rows: int) -> Any:
    """An unfitted logistic regression on TF-IDF of words and word pairs, for that number of training rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(tfidf(rows), LogisticRegression(C=INVERSE_PENALTY, max_iter=300))


def combined(one_NK: np.ndarray, other_NK: np.ndarray) -> np.ndarray:
    """The geometric mean of two classifiers' probabilities, normalised, (N, K).

    A wrong label contradicts both; a hard sentence is mostly hard for one of them. docs/audit.md has what it gains.
    """
    mean_NK = np.sqrt(np.maximum(one_NK, TINY) * np.maximum(other_NK, TINY))
    return np.asarray(mean_NK / mean_NK.sum(axis=1, keepdims=True))


def found_in(config: Config, rows: Split, probs_NK: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """The fields of `AuditResult` that follow from the out-of-fold probabilities."""
    labels_N, texts = rows.labels, rows.texts if config.output.texts else [""] * len(rows)
    quality_N, best_N = self_confidence(labels_N, probs_NK), probs_NK.argmax(axis=1)
    suspects = np.flatnonzero(confident_learning.flagged(labels_N, probs_NK))
    groups = near_duplicate_groups(tuple(rows.texts), rows.source)
    group_of = {i: group for group in groups for i in group if len(group) > 1}
    numbers = rows.examples.rows.tolist()

    def suspect(i: int) -> SuspectRow:
        alike = Counter(labels[labels_N[j]] for j in group_of.get(i, ()) if j != i)
        given, best = int(labels_N[i]), int(best_N[i])
        probs = float(probs_NK[i, given]), float(probs_NK[i, best])
        return SuspectRow(
            numbers[i], texts[i], labels[given], labels[best], float(quality_N[i]), *probs, dict(alike.most_common())
        )

    conflicts, duplicates = [], 0
    for group in groups:
        by_label: dict[str, list[int]] = {}
        for i in group:
            by_label.setdefault(labels[labels_N[i]], []).append(numbers[i])
        duplicates += sum(len(same) - 1 for same in by_label.values())
        if len(by_label) > 1:
            conflicts.append(Conflict(texts[group[0]], {name: tuple(same) for name, same in by_label.items()}))
    return {
        "agreement": float((best_N == labels_N).mean()),
        "suspects": tuple(suspect(int(i)) for i in suspects[np.argsort(quality_N[suspects], kind="stable")]),
        "conflicts": tuple(sorted(conflicts, key=lambda one: -sum(map(len, one.rows.values())))),
        "duplicates": duplicates,
    }


def folds_of(config: Config, rows: Split) -> list[int]:
    """The number of the fold of each row, from 0; near-duplicates are in one fold.

    Raises:
        DataError: a label has too few rows.
    """
    labels = config.prompt.labels or []
    try:
        return drawn_splits(rows.examples, [1 / FOLDS] * FOLDS, config.data.split_seed, labels, rows.source)
    except DrawError as error:
        before, bracket, _ = str(error).partition("); ")
        raise DataError(
            f"{before}{bracket.strip('; ')}; an audit draws {FOLDS} folds with rows of each label in each: add rows"
            " that differ, or leave the label out"
        ) from None


def worst_rows(folder: AuditFolder, count: int) -> list[int]:
    """The numbers of the rows with the most suspect labels of a finished audit, by their quality."""
    rows = read_rows(Run(folder.path))
    return [row.row for row in sorted(rows, key=lambda row: (row.probs or {})[str(row.label)])[:count]]


def fingerprint(rows: Split) -> str:
    """SHA-256 over texts, labels and row numbers, by which a cleaned copy leaves rows out."""
    return hashlib.sha256(f"{rows.fingerprint} {rows.examples.rows.tolist()}".encode()).hexdigest()


def _written(rows: Split) -> str:
    return f"{fingerprint(rows)}  {rows.name}\n"  # as sha256sum writes it


def _check_begun(folder: AuditFolder, config: Config, rows: Split) -> None:
    """Refuses to go on with, or to show, an audit of another config or of other rows."""
    hint = "--force begins anew, --set name=NAME keeps both"
    check_same_config(folder.config_path, config, free=(*OUTPUT_KEYS, *STUDY_SECTIONS), hint=hint)
    if folder.finished and load_config(folder.config_path).output.texts and not config.output.texts:
        raise RunError(
            f"{folder.path}: holds sentences, which this audit shall not (got output.texts=false); loraft runs remove"
            " deletes it, --set name=NAME audits again beside it"
        )
    if folder.rows_path.exists() and folder.rows_path.read_text(encoding="utf-8") != _written(rows):
        raise RunError(f"{folder.path}: the rows of {rows.source} changed since this audit was begun; {hint}")


def _refuse_own_backbones(config: Config) -> None:
    from loraft.studies.audit.fold_adapters import audit_training
    from loraft.training.joint_adapters import why_not_joint

    reason = why_not_joint(config.model_copy(update={"train": audit_training(config.train)}))
    if reason is not None:
        raise ConfigError(
            f"audit: {FOLDS} plain LoRA adapters share one backbone, which these settings do not allow (got {reason});"
            " change the settings in section lora"
        )
