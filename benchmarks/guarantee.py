"""How often the promise of `predict --max-error` is broken, and how many rows it answers, over re-splits of real rows.

    python benchmarks/guarantee.py RUN [--data FOLDER] [--splits 500] [--rows N] [--scores runs/guarantee.npz]

The run scores its test rows, which chose nothing, and its validation rows. In each re-split the calibration and the
thresholds come from a random half of the validation rows, and N test rows test the thresholds, as many as half of the
validation rows. The promise is then held against two things:

- population: the N rows are drawn with replacement, and the promise is about all test rows, whose error is known. This
  is what is promised.
- other rows: the N rows are drawn without replacement, and the promise is held against the test rows that are left.
  Their own luck comes on top: a promise that is kept on average over rows can be broken on these.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import loraft
from loraft.cli.console import results_follow, say, start_command
from loraft.data.dataset import load_data
from loraft.evaluation.calibration import fit
from loraft.evaluation.guarantee import Answers, lowest_threshold
from loraft.evaluation.shares import wilson
from loraft.runs.bundle import config_of
from loraft.runs.run import Run

ERRORS, CONFIDENCE = (0.02, 0.05, 0.1), 0.95
Rows = tuple[np.ndarray, np.ndarray]  # scores in nats, (N, K), and label ids


def scored(path: Path, data: Path | None, kept: Path) -> dict[str, Rows]:
    """Validation and test rows of a run, from the file of an earlier call if there is one."""
    if not kept.exists():
        run = Run.open(path)
        config = config_of(run)
        if data is not None:
            section = config.data.model_copy(update={"source": str(data.resolve())})
            config = config.model_copy(update={"data": section})
        start_command(config, False, adapter=path)
        classifier = loraft.load(path, config=config)
        found = {}
        for name in ("validation", "test"):
            split = load_data(config, name)
            found[name], found[f"{name} labels"] = classifier.log_probs(split.texts), split.labels
            say(f"{len(split):,} {name} rows scored")
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **found)
        results_follow()
    with np.load(kept) as file:
        return {name: (file[name], file[f"{name} labels"]) for name in ("validation", "test")}


def part(answers: Answers, rows: np.ndarray) -> Answers:
    """The answers on some of the rows."""
    return Answers(answers.confidences_N[rows], answers.wrong_N[rows])


def error(answers: Answers, threshold: float) -> float:
    """The share of wrong ones among the answered rows, 0 without any."""
    answered, wrong = answers.at(threshold)
    return float(wrong / max(answered, 1))


def main(
    run: Annotated[Path, typer.Argument(help="Directory of a finished run.")],
    data: Annotated[Path | None, typer.Option(help="The data, where it lies elsewhere than in the training.")] = None,
    splits: Annotated[int, typer.Option(help="Number of re-splits.")] = 500,
    rows: Annotated[int | None, typer.Option(help="Test rows that test the thresholds.")] = None,
    scores: Annotated[Path, typer.Option(help="Keeps the scores for the next call.")] = Path("runs/guarantee.npz"),
) -> None:
    """Prints a line for each error."""
    found = scored(run, data, scores)
    (validation_NK, labels_N), (test_NK, test_labels_N) = found["validation"], found["test"]
    half = len(labels_N) // 2
    rows = rows or half
    generator = np.random.default_rng(0)
    answered, unshown = {one: [] for one in ERRORS}, dict.fromkeys(ERRORS, 0)
    broken = {one: [0, 0] for one in ERRORS}
    for _ in range(splits):
        chosen = generator.permutation(len(labels_N))[:half]
        calibration = fit(validation_NK[chosen], labels_N[chosen])
        guiding = Answers.of(calibration.probabilities(validation_NK[chosen]), labels_N[chosen])
        test = Answers.of(calibration.probabilities(test_NK), test_labels_N)
        order = generator.permutation(len(test_labels_N))
        again = generator.integers(len(test_labels_N), size=rows)
        for one in ERRORS:
            for which, (own, held) in enumerate(((again, None), (order[:rows], order[rows:]))):
                threshold = lowest_threshold(guiding, part(test, own), one, CONFIDENCE)
                against = test if held is None else part(test, held)
                broken[one][which] += threshold is not None and error(against, threshold) > one
                if held is not None:
                    unshown[one] += threshold is None
                    number = 0 if threshold is None else int(against.at(threshold)[0])
                    answered[one].append(number / len(held))
    say(f"{len(labels_N):,} validation and {len(test_labels_N):,} test rows, {rows:,} of them test thresholds;"
        f" {error(Answers.of(test_NK, test_labels_N), -np.inf):.1%} of all test rows are wrong")  # fmt: skip

    def share(number: int) -> str:
        low, high = wilson(number, splits, CONFIDENCE)
        return f"{number / splits:.1%} [{low:.1%}, {high:.1%}]"

    limit = 0.05 + 2 * np.sqrt(0.05 * 0.95 / splits)
    print("| max error | answered, mean (10th to 90th percentile) | nothing shown | broken: population |"
          " broken: other rows |\n|---|---|---|---|---|")  # fmt: skip
    for one in ERRORS:
        low, high = np.quantile(answered[one], [0.1, 0.9])
        print(f"| {one:.0%} | {np.mean(answered[one]):.1%} ({low:.1%} to {high:.1%}) | {unshown[one] / splits:.1%} |"
              f" {share(broken[one][0])} | {share(broken[one][1])} |")  # fmt: skip
    print(f"\nAt most 5% plus two standard errors of {splits:,} re-splits is {limit:.1%}.")


if __name__ == "__main__":
    typer.run(main)
