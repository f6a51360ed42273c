from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.finished_runs import finished_run
from helpers.tiny import SENTENCES

from loraft.delivery.merged_model import merged_model
from loraft.engine import scorer
from loraft.models.load import load_run
from loraft.runs.bundle import config_of
from loraft.runs.run import Run


def scores(run: Run, model: torch.nn.Module, encoder: object) -> np.ndarray:
    prompts = [prompt.ids for prompt in encoder.encode(SENTENCES)]  # type: ignore[attr-defined]
    return scorer.score(model, prompts, encoder.completions_K, unscored=encoder.unscored)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "overrides",
    [
        ["lora.use_rslora=true"],
        ["lora.use_dora=true", "lora.target_modules=all-linear"],
        ["quant.method=nf4", "quant.compute_dtype=fp32"],
        ["lora.modules_to_save=[lm_head]"],
    ],
    ids=["rslora", "dora", "nf4", "a copied head"],
)
def test_the_merged_model_scores_as_the_adapter_does(tmp_path: Path, overrides: list[str]) -> None:
    run = finished_run(tmp_path, *overrides)
    config = config_of(run)
    encoder, model = merged_model(run, config)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    _, adapted = load_run(run, config)
    with adapted.disable_adapter():  # type: ignore[operator]
        bare = scores(run, adapted, encoder)
    expected = scores(run, adapted, encoder)
    assert np.abs(bare - expected).max() > 0.01  # the adapter matters
    np.testing.assert_allclose(scores(run, model, encoder), expected, atol=1e-4)
    model.save_pretrained(tmp_path / "merged")
    again = type(model).from_pretrained(tmp_path / "merged").eval()
    np.testing.assert_allclose(scores(run, again, encoder), expected, atol=1e-4)


def test_the_original_weights_are_another_base_than_the_dequantised_ones(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "quant.method=nf4", "lora.target_modules=[q_proj]")
    config = config_of(run)
    _, dequantised = merged_model(run, config)
    _, original = merged_model(run, config, base="original", dtype="bf16")
    backbone = type(original).from_pretrained(tmp_path / "backbone")
    name = "model.layers.0.mlp.up_proj"  # without adapter
    weight = backbone.get_submodule(name).weight
    assert torch.equal(original.get_submodule(name).weight, weight.bfloat16())
    assert not torch.equal(dequantised.get_submodule(name).weight, weight)
