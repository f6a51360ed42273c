"""Plants wrong labels into a data set, audits it, and says how many of them stand among the most suspect rows.

    python benchmarks/audit.py [DATA] [--seed 0] [--share 0.05] [--set KEY=VALUE ...] [--model BACKBONE] [--alone]
    python benchmarks/audit.py --run RUN

DATA is a bundled name or a folder (`feedback`). A temporary copy of its train split gets another label, drawn at
random, in that share of the rows. Precision and recall are those of as many most suspect rows as labels were planted,
so that they are equal; wrong labels that the data has itself count as mistakes of the audit. `--alone` also trains one
adapter as `loraft train` does on the clean data, without the scores before and after, and divides the times. `--run`
trains nothing: it plants labels in the test rows of a finished run, 200 times, and compares rankings. JSON on stdout.
"""

import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from loraft.config.resolve import load_config, resolve
from loraft.config.schema import Config
from loraft.data.dataset import load_data
from loraft.evaluation.confident_learning import self_confidence, thresholds
from loraft.runs.environment import environment
from loraft.runs.predictions import read_rows
from loraft.runs.records import as_json
from loraft.runs.run import Run
from loraft.studies.audit.audit import audit, combined, linear_model


def planted(config: Config, share: float, seed: int, path: Path) -> np.ndarray:
    """Writes the train split with wrong labels as JSON lines; returns whether each row's label was changed, (N,)."""
    split, labels = load_data(config, "train"), config.prompt.labels or []
    rng, rows = np.random.default_rng(seed), len(split)
    wrong_N = np.zeros(rows, dtype=bool)
    wrong_N[rng.choice(rows, round(share * rows), replace=False)] = True
    given_N = (split.labels + wrong_N * rng.integers(1, len(labels), rows)) % len(labels)
    column = config.data.label_column or config.prompt.label_column or "label"
    with path.open("w", encoding="utf-8") as file:
        for text, label in zip(split.texts, given_N.tolist(), strict=True):
            file.write(json.dumps({config.data.text_column: text, column: labels[label]}, ensure_ascii=False) + "\n")
    return wrong_N


def normalized_margin(labels_N: np.ndarray, probs_NK: np.ndarray) -> np.ndarray:
    """(1 + probability of the label - highest probability of another) / 2, (N,): low where the label is wrong."""
    others_NK = probs_NK.copy()
    others_NK[np.arange(len(labels_N)), labels_N] = -1.0
    return np.asarray((1 + self_confidence(labels_N, probs_NK) - others_NK.max(axis=1)) / 2)


def rankings(run: Path, share: float, draws: int) -> dict[str, float]:
    """Precision of several rankings on the test rows of a finished run, a mean over draws of planted labels.

    The run's adapter and the linear model learned from right labels: this chooses a ranking, and is no measurement of
    the audit.
    """
    config, rows = load_config(run / "config.yaml"), read_rows(Run(run))
    labels, train, test = config.prompt.labels or [], load_data(config, "train"), load_data(config, "test")
    true_N, num_labels = test.labels, len(labels)
    adapter_NK = np.array([[(row.probs or {})[label] for label in labels] for row in rows])
    linear_NK = linear_model(len(train)).fit(train.texts, train.labels).predict_proba(test.texts)
    both_NK, found = combined(adapter_NK, linear_NK), Counter[str]()
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        wrong = rng.choice(len(rows), round(share * len(rows)), replace=False)
        given_N = true_N.copy()
        given_N[wrong] = (given_N[wrong] + rng.integers(1, num_labels, len(wrong))) % num_labels
        qualities = {
            "adapter, self-confidence": self_confidence(given_N, adapter_NK),
            "adapter, normalised margin": normalized_margin(given_N, adapter_NK),
            "adapter, self-confidence less the label's mean": self_confidence(given_N, adapter_NK)
            - thresholds(given_N, adapter_NK)[given_N],
            "linear model, self-confidence": self_confidence(given_N, linear_NK),
            "geometric mean of both, self-confidence": self_confidence(given_N, both_NK),
            "geometric mean of both, normalised margin": normalized_margin(given_N, both_NK),
        }
        for name, quality_N in qualities.items():
            found[name] += float(np.isin(np.argsort(quality_N, kind="stable")[: len(wrong)], wrong).mean()) / draws
    return {name: round(value, 3) for name, value in found.items()}


def seconds_alone(config: Config) -> float:
    """The seconds of one training with its validation, as `metrics.json` has them."""
    from loraft.training.pipeline import train

    return float(train(config, force=True, quiet=True).train.seconds)


def main(
    data: Annotated[str, typer.Argument(help="A bundled name or a folder.")] = "feedback",
    seed: Annotated[int, typer.Option(help="Of the planted labels.")] = 0,
    share: Annotated[float, typer.Option(help="Of the rows.")] = 0.05,
    model: Annotated[str, typer.Option(help="Backbone.")] = "loraft-vi-tiny",
    sets: Annotated[list[str] | None, typer.Option("--set", help="Any config key.")] = None,
    alone: Annotated[bool, typer.Option("--alone", help="Time one training, too.")] = False,
    run: Annotated[Path | None, typer.Option("--run", help="Only compare rankings on this run's test rows.")] = None,
) -> None:
    """Plant, audit, count."""
    if run is not None:
        print(json.dumps(rankings(run, share, draws=200), indent=2))
        return
    with tempfile.TemporaryDirectory() as folder:
        flags = {"data.source": data, "model.name": model, "output": folder}
        clean = resolve(overrides=sets or (), flags=flags)
        path = Path(folder) / "train.jsonl"
        wrong_N = planted(clean, share, seed, path)
        noisy = resolve(overrides=sets or (), flags={**flags, "data.source": str(path)})
        started = time.perf_counter()
        result = audit(noisy, quiet=True)
        seconds = time.perf_counter() - started
        rows = read_rows(Run(Path(result.path)))
        labels = list(result.labels)
        probs_NK = np.array([[(row.probs or {})[label] for label in labels] for row in rows])
        labels_N = np.array([labels.index(str(row.label)) for row in rows])
        flagged = {one.row for one in result.suspects}
        flags_N = np.array([row.row in flagged for row in rows])
        found: dict[str, Any] = {
            "data": data,
            "seed": seed,
            "rows": len(rows),
            "planted": int(wrong_N.sum()),
            "precision_at_planted": {
                quality.__name__: float(wrong_N[np.argsort(quality(labels_N, probs_NK))[: wrong_N.sum()]].mean())
                for quality in (self_confidence, normalized_margin)
            },
            "flagged": len(flagged),
            "precision_of_flagged": float(wrong_N[flags_N].mean()) if flagged else None,
            "recall_of_flagged": float(flags_N[wrong_N].mean()),
            "agreement": result.agreement,
            "seconds": {"audit": round(seconds, 1), "trainings of the audit": result.seconds},
        }
        if alone:
            found["seconds"]["one training"] = seconds_alone(clean.model_copy(update={"name": "one"}))
            found["audit / one training"] = round(seconds / found["seconds"]["one training"], 2)
        found["environment"] = {key: value for key, value in as_json(environment()).items() if key != "command"}
        print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    typer.run(main)
