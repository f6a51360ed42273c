"""loraft and its baselines as functions of a round's number, on the same weights and the same rows."""

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import baselines
import numpy as np
import torch
from stepper import Paced
from targets import HARNESS, LORAFT, RECIPE, TRL, TRL_BEST
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from loraft.config.schema import Config, OutputSection
from loraft.data.dataset import Split, load_data
from loraft.engine import scorer
from loraft.engine.collator import TrainingRow, make_rows
from loraft.engine.layout import common_prefix
from loraft.evaluation.predict import predict
from loraft.models.adapter import add_adapter
from loraft.models.encoder import Encoder
from loraft.models.load import build, build_encoder, load_run
from loraft.runs.run import run_of
from loraft.training import pipeline
from loraft.training.dataset import TrainingData
from loraft.training.learning_rate import learning_rate
from loraft.training.trainer import LabelTrainer

LINES = 1024  # of a round of prediction; a multiple of the rows that `predict` scores together
Cases = dict[str, Callable[..., Any]]
Shares = Mapping[str, int]


@dataclass
class Bench:
    """A backbone with the rows and the encoder of a task."""

    config: Config
    encoder: Encoder
    base: PreTrainedModel
    train: Split
    test: Split

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return self.base.device


def bundled(config: Config) -> Bench:
    """The config's own backbone and data."""
    encoder, base = build(config)
    return Bench(config, encoder, base, load_data(config, "train"), load_data(config, "test"))


def random_llama(config: Config, shape: dict[str, Any], device: torch.device) -> Bench:
    """A Llama with random bf16 weights, the same in every process, with the config's data and tokenizer."""
    torch.manual_seed(config.seed)
    with device:
        base = AutoModelForCausalLM.from_config(LlamaConfig(**shape), dtype=torch.bfloat16)
    base.requires_grad_(False).eval()
    train, test = (load_data(config, name) for name in ("train", "test"))
    return Bench(config, build_encoder(config), base, train, test)


def some_rows(split: Split, count: int, seed: int) -> Split:
    """So many rows of a split, drawn once; again from the start where it has fewer."""
    order = random.Random(seed).sample(range(len(split)), len(split))
    return replace(split, examples=tuple(split.examples[order[i % len(order)]] for i in range(count)))


def demonstrations(bench: Bench, shots: int) -> tuple[tuple[str, str], ...]:
    """Sentences with their label words, drawn from the train split."""
    chosen = some_rows(bench.train, shots, bench.config.seed + 1)
    words = bench.encoder.task.label_words
    return tuple((text, words[label]) for text, label in zip(chosen.texts, chosen.labels.tolist(), strict=True))


def training_rows(bench: Bench, count: int, shots: int = 0) -> tuple[Split, list[TrainingRow]]:
    """So many rows of the train split, drawn once, and the same encoded."""
    drawn = some_rows(bench.train, count, bench.config.seed)
    prompts = bench.encoder.encode(drawn.texts, demonstrations(bench, shots) if shots else ())
    ids = [prompt.ids for prompt in prompts]
    return drawn, make_rows(ids, drawn.labels.tolist(), bench.encoder.completions_K, "none")


def step_arithmetic(bench: Bench, batch: int, batches: int) -> dict[str, Any]:
    """What the training steps of `steps` have to compute: 4 operations a weight and token, on average over batches.

    Two for the forward pass and two for the gradient of the layer's input, in every matrix of the decoder layers;
    frozen weights need no gradient. Tokens are those of the shared prompt once, and each row's own. Attention, the head
    and the adapter come on top; what a tool pads or computes twice is no work.
    """
    layers = bench.base.get_decoder().layers.modules()
    weights = sum(m.in_features * m.out_features for m in layers if isinstance(m, torch.nn.Linear))
    rows = training_rows(bench, batch * (batches + 1))[1][batch:]
    tokens = 0
    for start in range(0, len(rows), batch):
        ids = [row.input_ids for row in rows[start : start + batch]]
        shared = common_prefix(ids)
        tokens += shared + sum(len(own) - shared for own in ids)
    return {"weights": weights, "tokens": tokens / batches, "operations": round(4 * weights * tokens / batches)}


@contextmanager
def steps(
    bench: Bench, batch: int, rounds: int, names: Sequence[str], shots: int = 0, distinct: int = 0
) -> Iterator[Cases]:
    """Training steps, to be asked for in order; each returns the loss before its update, in nats a token.

    loraft's and TRL's are steps of their own `train()`, with all that a trainer does between two steps; the recipe's is
    a bare loop. Frozen weights are one and the same in memory; each tool has an adapter of its own, equal at the
    start. One step on further rows has warmed all of them up. A tool takes the argument `around`, a context.

    Args:
        names: the tools.
        shots: demonstrations before each sentence; without TRL then, which would ask for another prompt.
        distinct: so many batches come again and again; 0 for a new one in every round.
    """
    config, encoder = bench.config, bench.encoder
    distinct = distinct or rounds
    drawn, rows = training_rows(bench, batch * (distinct + 1), shots)
    batches = [list(range(start, start + batch)) for start in range(0, len(rows), batch)]
    places = [batches[0], *(batches[1 + i % distinct] for i in range(rounds))]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        made: Cases = {}
        for name in names:
            model = add_adapter(sharing_weights(bench.base), config.lora, seed=config.seed)
            rate = learning_rate(config.train, model)
            if name == RECIPE:
                made[name] = partial(_recipe_step, model, baselines.adamw(model, rate), rows, places, encoder)
                made[name](-1)
                continue
            if name == LORAFT:
                section = config.train.model_copy(update={"per_device_train_batch_size": batch})
                data = TrainingData(rows, encoder.tokenizer, lambda model: {})
                trainer: Any = LabelTrainer.build(model, data, section, output_dir=str(folder), seed=config.seed)
            else:
                trainer = baselines.trl_trainer(
                    model, encoder, drawn, folder=folder, batch_size=batch, learning_rate=rate,
                    at_its_best=name == TRL_BEST,
                )  # fmt: skip
            paced = Paced(trainer, places)
            stack.callback(paced.close)
            if name == LORAFT and not trainer.shared_prefix:
                raise SystemExit("training step: loraft fell back to padded batches, so its steps are a baseline's")
            made[name] = lambda number, around=None, paced=paced: paced.step(around)
        yield made


def _recipe_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: Sequence[TrainingRow],
    places: Sequence[Sequence[int]],
    encoder: Encoder,
    number: int,
) -> float:
    device = next(model.parameters()).device
    batch = [rows[i] for i in places[number + 1]]
    return baselines.recipe_step(model, optimizer, batch, encoder.tokenizer.pad_token_id, device)


def sharing_weights(base: PreTrainedModel) -> PreTrainedModel:
    """A copy of the modules over the very same weights."""
    weights = [*base.parameters(), *base.buffers()]
    return copy.deepcopy(base, {id(weight): weight for weight in weights})


def evaluations(
    bench: Bench, rows: int, shots: int = 0, harness_batch: int = baselines.HARNESS_BATCH, shares: Shares | None = None
) -> Cases:
    """Evaluation of the bare backbone on the same encoded test rows: label ids, or log-probabilities N x K.

    Args:
        shares: a baseline takes one in so many of the rows in a round, other ones in the next round. The time of all is
            so many times as long: baselines do one batch after the other and share nothing between batches.
    """
    texts = some_rows(bench.test, rows, bench.config.seed).texts
    prompts = bench.encoder.encode(texts, demonstrations(bench, shots) if shots else ())
    ids = [prompt.ids for prompt in prompts]
    completions_K, model = bench.encoder.completions_K, bench.base
    batch = baselines.TUTORIAL_BATCH * (2 if shots else 1)
    limit = bench.config.eval.batch_tokens

    def mine(name: str, number: int) -> list[list[int]]:
        return ids[share_of(name, number, shares)]

    return {
        RECIPE: lambda number: baselines.recipe_predict(model, bench.encoder, mine(RECIPE, number), batch),
        HARNESS: lambda number: baselines.loglikelihoods(model, mine(HARNESS, number), completions_K, harness_batch),
        LORAFT: lambda number: scorer.score(model, ids, completions_K, batch_tokens=limit),
    }


def share_of(name: str, number: int, shares: Shares | None) -> slice:
    """The rows that a tool takes in a round."""
    share = (shares or {}).get(name, 1)
    return slice(number % share, None, share)


def largest_difference(left_NK: np.ndarray, right_NK: np.ndarray) -> float:
    """The largest difference between label log-probabilities, each row normalised over the K labels, in nats."""

    def normalised(log_probs_NK: np.ndarray) -> np.ndarray:
        return np.asarray(log_probs_NK - np.logaddexp.reduce(log_probs_NK, axis=1, keepdims=True))

    return float(np.abs(normalised(left_NK) - normalised(right_NK)).max())


@contextmanager
def sweeps_of(
    config: Config, ranks: Sequence[int], names: Sequence[str], share: int = 1, warm_up_steps: int | None = None
) -> Iterator[Cases]:
    """Sweeps over so many ranks, end to end, each in a folder of its own: train, judge on the test rows.

    loraft's side is `loraft sweep` as it is, with its evaluations, checkpoints, statistics and plots. All have done a
    sweep over the first rank before, of `warm_up_steps` where these are given.

    Args:
        share: baselines run one in so many of the ranks in a round, the smallest and the largest first, other ones in
            the next round. They share nothing between ranks, so the time of all is so many times as long.
    """
    from loraft.studies.sweep import runner

    encoder, train, test = build_encoder(config), load_data(config, "train"), load_data(config, "test")

    inwards = sorted(ranks, key=lambda rank: min(ranks.index(rank), len(ranks) - 1 - ranks.index(rank)))

    def asking(number: int, share: int) -> Config:
        size = len(ranks) // share
        start = number * size % len(ranks)
        chosen = list(ranks[:1]) if number < 0 else sorted(inwards[start : start + size])
        section = config.sweep.model_copy(update={"ranks": chosen})
        few = {} if number >= 0 or warm_up_steps is None else {"max_steps": min(warm_up_steps, config.train.max_steps)}
        train = config.train.model_copy(update=few)
        return config.model_copy(
            update={"sweep": section, "train": train, "output": OutputSection(folder=f"{root}/{number}")}
        )

    def ours(number: int) -> list[float]:
        result = runner.sweep(asking(number, 1), quiet=True)
        if failed := [trial.error for trial in result.failed]:
            raise SystemExit(f"sweep: {len(failed)} trials failed: {failed[0]}")
        return [trial.measured.scores["accuracy"] for trial in result.trials if trial.measured]

    with TemporaryDirectory() as root:
        made: Cases = {
            RECIPE: lambda number: baselines.recipe_sweep(asking(number, share), encoder, train, test),
            **{
                name: lambda number, best=name == TRL_BEST: baselines.trl_sweep(
                    asking(number, share), encoder, train, test, Path(root), at_its_best=best
                )
                for name in (TRL, TRL_BEST)
            },
            LORAFT: ours,
        }
        for name in names:
            made[name](-1)
        yield {name: made[name] for name in names}


@contextmanager
def predictions(config: Config, texts: Sequence[str], *, one_by_one: int, looped: int) -> Iterator[Cases]:
    """Prediction with a small run's adapter, from sentences to labels, all models loaded and warm; seconds count later.

    Each tool answers the next sentences of the same endless repetition of `texts`: loraft `LINES` of them on one
    open stream of `predict`, the recipe `one_by_one`, each a `generate`, the loop `looped`.
    """
    with TemporaryDirectory() as root:
        section = config.train.model_copy(update={"max_steps": 2, "eval_steps": 2})
        small = config.model_copy(update={"output": OutputSection(folder=root), "name": "run", "train": section})
        run = run_of(small)
        pipeline.train(small, quiet=True)
        encoder, model = load_run(run, small)

        def endless() -> Iterator[str]:
            while True:
                yield from texts

        stream = predict(endless(), run=run.path, config=small)
        sentences = endless()

        def recipe(number: int) -> list[int | None]:
            asked = [next(sentences) for _ in range(one_by_one)]
            return [baselines.recipe_predict(model, encoder, [encoder.encode([text])[0].ids])[0] for text in asked]

        def loop(number: int) -> np.ndarray:
            ids = [prompt.ids for prompt in encoder.encode([next(sentences) for _ in range(looped)])]
            return baselines.loglikelihoods(model, ids, encoder.completions_K)

        def ours(number: int) -> list[str | None]:
            return [next(stream).label for _ in range(LINES)]

        ours(-1)  # loads the model, and the stream has its full speed
        baselines.recipe_predict(model, encoder, [encoder.encode([texts[0]])[0].ids])
        yield {RECIPE: recipe, HARNESS: loop, LORAFT: ours}
