"""Sets of labels, the look for a shift, and changed priors, over re-splits of the labelled rows of a finished run.

    python benchmarks/sets.py RUN

RUN has `predictions.jsonl`, the probabilities of its test rows. In each re-split half of them stand for the validation
rows that were set aside, the others for the rows to be predicted. Takes about a minute on one core.
"""

import sys
from pathlib import Path

import numpy as np

from loraft.errors import ConfigError
from loraft.evaluation import conformal, priors
from loraft.evaluation.metrics import core
from loraft.evaluation.shift import Validation, label_shares
from loraft.runs.predictions import predicted_ids, read_rows
from loraft.runs.run import Run

SPLITS, SHIFTED = 500, 100


def sets(probs_NK: np.ndarray, references_N: np.ndarray, labels: list[str], coverage: float, *, by_label: bool) -> None:
    """Prints the coverage over re-splits; the beta-binomial law is that of the sets before a label is added."""
    from scipy.stats import betabinom

    covered, sizes, single, broken, alone, of_label = [], [], [], 0, [], []
    for seed in range(SPLITS):
        fitted, new = np.array_split(np.random.default_rng(seed).permutation(len(references_N)), 2)
        found = conformal.fit(probs_NK[fitted], references_N[fitted], labels, coverage, by_label=by_label)
        inside_NK = found.of(probs_NK[new], probs_NK[new].argmax(axis=1))
        own_N = inside_NK[np.arange(len(new)), references_N[new]]
        covered.append(own_N.mean())
        of_label.append([own_N[references_N[new] == k].mean() for k in range(len(labels))])
        sizes.append(inside_NK.sum(axis=1).mean())
        single.append((inside_NK.sum(axis=1) == 1).mean())
        without_N = probs_NK[new, references_N[new]] >= found.least_K[references_N[new]]
        alone.append(without_N.mean())
        if not by_label:
            rank = conformal._rank(len(fitted), coverage)
            broken += without_N.sum() < betabinom(len(new), rank, len(fitted) + 1 - rank).ppf(0.05)
    low, high = np.percentile(covered, [2.5, 97.5])
    each = ", ".join(f"{name} {share:.1%}" for name, share in zip(labels, np.mean(of_label, axis=0), strict=True))
    law = "" if by_label else f"; below the law's 5 % quantile {broken / SPLITS:.1%}"
    print(
        f"coverage {coverage}{', by label' if by_label else ''}: {np.mean(covered):.1%} ({low:.1%} to {high:.1%}),"
        f" without adding the predicted label {np.mean(alone):.1%}; by label: {each};"
        f" {np.mean(sizes):.2f} labels a set, {np.mean(single):.0%} of one label{law}",
        flush=True,
    )


def drawn(
    rows_N: np.ndarray, references_N: np.ndarray, new_K: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Of these rows the most that have the new label shares, each once."""
    most = min(int((references_N[rows_N] == k).sum() / share) for k, share in enumerate(new_K))
    parts = [
        generator.choice(rows_N[references_N[rows_N] == k], int(most * share), replace=False)
        for k, share in enumerate(new_K)
    ]
    return np.concatenate(parts)


def main() -> None:
    """Prints a line for each kind of sets, and for each planted change of the label shares."""
    run = Run.open(Path(sys.argv[1]))
    rows = read_rows(run)
    labels = list(rows[0].probs or {})
    probs_NK = np.array([[(row.probs or {})[label] for label in labels] for row in rows])
    references_N = np.array([labels.index(str(row.label)) for row in rows])
    assert (probs_NK.argmax(axis=1) == predicted_ids(rows, labels)).all()
    old_K = priors.shares(references_N, len(labels))
    shown = ", ".join(f"{label} {share:.1%}" for label, share in zip(labels, old_K, strict=True))
    print(f"{len(rows):,} rows: {shown}")
    for coverage in (0.9, 0.95):
        for by_label in (False, True):
            try:
                sets(probs_NK, references_N, labels, coverage, by_label=by_label)
            except ConfigError as error:
                print(f"coverage {coverage}: {error}")
    rotated_K = np.roll(old_K, 1)
    changes = {"none": old_K, "a third of the way to equal": (2 * old_K + 1 / len(labels)) / 3}
    changes |= {"equal": np.full(len(labels), 1 / len(labels)), "labels rotated": rotated_K}
    for name, new_K in changes.items():
        alarms, errors, scores = 0, [], []
        for seed in range(SPLITS if name == "none" else SHIFTED):
            generator = np.random.default_rng(seed)
            fitted, rest = np.array_split(generator.permutation(len(references_N)), 2)
            new = rest if name == "none" else drawn(rest, references_N, new_K, generator)
            validation = Validation(labels, probs_NK[fitted], references_N[fitted])
            predicted_K = np.bincount(probs_NK[new].argmax(axis=1), minlength=len(labels))
            alarms += bool(validation.differences(validation.binned(probs_NK[new]), predicted_K))
            before_K = priors.shares(references_N[fitted], len(labels))
            found = priors.estimated(probs_NK[new], before_K)
            given = priors.Priors(new_K, before_K)
            black_box_K, _ = label_shares(validation.counts_KK, predicted_K)
            errors.append([np.abs(one - new_K).sum() / 2 for one in (before_K, found.new_K, black_box_K)])
            moved = [probs_NK[new], found.applied(probs_NK[new]), given.applied(probs_NK[new])]
            results = [core(references_N[new], one.argmax(axis=1), len(labels)) for one in moved]
            scores.append([[one["macro_f1"], one["accuracy"]] for one in results])
        f1, accuracy = np.mean(scores, axis=0).T
        distance = np.mean(errors, axis=0)
        print(
            f"shares changed: {name}; {len(new)} rows; called unlike in {alarms / len(scores):.1%}; distance of the"
            f" shares: validation's {distance[0]:.3f}, expectation maximisation {distance[1]:.3f}, black"
            f" box {distance[2]:.3f}; macro F1 without a prior {f1[0]:.4f}, estimated {f1[1]:.4f}, given {f1[2]:.4f};"
            f" accuracy {accuracy[0]:.4f}, {accuracy[1]:.4f}, {accuracy[2]:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
