"""Static steps, run on the CPU without graphs: losses, gradients, weights and checkpoints of the usual steps."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from helpers.tiny import backbone, tokenizer
from helpers.training import PAD, fit, loss_and_gradients, rows, with_adapter
from peft import PeftModel
from torch.utils._python_dispatch import TorchDispatchMode

from loraft.config.schema import LoraSection, TrainConfig
from loraft.engine import fused_layer, lora_linear
from loraft.engine.adapter_stack import AdapterStack
from loraft.engine.collator import pad
from loraft.engine.loss import BatchMethod, static_loss_sums
from loraft.engine.static_batch import Size, static_batch, token_bucket
from loraft.errors import Note
from loraft.models.adapter import add_adapter, add_adapters
from loraft.training import batch_method, captured_step, memory
from loraft.training import trainer as trainer_module
from loraft.training.captured_step import GraphRunner
from loraft.training.dataset import TrainingData
from loraft.training.flat_adamw import FlatAdamW
from loraft.training.joint_adapters import JointAdapters
from loraft.training.joint_trainer import JointTrainer
from loraft.training.trainer import LabelTrainer


@pytest.fixture
def static(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings on the CPU take static steps."""
    monkeypatch.setattr(batch_method, "STATIC_DEVICES", {"cpu"})


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "method"), [("llama", "FUSED"), ("llama", "MASK"), ("qwen3", "MASK")])
@pytest.mark.parametrize("count", [1, 6])
def test_a_static_batch_has_the_loss_and_gradients_of_a_padded_one(architecture: str, method: str, count: int) -> None:
    model, batch = with_adapter(architecture), rows("balanced")[:count]
    loss, gradients = loss_and_gradients(model, pad(batch, PAD))
    model.zero_grad()
    inputs = static_batch(batch, kept=40, copies=1).inputs  # more targets than there are
    with fused_layer.enabled(model) if method == "FUSED" else lora_linear.enabled(model):
        found = static_loss_sums(model, inputs, torch.float32, method=BatchMethod[method])
    found.sum().backward()
    assert found.item() == pytest.approx(loss, rel=1e-5)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-4, atol=1e-5)


def test_sizes_come_back_and_a_vector_holds_all_fields() -> None:
    batches = [static_batch(rows()[i : i + 2], kept=12, copies=3).inputs for i in range(4)]
    assert {batch.size for batch in batches} == {Size(batches[0].size.tokens, 12, 3)}
    assert len(batches[0].vector) == sum(batches[0].size.numbers().values())
    for count in (1, 31, 32, 33, 500, 513, 2300):
        assert count <= token_bucket(count) < count + max(count / 8, 32)
        assert token_bucket(token_bucket(count)) == token_bucket(count)


# --- trainings --------------------------------------------------------------------------------------------------------


def weights(model: PeftModel) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters() if p.requires_grad]


SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({}, {"gradient_accumulation_steps": 2, "shared_prefix": "auto", "max_steps": 4}),
    ({"use_rslora": True, "lora_alpha": 4}, {"weight_decay": 0.1, "lr_scheduler_type": "cosine"}),
    ({"modules_to_save": ["lm_head"]}, {"max_grad_norm": 0.05}),
    ({"use_dora": True, "target_modules": ["q_proj"]}, {}),
]


@pytest.mark.parametrize(("lora", "train"), SETTINGS)
def test_static_steps_are_the_usual_ones(
    lora: dict[str, Any], train: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, ours = with_adapter(**lora), with_adapter(**lora)
    expected = fit(tmp_path / "a", usual, **train)
    monkeypatch.setattr(batch_method, "STATIC_DEVICES", {"cpu"})
    assert fit(tmp_path / "b", ours, **train) == pytest.approx(expected, rel=1e-5)
    for own, right in zip(weights(ours), weights(usual), strict=True):
        torch.testing.assert_close(own, right, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("order", ["static first", "usual first"])
def test_a_checkpoint_goes_on_with_either_kind_of_step(
    order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"lr_scheduler_type": "constant", "weight_decay": 0.1}
    expected = fit(tmp_path / "whole", with_adapter(), **settings)
    kinds = [{"cpu"}, set()] if order == "static first" else [set(), {"cpu"}]
    monkeypatch.setattr(batch_method, "STATIC_DEVICES", kinds[0])
    fit(tmp_path / "run", with_adapter(), max_steps=3, **settings)
    monkeypatch.setattr(batch_method, "STATIC_DEVICES", kinds[1])
    found = fit(tmp_path / "run", with_adapter(), resume=True, **settings)
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_state_without_a_step_leaves_the_optimizer_as_new() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 3))
    plain = torch.optim.AdamW([weight], fused=True)
    run: Any = lambda key, function: function()  # noqa: E731
    flat = FlatAdamW([{"params": [weight]}], max_grad_norm=1.0, separately=False, scaler=None, run=run)
    flat.load_state_dict(plain.state_dict())
    flat.add_gradients([torch.ones(2, 3)])
    flat.step()
    assert flat.state_dict()["state"][0]["step"] == 1
    assert float(weight.detach().max()) < 1


def test_memory_that_is_short_runs_the_layers_that_can_be_recomputed(
    static: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recomputed(model: Any, rows: Any, sizes: Any, adapters: int, *, packed: bool, recompute: bool) -> int | None:
        return sizes[0] if recompute else None

    monkeypatch.setattr(memory, "largest_fit", recomputed)
    data = TrainingData(rows(), tokenizer(), lambda current: {"macro_f1": 0.5})
    section = TrainConfig(max_steps=1, per_device_train_batch_size=2)
    with pytest.warns(Note):
        trainer = LabelTrainer.build(with_adapter(), data, section, output_dir=str(tmp_path), seed=3)
    assert trainer.args.activation_checkpointing
    assert trainer.method is BatchMethod.ATTENTION
    assert not trainer.static


def test_bf16_steps_read_low_precision_copies_and_give_them_up_at_the_end(static: None, tmp_path: Path) -> None:
    model = with_adapter().to(torch.bfloat16)
    losses = fit(tmp_path, model)
    assert losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    assert not any(hasattr(p, "low_precision") for p in model.parameters())


def test_joint_static_steps_train_each_adapter_as_alone(static: None, tmp_path: Path) -> None:
    sections = [LoraSection(r=r, lora_alpha=8, target_modules="all-linear") for r in (2, 8)]
    model, names = add_adapters(backbone(), sections, seed=5)
    lines: list[list[dict[str, Any]]] = [[], []]
    joint = JointAdapters(names, [1e-2, 5e-3], tmp_path / "best", lambda number, line: lines[number].append(line))
    joint.best.mkdir()
    section = TrainConfig(
        max_steps=6, per_device_train_batch_size=2, logging_steps=1, eval_steps=3, warmup_steps=0, learning_rate=1e-2,
        max_grad_norm=0.5,
    )  # fmt: skip
    data = TrainingData(rows("balanced"), tokenizer(), lambda current: {"macro_f1": 0.5})
    trainer = JointTrainer.build(model, data, section, output_dir=str(tmp_path / "joint"), seed=3, joint=joint)
    with patch.object(AdapterStack, "add_gradients", autospec=True, side_effect=AdapterStack.add_gradients) as added:
        trainer.train()
    assert added.call_count == 6
    assert not any(hasattr(module, "stack") for module in model.modules())
    for number, (lora, rate) in enumerate(zip(sections, (1e-2, 5e-3), strict=True)):
        alone = add_adapter(backbone(), lora, seed=5)
        losses = fit(tmp_path / str(number), alone, learning_rate=rate, max_grad_norm=0.5)
        assert [line["loss"] for line in lines[number] if "loss" in line] == pytest.approx(losses, rel=1e-4)


def test_padded_batches_between_packed_ones_compute_with_the_newest_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bf16 both kinds of batch read copies of the weights; a stale copy shows after the first update."""
    long = sorted(len(row.input_ids) for row in rows("balanced"))[2]
    monkeypatch.setattr(trainer_module, "longest_fast_row", lambda model: (long, "made up"))
    expected = fit(tmp_path / "a", with_adapter().to(torch.bfloat16), per_device_train_batch_size=1)
    monkeypatch.setattr(batch_method, "STATIC_DEVICES", {"cpu"})
    found = fit(tmp_path / "b", with_adapter().to(torch.bfloat16), per_device_train_batch_size=1)
    assert found == pytest.approx(expected, rel=0.02)


def test_fp16_steps_leave_out_a_step_whose_gradients_overflow(static: None, tmp_path: Path) -> None:
    model = with_adapter().to(torch.float16)
    section = TrainConfig(max_steps=4, per_device_train_batch_size=2, warmup_steps=0, learning_rate=1e-2)
    data = TrainingData(rows(), tokenizer(), lambda current: {"macro_f1": 0.5})
    trainer = LabelTrainer.build(model, data, section, output_dir=str(tmp_path), seed=3)
    scaler = trainer.accelerator.scaler
    assert scaler is not None
    before = weights(model)
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, FlatAdamW)
    scale = scaler.get_scale()
    for gradient in (float("inf"), scale):  # the second one is 1 after unscaling
        optimizer.add_gradients([torch.full_like(weight, gradient) for weight in before])
        optimizer.step()
        changed = not all(map(torch.equal, weights(model), before))
        assert changed == (gradient == scale)
        assert scaler.get_scale() == scale / 2
    trainer.train()
    assert all(bool(weight.isfinite().all()) for weight in weights(model))


# --- what a graph must not do -----------------------------------------------------------------------------------------


class NoWaiting(TorchDispatchMode):
    """Refuses what waits for a GPU: reading a value, and results whose size depends on values."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "item")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        index = args[1] if name in ("index", "index_put_", "index_put") else ()
        if name in self.WAITS or any(i is not None and i.dtype == torch.bool for i in index):
            raise AssertionError(f"a step waits for the device: {name}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_step_never_waits_for_the_device(
    architecture: str, dropout: float, static: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []

    def run(self: GraphRunner, key: Any, function: Any) -> None:
        keys.append(key)
        with NoWaiting():
            function()

    monkeypatch.setattr(GraphRunner, "run", run)
    fit(tmp_path, with_adapter(architecture, lora_dropout=dropout), max_steps=3)
    assert keys[1::2] == ["update"] * 3
    assert len(set(keys[::2])) < 3  # sizes come back


class FakeGraph:
    """Stands for a CUDA graph: it notes that it is captured, and replays by running the function again."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[FakeGraph]:
    made: list[FakeGraph] = []

    def new() -> FakeGraph:
        made.append(FakeGraph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", new)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    return made


def test_a_function_runs_once_is_captured_at_its_second_run_and_replayed_from_then_on(graphs: list[FakeGraph]) -> None:
    runner, runs = GraphRunner(torch.device("cuda")), []
    for _ in range(4):
        runner.run("a", lambda: runs.append("a"))
    runner.run("b", lambda: runs.append("b"))
    assert runs == ["a", "a", "b"]  # the second run of a is the capture, which computes nothing
    assert [graph.replays for graph in graphs] == [3]


def test_graphs_are_bounded_and_the_one_used_longest_ago_is_dropped(
    graphs: list[FakeGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured_step, "MAX_GRAPHS", 2)
    runner = GraphRunner(torch.device("cuda"))
    for key in "aabbaccb":
        runner.run(key, lambda: None)
    assert [graph.replays for graph in graphs] == [2, 1, 1, 1]  # a, b, c in place of b, b again in place of a


def test_what_cannot_be_captured_runs_as_usual_and_is_told_once(
    graphs: list[FakeGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(graph: FakeGraph, pool: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuses)
    runner, runs = GraphRunner(torch.device("cuda")), []
    runner.run("a", lambda: runs.append("a"))
    with pytest.warns(Note, match="cannot be captured.*stream is capturing"):
        runner.run("a", lambda: runs.append("a"))
    runner.run("b", lambda: runs.append("b"))
    runner.run("b", lambda: runs.append("b"))
    assert runs == ["a", "a", "b", "b"]


# --- what only a GPU shows --------------------------------------------------------------------------------------------


def trained_on_a_gpu(
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


@pytest.mark.gpu
@pytest.mark.parametrize(("architecture", "lora"), CASES)
def test_captured_steps_are_those_of_single_kernels(
    architecture: str, lora: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Any = {"dtype": torch.float32, "architecture": architecture, **lora}
    with monkeypatch.context() as patch:
        single = trained_on_a_gpu(tmp_path / "a", patch, captures=False, **settings)
    with monkeypatch.context() as patch:
        graphs = trained_on_a_gpu(tmp_path / "b", patch, captures=True, **settings)
    assert graphs[2] >= 2  # one size at least, and the update
    assert graphs[0] == pytest.approx(single[0], rel=1e-5)
    for own, right in zip(graphs[1], single[1], strict=True):
        torch.testing.assert_close(own, right, rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_steps_with_dropout_are_captured_and_learn(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, _, graphs = trained_on_a_gpu(
        tmp_path, monkeypatch, captures=True, dtype=dtype, architecture="llama", lora_dropout=0.1
    )
    assert graphs >= 2
    assert losses[-1] < losses[0]


@pytest.mark.gpu
def test_a_small_number_of_graphs_gives_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Any = {"captures": True, "dtype": torch.float32, "architecture": "llama"}
    with monkeypatch.context() as patch:
        many = trained_on_a_gpu(tmp_path / "a", patch, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(captured_step, "MAX_GRAPHS", 1)
        few = trained_on_a_gpu(tmp_path / "b", patch, **settings)
    assert few[2] == 1
    assert few[0] == pytest.approx(many[0], rel=1e-5)


@pytest.mark.gpu
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
