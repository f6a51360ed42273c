"""How often the 95 % bootstrap interval of the macro F1 contains that of the population, beside the plain bootstrap.

    python benchmarks/coverage.py

The population has three labels; wrong answers are spread evenly. Takes a minute on one core.
"""

import numpy as np

from loraft.evaluation.intervals import bootstrap
from loraft.evaluation.metrics import scores_of_many, scores_of_one

SAMPLES, RESAMPLES, CONFIDENCE = 300, 500, 0.95


def plain_bootstrap(counts_KK: np.ndarray, seed: int) -> tuple[float, float]:
    """The percentile interval of rows drawn from the rows themselves."""
    total = counts_KK.sum()
    drawn_SC = np.random.default_rng(seed).multinomial(total, counts_KK.ravel() / total, size=RESAMPLES)
    values_S = scores_of_many(drawn_SC.reshape(-1, *counts_KK.shape))["macro_f1"]
    low, high = np.quantile(values_S, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def main() -> None:
    """Prints one line for each population and number of rows."""
    generator = np.random.default_rng(0)
    for accuracy in (0.97, 0.9):
        for shares in ((1 / 3, 1 / 3, 1 / 3), (0.46, 0.08, 0.46)):
            chances_KK = np.full((3, 4), (1 - accuracy) / 2)
            chances_KK[np.eye(3, 4, dtype=bool)] = accuracy
            chances_KK[:, -1] = 0
            chances_KK *= np.array(shares)[:, None]
            true = scores_of_one(chances_KK * 1e6)["macro_f1"]
            for rows in (30, 100, 600):
                plain = ours = collapsed = 0
                for seed in range(SAMPLES):
                    counts_KK = generator.multinomial(rows, chances_KK.ravel()).reshape(3, 4)
                    low, high = bootstrap(counts_KK, RESAMPLES, CONFIDENCE, seed)["macro_f1"]
                    ours += low <= true <= high
                    low, high = plain_bootstrap(counts_KK, seed)
                    plain += low <= true <= high
                    collapsed += low == high
                found = " ".join(
                    f"{name} {number / SAMPLES:.1%}"
                    for name, number in (("plain", plain), ("collapsed", collapsed), ("ours", ours))
                )
                print(f"accuracy {accuracy}, smallest label {min(shares):.0%}, {rows} rows: {found}", flush=True)


if __name__ == "__main__":
    main()
