"""What only a GPU shows of captured steps: graphs give the numbers of single kernels, and wait for nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training import fit, with_adapter

from loraft.training import captured_step
from loraft.training.captured_step import GraphRunner

pytestmark = pytest.mark.gpu


def trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, captures: bool, dtype: torch.dtype, architecture: str, **lora: Any
) -> tuple[list[float], list[torch.Tensor], int]:
    """Losses, weights, and the number of graphs, after 24 steps with evaluations in between."""
    runners = []
    own = GraphRunner.__init__

    def init(self: GraphRunner, device: torch.device) -> None:
        own(self, device)
        self.captures = captures
        runners.append(self)

    monkeypatch.setattr(GraphRunner, "__init__", init)
    model = with_adapter(architecture, **lora).to("cuda", dtype)
    losses = fit(folder, model, max_steps=24, eval_steps=12, learning_rate=1e-3, lr_scheduler_type="cosine")
    assert all(runner.captures == captures for runner in runners), "a capture failed"
    weights = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    return losses, weights, sum(len(runner._graphs) for runner in runners)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"target_modules": ["q_proj", "v_proj"], "use_rslora": True}),
    ("llama", {"modules_to_save": ["lm_head"]}),
    ("qwen2", {}),
    ("qwen3", {}),
    ("gemma2", {}),
]


@pytest.mark.parametrize(("architecture", "lora"), CASES)
def test_captured_steps_are_those_of_single_kernels(
    architecture: str, lora: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Any = {"dtype": torch.float32, "architecture": architecture, **lora}
    with monkeypatch.context() as patch:
        single = trained(tmp_path / "a", patch, captures=False, **settings)
    with monkeypatch.context() as patch:
        graphs = trained(tmp_path / "b", patch, captures=True, **settings)
    assert graphs[2] >= 2  # one size at least, and the update
    assert graphs[0] == pytest.approx(single[0], rel=1e-5)
    for own, right in zip(graphs[1], single[1], strict=True):
        torch.testing.assert_close(own, right, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_steps_with_dropout_are_captured_and_learn(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, _, graphs = trained(
        tmp_path, monkeypatch, captures=True, dtype=dtype, architecture="llama", lora_dropout=0.1
    )
    assert graphs >= 2
    assert losses[-1] < losses[0]


def test_a_small_number_of_graphs_gives_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Any = {"captures": True, "dtype": torch.float32, "architecture": "llama"}
    with monkeypatch.context() as patch:
        many = trained(tmp_path / "a", patch, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(captured_step, "MAX_GRAPHS", 1)
        few = trained(tmp_path / "b", patch, **settings)
    assert few[2] == 1
    assert few[0] == pytest.approx(many[0], rel=1e-5)


def test_nothing_in_a_step_waits_for_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = GraphRunner.run

    def strictly(self: GraphRunner, key: Any, function: Any) -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            run(self, key, function)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(GraphRunner, "run", strictly)
    assert len(fit(tmp_path, with_adapter().to("cuda"), max_steps=6)) == 6
