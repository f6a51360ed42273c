"""Label scores with and without the end of turn: accuracy, macro-F1 and log loss on the same rows and weights.

    python benchmarks/end_of_turn.py FOLDER --task topic [--words "bad,neither good nor bad,good"] [--steps 200]

Prints zero-shot, four demonstrations and, with --steps, a trained adapter. `--words` replaces the words of the task's
labels, also in its prompt: the end of turn matters where answers differ in length. Decision 3 has the figures.
"""

import random
import tempfile
from typing import Annotated

import typer
from transformers import PreTrainedModel

import loraft
from loraft.config.schema import Config
from loraft.data.dataset import Split, load_data
from loraft.engine import scorer
from loraft.engine.probabilities import to_probs
from loraft.evaluation.metrics import core, log_loss
from loraft.models.encoder import Encoder
from loraft.models.load import build, load_run
from loraft.runs.run import run_of

SHOTS = 4


def config_of(task: str, words: list[str], overrides: list[str]) -> Config:
    """Returns the config of a task, with other words for its labels."""
    config = loraft.resolve(overrides=overrides, flags={"prompt.task": task})
    if not words:
        return config
    flags: dict[str, object] = {"prompt.task": task, "prompt.label_words": words}
    for key in ("template", "few_shot_template"):
        text = getattr(config.prompt, key)
        for old, new in zip(config.prompt.label_words or [], words, strict=True):
            text = text.replace(f'"{old}"', f'"{new}"')
        flags[f"prompt.{key}"] = text
    return loraft.resolve(overrides=overrides, flags=flags)


def compare(name: str, model: PreTrainedModel, encoder: Encoder, prompts: list[list[int]], rows: Split) -> None:
    """Prints the figures of both ways, and how far they are apart."""
    probs = []
    for way, unscored in (("without", encoder.unscored), ("with", 0)):
        probs_NK = to_probs(scorer.score(model, prompts, encoder.completions_K, unscored=unscored))
        found, nats = core(rows.labels, probs_NK.argmax(1), probs_NK.shape[1]), log_loss(rows.labels, probs_NK)
        print(f"{name}, {way}: {found['accuracy']:.3f} / {found['macro_f1']:.3f} / {nats:.3f}", flush=True)
        probs.append(probs_NK)
    changed = int((probs[0].argmax(1) != probs[1].argmax(1)).sum())
    print(f"{name}: {changed} labels differ, probabilities by up to {abs(probs[0] - probs[1]).max():.4f}", flush=True)


def main(
    data: str,
    task: str = "topic",
    words: Annotated[str, typer.Option(help="Other words for the labels, by commas.")] = "",
    model: str = "loraft-vi-tiny",
    rows: int = 1500,
    steps: Annotated[int, typer.Option(help="Of a training; 0: none.")] = 0,
    rate: Annotated[float, typer.Option(help="Its learning rate.")] = 2e-3,
) -> None:
    """Print the figures of one task."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"model.name={model}", f"data.source={data}", f"data.max_test_rows={rows}", f"output={folder}", "name=thu",
            f"data.max_train_rows={8 * max(steps, SHOTS)}", "data.max_eval_rows=50", f"train.max_steps={steps or -1}",
            f"train.learning_rate={rate}", "train.per_device_train_batch_size=8", f"train.eval_steps={steps or 1}",
        ]  # fmt: skip
        config = config_of(task, words.split(",") if words else [], overrides)
        test, train = load_data(config, "test"), load_data(config, "train")
        encoder, base = build(config)
        names = encoder.task.label_words
        drawn = random.Random(0).sample(range(len(train.texts)), SHOTS)
        shots = [(train.texts[i], names[train.labels[i]]) for i in drawn]
        compare("zero-shot", base, encoder, [prompt.ids for prompt in encoder.encode(test.texts)], test)
        compare(f"{SHOTS} shots", base, encoder, [prompt.ids for prompt in encoder.encode(test.texts, shots)], test)
        if steps:
            loraft.train(config, quiet=True)
            encoder, tuned = load_run(run_of(config), config, switchable=False)
            compare(f"{steps} steps", tuned, encoder, [prompt.ids for prompt in encoder.encode(test.texts)], test)


if __name__ == "__main__":
    typer.run(main)
