"""The round trips are those of the papers' formulas, and a type of layer is all of its layers together."""

import pytest
import torch
from helpers.tiny import HEADS, SMALL, random_model
from transformers import LlamaConfig

from loraft.config.resolve import resolve
from loraft.delivery import quant_error
from loraft.delivery.quant_error import METHODS, LayerError, measure, round_trip, table
from loraft.display.page import cells

# Dettmers et al. 2023, "QLoRA", appendix E: the values of NF4.
NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip


def by_hand(weight: torch.Tensor) -> torch.Tensor:
    """Each weight becomes the level next to it, times the largest of its block of 64."""
    blocks = weight.reshape(-1, 64)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    nearest = ((blocks / scale)[..., None] - NF4).abs().argmin(dim=-1)
    return (NF4[nearest] * scale).reshape(weight.shape)


def random_weight(rows: int = 32, columns: int = 128) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def test_nf4_is_the_next_of_the_papers_levels_in_each_block() -> None:
    weight = random_weight()
    back, bits = round_trip(weight, "nf4", double_quant=False)
    torch.testing.assert_close(back, by_hand(weight))
    assert bits == weight.numel() * (4 + 32 / 64)  # an fp32 scale for 64 weights


def test_double_quantisation_stores_the_scales_in_8_bits() -> None:
    weight = random_weight(128, 128)
    back, bits = round_trip(weight, "nf4", double_quant=True)
    assert bits / weight.numel() == 4 + 8 / 64 + 32 / (64 * 256)  # 4.127, as in the paper's section 3
    assert not torch.equal(back, by_hand(weight))
    torch.testing.assert_close(back, by_hand(weight), rtol=0.02, atol=0.02)


def test_int8_is_the_tutorials_example() -> None:
    weight = torch.tensor([[0.3, -0.2, 1.5, -0.8], [0.0, 0.0, 0.0, 0.0], [0.01, 0.02, 0.03, 0.04]])
    back, bits = round_trip(weight, "int8", double_quant=True)
    assert [round(value, 3) for value in back[0].tolist()] == [0.295, -0.201, 1.5, -0.803]
    assert back[1].tolist() == [0.0] * 4
    assert float((back[2] - weight[2]).abs().max()) <= 0.04 / 254  # half a step of the row's own scale
    assert bits == 12 * 8 + 3 * 32


def test_the_layers_of_a_type_are_measured_together_and_the_head_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a width that is no multiple of 64, bitsandbytes 0.50 reads the scales wrongly on a CPU.
    base = random_model(LlamaConfig(**{**SMALL, **HEADS, "hidden_size": 64, "intermediate_size": 128}))
    monkeypatch.setattr(quant_error, "load_backbone", lambda model, quant: base)
    found = measure(resolve(overrides=["quant.double_quant=false"]))
    kinds = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert [(one.layer, one.method) for one in found] == [(kind, method) for kind in kinds for method in METHODS]
    weight = torch.cat([layer.mlp.down_proj.weight for layer in base.model.layers])  # (2 * 64, 128)
    error = by_hand(weight) - weight
    size = weight.square().mean().sqrt()
    nf4 = next(one for one in found if (one.layer, one.method) == ("down_proj", "nf4"))
    assert nf4.weights == weight.numel()
    assert nf4.rms == pytest.approx(float(error.square().mean().sqrt() / size), rel=1e-4)
    assert nf4.largest == pytest.approx(float(error.abs().max() / size), rel=1e-4)


def test_the_table_has_a_row_for_each_type_of_layer() -> None:
    found = [LayerError("q_proj", method, 1234, 4.5 + i, 0.09, 0.5) for i, method in enumerate(METHODS)]
    heads, rows = cells(table(found))
    assert heads[:3] == ["layers", "weights", "nf4 bits"]
    assert rows == [["q_proj", "1,234", "4.500", "9.00%", "5.500", "9.00%", "6.500", "9.00%"]]
