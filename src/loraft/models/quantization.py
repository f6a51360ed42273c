"""The backbone: tokenizer, base model, quantisation and the adapter on top of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loraft.errors import BackboneError


def keep_nf4_layout(model: torch.nn.Module) -> None:
    """Stops bitsandbytes from repacking CPU weights at the first evaluation.

    Its repacking rounds the block scales to bf16 and drops the double quantisation, so the frozen backbone would
    change between the first evaluation and the training after it, and scores with it.
    """
    import bitsandbytes as bnb

    for layer in model.modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            layer.support_avx512bf16_for_cpu = False


def check_nf4(model: torch.nn.Module, *, double_quant: bool) -> int:
    """Returns how many linear layers are stored in NF4.

    Raises:
        BackboneError: if none is, or if one is of another type or not nested although `double_quant` asks for it.
    """
    import bitsandbytes as bnb

    layers = {name: m for name, m in model.named_modules() if isinstance(m, bnb.nn.Linear4bit)}
    if not layers:
        raise BackboneError("quant.method: nf4 quantised no layer of this backbone; use --quant none")
    for name, layer in layers.items():
        state = layer.weight.quant_state
        if state is None or state.quant_type != "nf4" or bool(state.nested) != double_quant:
            raise BackboneError(f"quant: {name} is not stored as asked (nf4, double_quant={double_quant})")
    return len(layers)


@contextmanager
def no_compiler() -> Iterator[None]:
    """Keeps torch.compile from doing anything meanwhile, by the switch that torch has for it.

    bitsandbytes, which peft imports too, hands helpers to it while it is imported, and torch imports its whole
    compiler for that. They stand in where a device or a shape has no kernel, and then run as they are written.
    """
    switch = "TORCHDYNAMO_DISABLE"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        os.environ.pop(switch)
        if before is not None:
            os.environ[switch] = before
