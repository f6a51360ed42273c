"""Whether other ways to a low rank beat the plain cut of `loraft sweep --from`; none did, so none is in the package.

    python benchmarks/other_cuts.py RUN          an adapter of a finished run over an fp32 backbone, cut in three ways
    python benchmarks/other_cuts.py --nested     a nested training on the bundled data

weighted: the error of the cut is measured on the layers' inputs, by their second moments over 150 training sentences,
as in SVD-LLM (Wang et al. 2024, arXiv:2403.07378). shared: the largest singular values of all layers together, as many
as the plain cut keeps. nested: every step trains the leading 1, 2, 4 or 8 columns, drawn at random, as in DyLoRA
(Valipour et al. 2022, arXiv:2210.07558). On the first 1,600 test rows, macro F1; two to four minutes on two cores.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from loraft.config.resolve import resolve
from loraft.data.dataset import load_data
from loraft.engine import scorer
from loraft.evaluation.intervals import differences
from loraft.models.load import load_base
from loraft.models.truncation import _cut, _decomposed, _key, cut
from loraft.runs.bundle import config_of
from loraft.runs.run import Run
from loraft.training.pipeline import train
from loraft.training.trainer import LabelTrainer

ROWS, SENTENCES, RANKS = 1600, 150, (1, 2)
NESTED = (1, 2, 4, 8)
Weights = Mapping[str, torch.Tensor]


class Scored:
    """A run's backbone and the first test rows; `predict` answers with an update added to the weights."""

    def __init__(self, run: Run) -> None:
        config = config_of(run)
        self.encoder, self.base = load_base(run, config)
        test = load_data(config, "test")
        self.references_N = test.labels[:ROWS]
        self.ids = [prompt.ids for prompt in self.encoder.encode(test.texts[:ROWS])]
        self.weights = load_file(run.adapter / "adapter_model.safetensors")
        self.scale = config.lora.alpha / config.lora.r
        known = {name for name, _ in self.base.named_modules() if _key(name, "A") in self.weights}
        self.layers = sorted(known)

    @torch.no_grad()
    def add(self, weights: Weights, scale: float) -> None:
        """Adds the update to the backbone's weights."""
        for name in self.layers:
            layer: Any = self.base.get_submodule(name)
            layer.weight.add_(scale * weights[_key(name, "B")] @ weights[_key(name, "A")])

    def predict(self, weights: Weights, scale: float = 1.0) -> np.ndarray:
        """The label ids that the adapter predicts."""
        self.add(weights, scale)
        scores_NK = scorer.score(self.base, self.ids, self.encoder.completions_K, unscored=self.encoder.unscored)
        self.add(weights, -scale)
        return scores_NK.argmax(axis=1)

    def show(self, what: str, own_N: np.ndarray, other_N: np.ndarray) -> None:
        """Prints the macro F1s and their difference."""
        found = differences(self.references_N, [own_N], [other_N], len(self.encoder.task.labels))["macro_f1"]
        low, high = (100 * bound for bound in found.interval)
        print(f"{what}: {100 * found.difference:+.1f} points [{low:+.1f}, {high:+.1f}]", flush=True)


def moments(scored: Scored, texts: list[str]) -> dict[str, torch.Tensor]:
    """The second moments of each layer's inputs, with the whole adapter in place."""
    found = dict.fromkeys(scored.layers, torch.zeros(()))

    def keep(name: str, inputs: torch.Tensor) -> None:
        rows = inputs.flatten(0, -2).double()
        found[name] = found[name] + rows.T @ rows

    hooks = [
        scored.base.get_submodule(name).register_forward_hook(lambda layer, given, out, name=name: keep(name, given[0]))
        for name in scored.layers
    ]
    scored.add(scored.weights, scored.scale)
    with torch.inference_mode():
        for prompt in scored.encoder.encode(texts):
            scored.base(torch.tensor([prompt.ids]))
    scored.add(scored.weights, -scored.scale)
    for hook in hooks:
        hook.remove()
    return found


def other_cuts(run: Run) -> None:
    """Prints the plain, the weighted and the shared cut at each of `RANKS`."""
    scored, config = Scored(run), config_of(run)
    of_inputs = moments(scored, list(load_data(config, "train").texts[:SENTENCES]))
    decomposed, roots = [], {}
    for name in scored.layers:
        down_RI, up_OR = (scored.weights[_key(name, part)].double() for part in "AB")
        decomposed.append(_decomposed(name, down_RI, up_OR, scored.scale))
        moment_II = of_inputs[name] / of_inputs[name].trace() * len(of_inputs[name])
        values, vectors = torch.linalg.eigh(moment_II + 1e-3 * torch.eye(len(moment_II)))
        roots[name] = [vectors @ torch.diag(values.clamp_min(1e-8) ** power) @ vectors.T for power in (0.5, -0.5)]
    all_values = torch.cat([layer.values_M for layer in decomposed]).sort(descending=True).values
    for rank in RANKS:
        plain_N = scored.predict(cut(run.adapter, [rank])[0].weights)
        weighted, shared = {}, {}
        for layer in decomposed:
            root_II, inverse_II = roots[layer.name]
            down_RI, up_OR = (scored.weights[_key(layer.name, part)].double() for part in "AB")
            (a, b) = (_key(layer.name, part) for part in "AB")
            one = _cut([_decomposed(layer.name, down_RI @ root_II, up_OR, scored.scale)], rank, 1.0).weights
            weighted |= {a: (one[a].double() @ inverse_II).float(), b: one[b]}
            kept = int((layer.values_M >= all_values[rank * len(decomposed) - 1]).sum())
            shared |= {key: weight * (kept > 0) for key, weight in _cut([layer], max(kept, 1), 1.0).weights.items()}
        scored.show(f"rank {rank}, weighted minus plain", scored.predict(weighted), plain_N)
        scored.show(f"rank {rank}, shared minus plain", scored.predict(shared), plain_N)


def nested() -> None:
    """Trains rank 8 with and without nesting, and prints the difference of their cuts at each of `NESTED`."""
    plain_step, generator = LabelTrainer.training_step, np.random.default_rng(0)

    def nested_step(self: Any, model: Any, *rest: Any, **named: Any) -> Any:
        rank = int(generator.choice(NESTED))
        ups = [weight for name, weight in model.named_parameters() if "lora_B" in name]
        kept = [weight.detach()[:, rank:].clone() for weight in ups]
        with torch.no_grad():
            for weight in ups:
                weight[:, rank:] = 0
        loss = plain_step(self, model, *rest, **named)
        with torch.no_grad():
            for weight, columns in zip(ups, kept, strict=True):
                weight[:, rank:] = columns
                if weight.grad is not None:
                    weight.grad[:, rank:] = 0
        return loss

    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for name, step in (("plain", plain_step), ("nested", nested_step)):
            LabelTrainer.training_step = step  # type: ignore[method-assign]
            given = [f"output={folder}", f"name={name}", "lora.r=8", "eval.baselines=off"]
            runs[name] = Run(Path(train(resolve(overrides=given), quiet=True).run))
        plain, columns = Scored(runs["plain"]), Scored(runs["nested"])
        for rank in NESTED:
            leading = {
                key: weight[:rank] if "lora_A" in key else weight[:, :rank] for key, weight in columns.weights.items()
            }
            plain_N = plain.predict(cut(runs["plain"].adapter, [rank])[0].weights)
            columns.show(f"rank {rank}, nested minus plain", columns.predict(leading, columns.scale), plain_N)


if __name__ == "__main__":
    nested() if sys.argv[1] == "--nested" else other_cuts(Run(Path(sys.argv[1])))
