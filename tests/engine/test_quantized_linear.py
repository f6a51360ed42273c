"""4-bit layers are recognised, and their dense weight is the one that they multiply with."""

import bitsandbytes as bnb
import torch
from torch.nn.functional import linear

from loraft.engine.quantized_linear import dense_weight, is_4bit


def test_the_dense_weight_of_a_4bit_layer_is_what_it_multiplies_with() -> None:
    torch.manual_seed(0)
    layer = bnb.nn.Linear4bit(64, 32, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    own = layer.weight.data.clone()
    assert not is_4bit(layer)  # it is quantised when it comes to its device
    layer.to("cpu")
    assert is_4bit(layer)
    weight_OI = dense_weight(layer, torch.float32)
    assert weight_OI.dtype == torch.float32
    assert dense_weight(layer, torch.bfloat16).dtype == torch.bfloat16
    x_NI = torch.randn(3, 64)
    torch.testing.assert_close(linear(x_NI, weight_OI), layer(x_NI), rtol=1e-4, atol=1e-4)
    assert 0 < (weight_OI - own).norm() < 0.2 * own.norm()  # NF4 rounds


def test_other_layers_give_their_own_weight() -> None:
    layer = torch.nn.Linear(4, 3)
    assert dense_weight(layer, torch.float32) is layer.weight
    assert dense_weight(layer, torch.bfloat16).dtype == torch.bfloat16
    assert not is_4bit(layer)
    assert not is_4bit(torch.nn.ReLU())
