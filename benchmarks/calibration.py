"""What it costs that the validation rows choose the checkpoint and fit the calibration too, measured on the test rows.

    python benchmarks/calibration.py [--data feedback|FOLDER] [--config FILE] [--halves 200] [--set KEY=VALUE]

One training keeps every checkpoint, and each scores all validation and test rows. Then, for many random halves of the
validation rows (stratified by label), one half chooses the checkpoint. The calibration is fitted on that half, on the
other one, on all validation rows and, as no user can, on the test rows. The table has the means over the halves, each
with its standard deviation. A finished training in runs/calibration is taken as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import loraft
from loraft.cli.console import results_follow, say, start_command
from loraft.config.schema import Config
from loraft.data.dataset import Split, load_data
from loraft.display import table
from loraft.engine import scorer
from loraft.evaluation.calibration import fit
from loraft.evaluation.metrics import brier_score, core, expected_calibration_error, log_loss
from loraft.models.calibration import NONE, Calibration
from loraft.models.load import load_run
from loraft.runs.atomic_files import write_json
from loraft.runs.environment import environment
from loraft.runs.records import as_json
from loraft.runs.run import Run, run_of
from loraft.training.checkpoints import step_of

Values = dict[str, float]
NOISY = ("log loss", "Brier score", "calibration error")  # of the table, with their standard deviations


@dataclass(frozen=True)
class Scored:
    """What every checkpoint scored: (C, N, K) in nats on validation and on test, and the label ids."""

    steps: Sequence[int]
    validation_CNK: np.ndarray
    test_CNK: np.ndarray
    validation_N: np.ndarray
    test_N: np.ndarray


def trained(config: Config) -> Run:
    """The run of the config, with all its checkpoints; trained now where it is not finished."""
    run = run_of(config)
    if not run.finished:
        loraft.train(config, resume=run.begun)
    return run


def scored(run: Run, config: Config) -> Scored:
    """Scores validation and test rows with each checkpoint of a run."""
    encoder, model = load_run(run, config)
    folders = sorted(run.checkpoints.glob("checkpoint-*"), key=step_of)

    def of(split: Split) -> np.ndarray:
        ids = [prompt.ids for prompt in encoder.encode(split.texts)]
        return scorer.score(model, ids, encoder.completions_K, unscored=encoder.unscored)

    validation, test = (load_data(config, name) for name in ("validation", "test"))
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for folder in folders:
        model.load_adapter(str(folder), model.active_adapter)
        model.eval()
        found.append((of(validation), of(test)))
        say(f"{folder.name}: scored")
    both = (np.stack(part) for part in zip(*found, strict=True))
    return Scored([step_of(folder) for folder in folders], *both, validation.labels, test.labels)


def halves(labels_N: np.ndarray, number: int, seed: int = 0) -> np.ndarray:
    """So many random halves, (number, N) bool: of each label's rows one half, the odd one by chance."""
    generator, found = np.random.default_rng(seed), np.zeros((number, len(labels_N)), dtype=bool)
    for half_N in found:
        for k in np.unique(labels_N):
            rows = generator.permutation(np.flatnonzero(labels_N == k))
            half_N[rows[: (len(rows) + generator.integers(2)) // 2]] = True
    return found


def macro_f1(log_probs_NK: np.ndarray, labels_N: np.ndarray) -> float:
    """Of the labels with the best scores."""
    return core(labels_N, log_probs_NK.argmax(axis=1), log_probs_NK.shape[1])["macro_f1"]


def chosen(scores_CNK: np.ndarray, labels_N: np.ndarray) -> int:
    """The checkpoint with the best macro F1 on these rows; of equal ones the first, as in a training."""
    return int(np.argmax([macro_f1(one_NK, labels_N) for one_NK in scores_CNK]))


def judged(one: Calibration, log_probs_NK: np.ndarray, labels_N: np.ndarray) -> Values:
    """How good calibrated probabilities are."""
    probs_NK = one.probabilities(log_probs_NK)
    return {
        "log loss": log_loss(labels_N, probs_NK),
        "Brier score": brier_score(labels_N, probs_NK),
        "calibration error": expected_calibration_error(labels_N, probs_NK),
        "macro F1": macro_f1(np.log(np.maximum(probs_NK, 1e-300)), labels_N),
        "temperature": one.temperature,
    }


def compared(found: Scored, number: int) -> dict[str, list[Values]]:
    """By what the calibration was fitted on: its scores on the test rows, one for each half."""
    rows: dict[str, list[Values]] = {}
    references_N, test_N = found.validation_N, found.test_N
    ideal = {c: fit(found.test_CNK[c], test_N) for c in range(len(found.steps))}
    for half_N in halves(references_N, number):
        c = chosen(found.validation_CNK[:, half_N], references_N[half_N])
        scores_NK = found.validation_CNK[c]
        fitted = {
            "as scored": NONE,
            "the half that chose": fit(scores_NK[half_N], references_N[half_N]),
            "the other half": fit(scores_NK[~half_N], references_N[~half_N]),
            "all of them": fit(scores_NK, references_N),
            "test rows (ideal)": ideal[c],
        }
        for name, one in fitted.items():
            rows.setdefault(name, []).append(judged(one, found.test_CNK[c], test_N))
    return rows


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation."""
    return {"mean": float(np.mean(values)), "sd": float(np.std(values))}


def main(
    data: Annotated[str, typer.Option(help="A bundled name or a folder.")] = "feedback",
    config: Annotated[Path | None, typer.Option(help="YAML over the defaults.")] = None,
    number: Annotated[int, typer.Option("--halves", help="Random halves of the validation rows.")] = 200,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    out: Path = Path("benchmarks/results/calibration.json"),
) -> None:
    """Measures both, prints two tables and writes the JSON."""
    keep = ["train.save_total_limit=10000", "train.eval_steps=25", "data.calibration_share=0", "eval.baselines=off"]
    where = ["output=runs/calibration", f"name={Path(data).name}"]
    given = loraft.resolve(config_file=config, overrides=[*keep, *where, *(sets or ()), f"data.source={data}"])
    start_command(given, False)
    run = trained(given)
    found = scored(run, given)
    best = chosen(found.validation_CNK, found.validation_N)
    tests = [macro_f1(one_NK, found.test_N) for one_NK in found.test_CNK]
    picked = [chosen(found.validation_CNK[:, half_N], found.validation_N[half_N])
              for half_N in halves(found.validation_N, number)]  # fmt: skip
    by_half, rows = [tests[c] for c in picked], compared(found, number)
    result: dict[str, Any] = {
        "data": data, "steps": list(found.steps), "halves": number, "environment": as_json(environment()),
        "rows": {"validation": len(found.validation_N), "test": len(found.test_N)},
        "choice": {
            "all rows": {"step": found.steps[best], "test_macro_f1": tests[best]},
            "half": {**summary(by_half), "same_checkpoint": float(np.mean(np.array(picked) == best))},
            "best on test": max(tests),
            "last": tests[-1],
        },
        "calibration": {name: {key: summary([one[key] for one in of]) for key in of[0]} for name, of in rows.items()},
    }  # fmt: skip
    write_json(out, result)
    first = table.number_table("checkpoint chosen by", "test macro F1")
    table.add_row(first, f"all {len(found.validation_N)} validation rows", f"{tests[best]:.3f}")
    table.add_row(first, f"half of them ({number} random halves)", _cell(summary(by_half)))
    table.add_row(first, "the test rows (best of all)", f"{max(tests):.3f}")
    second = table.number_table("calibration fitted on", *NOISY, "macro F1", "T")
    for name, of in result["calibration"].items():
        means = (f"{of[key]['mean']:.3f}" for key in ("macro F1", "temperature"))
        table.add_row(second, name, *(_cell(of[key]) for key in NOISY), *means)
    results_follow()
    table.show([first, second])


def _cell(one: Values) -> str:
    return f"{one['mean']:.3f} ±{one['sd']:.3f}"


if __name__ == "__main__":
    typer.run(main)
