"""The elementwise kernels equal `fused_operations`, in Triton's interpreter, and compiled where there is a GPU."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.kernels import DEVICE, import_triton

from loraft.engine import fused_operations
from loraft.engine.fused_operations import gated_silu, gated_silu_backward, rms_norm, rms_norm_backward, rotate

import_triton()

SMALL = [pytest.param(torch.float32, 24, 5, 1e-6), pytest.param(torch.bfloat16, 24, 5, 2e-2)]
REAL = [
    pytest.param(dtype, size, 2400, tolerance, marks=pytest.mark.gpu)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2))
    for size in (2048, 4096)
]


def drawn(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE).to(dtype)


def assert_same(compute: Callable[[], Any], tolerance: float) -> None:
    """The same call gives the same with and without kernels, up to rounding."""
    results = []
    for kernels in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fused_operations, "has_kernels", lambda device, kernels=kernels: kernels)
            results.append(compute())
    for right, found in zip(*results, strict=True):
        assert found.dtype == right.dtype
        assert (found.float() - right.float()).abs().max() <= tolerance * max(1, right.abs().max().item())


@pytest.mark.parametrize(("dtype", "size", "count", "tolerance"), [*SMALL, *REAL])
@pytest.mark.parametrize("adds", [False, True])
def test_norm_and_residual(dtype: torch.dtype, size: int, count: int, tolerance: float, adds: bool) -> None:
    torch.manual_seed(0)
    norm = SimpleNamespace(weight=drawn(size, dtype=dtype), variance_epsilon=0.1)
    x, residual, grad = (drawn(count, size, dtype=dtype) for _ in range(3))

    def compute() -> list[torch.Tensor]:
        normed, total, saved = rms_norm(x.clone(), norm, residual if adds else None)
        return [normed, total, rms_norm_backward(grad, saved, norm, residual if adds else None)]

    assert_same(compute, tolerance)


@pytest.mark.parametrize(("dtype", "size", "count", "tolerance"), [*SMALL, *REAL])
@pytest.mark.parametrize("sign", [1, -1])
def test_rotation(dtype: torch.dtype, size: int, count: int, tolerance: float, sign: int) -> None:
    torch.manual_seed(0)
    head = size // 3 if size % 3 == 0 else 64
    queries, keys = drawn(3, size, dtype=dtype), drawn(2 * count, head, dtype=dtype)
    angles = drawn(count, 1, head // 2, dtype=torch.float32).repeat(1, 1, 2)
    tables = [angles.cos().to(dtype), angles.sin().to(dtype)]
    for_queries = [table[[4, 0, 2]] for table in tables]
    assert_same(lambda: rotate(queries.clone(), keys.clone(), for_queries, tables, sign), tolerance)


@pytest.mark.parametrize(("dtype", "size", "count", "tolerance"), [*SMALL, *REAL])
def test_gated_activation(dtype: torch.dtype, size: int, count: int, tolerance: float) -> None:
    torch.manual_seed(0)
    gate, up, grad = (drawn(count, 4 * size, dtype=dtype) for _ in range(3))
    assert_same(lambda: [gated_silu(gate, up), *gated_silu_backward(grad.clone(), gate, up)], tolerance)
