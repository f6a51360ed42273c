"""Whether `loraft suggest` spends labels better than chance: the loop of suggest, label and train --from, simulated.

    python benchmarks/suggest.py --data FOLDER [--rows 200] [--rounds 3] [--seeds 4] [--minutes 25] [--out FILE]

FOLDER holds train, validation and test of UIT-VSFC, or of other data with `--set`. For each seed, `--rows` rows of the
train split, drawn at random, are trained on first. Then each strategy adds as many a round, whose labels are looked
up, and goes on from its adapter with all rows that it has so far: `suggest` takes what loraft suggests, `random` draws.
Both choose among the same `POOL` rows at first, and take the same number of steps. The checkpoint is picked on the same
validation rows, and each adapter is measured on the same test rows.

The JSON holds every score, and for each round the difference between the strategies: its mean over the seeds with a
95 % interval by Student's t, paired by seed. It is written after each training; none begins after `--minutes`.
"""

import json
import random
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from scipy.stats import t as student_t

from loraft.cli.console import say
from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.data.dataset import load_data
from loraft.data.records import Example
from loraft.evaluation.predict import predict
from loraft.evaluation.suggestion import suggest
from loraft.runs.atomic_files import to_json
from loraft.runs.environment import environment
from loraft.runs.records import as_json
from loraft.training.pipeline import train

CONFIG = Path(__file__).with_name("vsfc.yaml")
STRATEGIES = ("suggest", "random")
POOL = 4000  # rows without label that a round chooses among
STEPS = 60  # of each training, of 32 rows
SHORT = [
    f"train.max_steps={STEPS}", "train.eval_steps=20", "data.max_eval_rows=300", "eval.bootstrap_samples=100",
    "eval.baselines=off", "output.texts=false",
]  # fmt: skip


def write_rows(folder: Path, name: str, rows: list[Example], labels: list[str], column: str) -> None:
    """Writes labelled rows as a split of a folder."""
    lines = [to_json({"sentence": row.text, column: labels[int(str(row.label))]}, indent=None) for row in rows]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def chosen(strategy: str, pool: list[Example], run: str, config: Config, rows: int, draw: random.Random) -> list[int]:
    """The indices into the pool of the rows that a strategy has labelled next."""
    if strategy == "random":
        return draw.sample(range(len(pool)), rows)
    asked = (Example(one.text, None, number) for number, one in enumerate(pool))
    found, _ = suggest(predict(asked, run=run, config=config), rows)
    return [one.row for one in found]


def differences(curves: list[dict[str, Any]], scores: list[str]) -> list[dict[str, Any]]:
    """For each round the mean of suggest minus random over the seeds that have both, in points, with its interval."""
    found = []
    for number in sorted({one["round"] for one in curves if one["round"]}):
        of_round = {(one["seed"], one["strategy"]): one for one in curves if one["round"] == number}
        seeds = sorted({seed for seed, _ in of_round if all((seed, name) in of_round for name in STRATEGIES)})
        for score in scores:
            pairs = [[of_round[seed, name]["scores"][score] for name in STRATEGIES] for seed in seeds]
            gaps = [100 * (ours - chance) for ours, chance in pairs]
            if len(gaps) > 1:
                half = float(student_t.ppf(0.975, len(gaps) - 1)) * statistics.stdev(gaps) / len(gaps) ** 0.5
                means = dict(
                    zip(STRATEGIES, (statistics.mean(column) for column in zip(*pairs, strict=True)), strict=True)
                )
                mean = statistics.mean(gaps)
                found.append({"round": number, "score": score, "seeds": len(gaps), **means, "points": mean,
                              "interval": [mean - half, mean + half]})  # fmt: skip
    return found


def main(
    data: Annotated[Path, typer.Option(help="Folder of train, validation and test.")],
    rows: Annotated[int, typer.Option(min=2, help="First, and added in each round.")] = 200,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    seeds: Annotated[int, typer.Option(min=1)] = 4,
    test_rows: Annotated[int, typer.Option(min=10)] = 1000,
    minutes: Annotated[float, typer.Option(help="No training begins later.")] = 25.0,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Config keys.")] = None,
    out: Annotated[Path, typer.Option(help="JSON file.")] = Path("benchmarks/results/suggest.json"),
) -> None:
    """Simulates the loop with both strategies; prints and writes the curves."""
    warnings.filterwarnings("ignore")
    begun, curves = time.perf_counter(), list[dict[str, Any]]()
    given = [*SHORT, f"data.max_test_rows={test_rows}", *(sets or [])]
    base = resolve(config_file=CONFIG, overrides=[*given, f"data.source={data}"])
    labels, column = base.prompt.labels or [], base.data.label_column or base.prompt.label_column or "label"
    splits = {name: list(load_data(base, name).examples) for name in ("train", "validation", "test")}
    # Of each sentence the first row: a person is not asked twice, and no other row has its label.
    whole = list({row.text: row for row in reversed(splits["train"])}.values())[::-1]
    settings = {"rows": rows, "rounds": rounds, "pool": POOL, "steps": STEPS, "test_rows": len(splits["test"])}
    made_in = as_json(environment(base))

    def save(seed: int, strategy: str, number: int, labelled: list[Example], result: Any) -> None:
        counts = {label: sum(row.label == k for row in labelled) for k, label in enumerate(labels)}
        scores = {**result.after.scores, **{f"f1:{one.label}": one.f1 for one in result.after.per_class}}
        one = {"seed": seed, "strategy": strategy, "round": number, "labelled": len(labelled), "labels": counts,
               "scores": scores, "seconds": round(result.train.seconds, 1)}  # fmt: skip
        curves.append(one)
        names = ["accuracy", "macro_f1", *(f"f1:{label}" for label in labels)]
        content = {"settings": settings, "differences": differences(curves, names), "curves": curves,
                   "seconds": round(time.perf_counter() - begun), "environment": made_in}  # fmt: skip
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        say(f"{time.perf_counter() - begun:6.0f} s  seed {seed}  {strategy:<8} {len(labelled):5} rows  macro-F1"
            f" {scores['macro_f1']:.4f}  accuracy {scores['accuracy']:.4f}  {counts}")  # fmt: skip

    with tempfile.TemporaryDirectory() as temporary:

        def trained(seed: int, name: str, labelled: list[Example], start: str | None) -> Any:
            folder = Path(temporary) / name
            folder.mkdir()
            for split in ("validation", "test"):
                write_rows(folder, split, splits[split], labels, column)
            write_rows(folder, "train", labelled, labels, column)
            overrides = [*given, f"data.source={folder}", f"seed={seed}", f"name={name}", f"output={temporary}/runs"]
            overrides += ["data.text_column=sentence"] + ([f"train.from_run={start}"] if start else [])
            return train(resolve(config_file=CONFIG, overrides=overrides), quiet=True)

        for seed in range(seeds):
            draw = random.Random(seed)
            order = draw.sample(whole, len(whole))
            first = trained(seed, f"s{seed}-0", order[:rows], None)
            save(seed, "both", 0, order[:rows], first)
            state = dict.fromkeys(STRATEGIES, (order[:rows], order[rows : rows + POOL], first.run))
            for number in range(1, rounds + 1):
                for strategy in STRATEGIES:
                    if time.perf_counter() - begun > 60 * minutes:
                        say(f"not measured: from seed {seed}, round {number}, {strategy} on")
                        return
                    labelled, pool, run = state[strategy]
                    taken = chosen(strategy, pool, run, base, rows, draw)
                    labelled = [*labelled, *(pool[i] for i in taken)]
                    left = [row for i, row in enumerate(pool) if i not in set(taken)]
                    result = trained(seed, f"s{seed}-{number}-{strategy}", labelled, run)
                    save(seed, strategy, number, labelled, result)
                    state[strategy] = labelled, left, result.run
    for one in json.loads(out.read_text(encoding="utf-8"))["differences"]:
        low, high = one["interval"]
        print(f"round {one['round']}  {one['score']:<12} random {one['random']:.4f}  suggest {one['suggest']:.4f}"
              f"  {one['points']:+.1f} points [{low:+.1f}, {high:+.1f}]")  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
