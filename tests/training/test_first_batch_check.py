"""The first batch shows a method whose loss or gradient is wrong, and nothing but the method changes by the check."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.tiny import backbone
from helpers.training import PAD, SECTIONS, fit, rows, with_adapter
from peft import PeftModel

from loraft.config.schema import LoraSection
from loraft.engine import fused_layer, lora_linear, prefix_attention
from loraft.engine.collator import TrainingRow, first_rows, pack, unpack
from loraft.engine.loss import BatchMethod, answer_loss_sums
from loraft.errors import BackboneError
from loraft.models.adapter import add_adapter, add_adapters
from loraft.training.first_batch_check import CHECKED_ROWS, check_first_batch

FAST = [BatchMethod.FUSED, BatchMethod.ATTENTION, BatchMethod.MASK]


@contextmanager
def prepared(model: PeftModel, method: BatchMethod, adapters: list[str] | None = None) -> Iterator[None]:
    """Inside the block the model's layers are those of the method, as in `LabelTrainer.train`."""
    layers = fused_layer.enabled(model, adapters) if method is BatchMethod.FUSED else nullcontext()
    attention = nullcontext() if method is BatchMethod.MASK else prefix_attention.enabled(model.get_base_model())
    with layers, attention, lora_linear.enabled(model, adapters):
        yield


def check(
    model: PeftModel, method: BatchMethod, adapters: list[str] | None = None, dtype: torch.dtype = torch.float32
) -> BatchMethod:
    few = first_rows(pack(rows()), CHECKED_ROWS)

    def losses(chosen: BatchMethod) -> torch.Tensor:
        return answer_loss_sums(model, few, dtype, len(adapters or [0]), method=chosen)

    with prepared(model, method, adapters):
        return check_first_batch(model, unpack(few, PAD), losses, method, adapters, dtype=dtype)


def fresh(dtype: torch.dtype = torch.float32, **lora: Any) -> PeftModel:
    """A backbone with an adapter as training finds it: its B is zero."""
    section = LoraSection(r=4, target_modules="all-linear", **lora)
    return add_adapter(backbone().to(dtype), section, seed=1)


@pytest.mark.parametrize("method", FAST)
def test_a_right_method_passes_and_the_check_leaves_no_trace(method: BatchMethod) -> None:
    model = fresh(lora_dropout=0.5)  # dropout would make two right losses differ
    model.train()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    assert check(model, method) is method
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert all(weight.grad is None for weight in model.parameters())
    assert {module.training for module in model.modules()} == {True}


@pytest.mark.parametrize("method", FAST)
def test_a_wrong_low_rank_product_is_seen_though_b_is_zero(
    method: BatchMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_linear, "add_low_rank", lambda base, x, downs, ups, scales: (base, []))
    model = fresh()
    if method is BatchMethod.FUSED:  # the gradients of the wrong product are wrong as well
        with pytest.warns(UserWarning, match="differ from autograd"), pytest.warns(UserWarning, match="padded"):
            assert check(model, method) is BatchMethod.PADDED
    else:
        with pytest.warns(UserWarning, match=r"loss \d.* with shared prefix, \d.* goes on with padded batches"):
            assert check(model, method) is BatchMethod.PADDED


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
def test_losses_may_differ_by_rounding_only(dtype: torch.dtype, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = fresh(dtype), SimpleNamespace(wrong_by=0.0)
    right: Callable[..., torch.Tensor] = answer_loss_sums
    monkeypatch.setattr(sys.modules[__name__], "answer_loss_sums", lambda *a, **k: (1 + made.wrong_by) * right(*a, **k))
    for made.wrong_by in (0.5 * limit, -0.5 * limit):
        assert check(model, BatchMethod.MASK, dtype=dtype) is BatchMethod.MASK
    for made.wrong_by in (2 * limit, -2 * limit):
        with pytest.warns(UserWarning, match="padded batches"):
            assert check(model, BatchMethod.MASK, dtype=dtype) is BatchMethod.PADDED


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-3), (torch.bfloat16, 0.5)])
@pytest.mark.parametrize("kind", ["k_proj", "down_proj"])
def test_gradients_of_each_kind_of_projection_may_differ_by_rounding_only(
    kind: str, dtype: torch.dtype, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, made = fresh(dtype), SimpleNamespace(wrong_by=0.0)
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert any(kind in name for name in names)
    right: Callable[..., Any] = torch.autograd.grad
    calls: list[int] = []

    def grad(*args: Any, **named: Any) -> list[torch.Tensor]:
        calls.append(1)
        found = right(*args, **named)
        wrong = len(calls) % 2 == 0  # the first call is autograd's own, the second one that of the fused layers
        factors = [1 + made.wrong_by if wrong and kind in name else 1 for name in names]
        return [factor * gradient for factor, gradient in zip(factors, found, strict=True)]

    monkeypatch.setattr(torch.autograd, "grad", grad)
    for made.wrong_by in (0.5 * limit, -0.5 * limit):
        assert check(model, BatchMethod.FUSED, dtype=dtype) is BatchMethod.FUSED
    for made.wrong_by in (2 * limit, -2 * limit):
        with pytest.warns(UserWarning, match="differ from autograd"):
            assert check(model, BatchMethod.FUSED, dtype=dtype) is BatchMethod.ATTENTION


def test_a_batch_without_any_finite_loss_is_told_and_not_compared() -> None:
    model, names = add_adapters(backbone(), SECTIONS, seed=5)
    for adapters, given in ((None, fresh()), (names, model)):
        for name, weight in given.named_parameters():
            if "lora_A" in name:
                weight.data.fill_(float("nan"))
        with pytest.warns(UserWarning, match=r"first batch's loss is not finite \(got nan\), .* not checked"):
            assert check(given, BatchMethod.FUSED, adapters) is BatchMethod.FUSED


def test_adapters_that_train_together_are_compared_with_each_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, names = add_adapters(backbone(), SECTIONS, seed=5)
    assert check(model, BatchMethod.FUSED, names) is BatchMethod.FUSED
    assert model.base_model.active_adapters == names
    assert all(weight.requires_grad for name, weight in model.named_parameters() if "lora_" in name)

    def first_only(base: torch.Tensor, x: torch.Tensor, downs: Any, ups: Any, scales: Any) -> Any:
        return right(base, x, downs, [ups[0], *(0 * up for up in ups[1:])], scales)

    right = lora_linear.add_low_rank
    monkeypatch.setattr(lora_linear, "add_low_rank", first_only)
    with pytest.raises(BackboneError, match=r"does not agree with peft .*; use --joint off"):
        check(model, BatchMethod.ATTENTION, names)


# --- what the trainer does with it ------------------------------------------------------------------------------------


def test_a_training_with_wrong_gradients_goes_on_with_autograd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_layer, "rms_norm_backward", lambda grad, *rest: grad)
    with pytest.warns(UserWarning, match="differ from autograd"):
        broken = fit(tmp_path / "a", with_adapter())
    monkeypatch.setattr(fused_layer, "supports", lambda model: False)
    assert broken == pytest.approx(fit(tmp_path / "b", with_adapter()), rel=1e-5)


def test_a_training_with_a_wrong_product_goes_on_with_padded_batches_and_peft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_linear, "add_low_rank", lambda base, x, downs, ups, scales: (base, []))
    with pytest.warns(UserWarning, match="goes on with padded batches"):
        broken = fit(tmp_path / "a", with_adapter("qwen3"))
    assert broken == pytest.approx(fit(tmp_path / "b", with_adapter("qwen3"), shared_prefix="off"), rel=1e-5)


def test_a_training_with_a_wrong_prefix_goes_on_with_padded_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(batch: list[TrainingRow]) -> dict[str, torch.Tensor]:
        inputs = pack(batch)
        inputs["position_ids"] = inputs["position_ids"].flip(1)
        return inputs

    monkeypatch.setattr("loraft.engine.collator.pack", wrong)
    with pytest.warns(UserWarning, match="goes on with padded batches"):
        broken = fit(tmp_path / "a", with_adapter())
    assert broken == pytest.approx(fit(tmp_path / "b", with_adapter(), shared_prefix="off"), rel=1e-5)


def refuses(*args: Any, **kwargs: Any) -> Any:
    raise ValueError("too many values to unpack\n(in a layer)")


@pytest.mark.parametrize(("failing", "left"), [({"fused layers"}, "ATTENTION"), (set(FAST), "PADDED")])
def test_a_method_that_raises_is_a_wrong_one(failing: set[str], left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right: Callable[..., torch.Tensor] = answer_loss_sums

    def some(*args: Any, method: BatchMethod, **kwargs: Any) -> torch.Tensor:
        return refuses() if method in failing else right(*args, method=method, **kwargs)

    monkeypatch.setattr(sys.modules[__name__], "answer_loss_sums", some)
    model = fresh()
    with pytest.warns(UserWarning, match=r"too many values to unpack\W.* on this architecture"):
        assert check(model, BatchMethod.FUSED) is BatchMethod[left]
    assert not any(weight.count_nonzero() for name, weight in model.named_parameters() if "lora_B" in name)


def test_a_joint_training_that_raises_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, names = add_adapters(backbone(), SECTIONS, seed=5)
    monkeypatch.setattr(sys.modules[__name__], "answer_loss_sums", refuses)
    with pytest.raises(BackboneError, match=r"\(.*too many values to unpack\); use --joint off"):
        check(model, BatchMethod.ATTENTION, names)


def test_a_training_that_raises_goes_on_with_padded_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loraft.engine.loss.shared_prefix_mask", refuses)
    with pytest.warns(UserWarning, match=r"the shared prefix fails: too many .* goes on with padded batches"):
        broken = fit(tmp_path / "a", with_adapter("gemma2"))
    assert broken == pytest.approx(fit(tmp_path / "b", with_adapter("gemma2"), shared_prefix="off"), rel=1e-5)
