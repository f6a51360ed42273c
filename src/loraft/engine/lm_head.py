"""The end of a scoring pass, from the final norm on: for chosen tokens only, and in fp32 where the backbone is not.

bf16 has 8 significant bits. Logits of 16 to 32 are multiples of 1/8 in it, so labels tie, and their order would decide.
Here the last hidden states go through the final norm and the LM head in fp32, with weights cast up. What the model does
to logits afterwards (soft cap, scale) runs in its own code, on fp32 logits, and so does the caller's log-softmax.

Letters: B rows, T tokens of a row, Q tokens of a row that are kept, H hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.func import functional_call
from transformers import PreTrainedModel

from loraft.engine.layout import unwrap

CHUNK = 2**24  # weights of the LM head that are cast up at a time: 64 MiB in fp32
LOGITS = 2**25  # logits that exist at a time in `read_logits`, for each of a handful of copies: 128 MiB in fp32

# Makes what a caller needs, (B, R) of any dtype, from the logits (B, Q, V) of B rows; any B must do.
Read = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def exact_logits(model: PreTrainedModel, kept_BQ: torch.Tensor | None = None) -> Iterator[None]:
    """Inside the block the model computes its logits in fp32, (B, Q, V), for the given cells of each row.

    `logits_to_keep` of transformers can only choose the same cells for all rows.

    An fp32 head is left as it is. So is one that is quantised or of another class than `nn.Linear`: its logits keep the
    backbone's precision. An adapter on the head computes in fp32 like the head. A final norm that does not lead into
    the head directly (OPT-350m has a projection between) keeps the backbone's precision.

    Args:
        model: in evaluation mode; restored on exit.
        kept_BQ: cell numbers; None keeps all that reach the head.
    """
    base = unwrap(model)
    head = base.get_output_embeddings()
    linears = _low_precision_linears(head)
    norms = _outer_norms(base) if linears else []
    seen: list[tuple[Any, torch.Tensor, torch.Tensor]] = []  # norms that ran, their inputs and outputs

    def before_head(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        x_BTH = given[0]
        norm, source_BTH = next((item[:2] for item in seen if _same(item[2], x_BTH)), (None, x_BTH))
        seen.clear()
        if kept_BQ is not None:
            cells_BQ = kept_BQ.to(source_BTH.device)  # which is not the model's where its layers are spread
            rows_B1 = torch.arange(len(cells_BQ), device=cells_BQ.device)[:, None]
            source_BTH = source_BTH[rows_B1, cells_BQ]
        if norm is not None:
            weights = {name: weight.float() for name, weight in norm.named_parameters()}
            source_BTH = functional_call(norm, weights, (source_BTH.float(),))
        return (source_BTH.float() if linears else source_BTH, *given[1:])

    def after_norm(module: torch.nn.Module, given: tuple[torch.Tensor, ...], output: Any) -> None:
        if given and isinstance(output, torch.Tensor):  # some models have "Norm" in the name of their class
            seen.append((module, given[0], output))

    with ExitStack() as stack:
        for norm in norms:
            stack.callback(norm.register_forward_hook(after_norm).remove)
        stack.callback(head.register_forward_pre_hook(before_head).remove)
        for linear in linears:
            exact = partial(_exact_linear, linear)
            if _has_hook(linear):
                stack.callback(setattr, linear, "_old_forward", linear._old_forward)
                linear._old_forward = exact
            else:
                linear.forward = exact  # an instance attribute hides the class's method
                stack.callback(vars(linear).pop, "forward")
        yield


@contextmanager
def read_logits(model: PreTrainedModel, cells: int, read: Read) -> Iterator[None]:
    """Inside the block the model returns (B, R), what `read` makes of exact logits, in their place.

    The head runs some rows at a time, so memory stays within `LOGITS` however many rows there are.

    Args:
        model: one that does nothing to logits after the head, and hands it Q cells of each row, row by row.
        cells: Q.
        read: called with (some rows, Q, V).
    """
    head = unwrap(model).get_output_embeddings()
    vocabulary = unwrap(model).config.get_text_config().vocab_size
    with exact_logits(model):
        before, logits_of = vars(head).get("forward"), head.forward

        def forward(x: torch.Tensor) -> torch.Tensor:
            x_BQH = x.reshape(-1, cells, x.shape[-1])
            # An adapter on the head may serve several copies of the rows, which it finds only in the whole.
            size = max(1, LOGITS // (cells * vocabulary)) if type(head) is torch.nn.Linear else len(x_BQH)
            return torch.cat([read(logits_of(part)) for part in x_BQH.split(size)])

        head.forward = forward
        try:
            yield
        finally:
            del head.forward
            if before is not None:
                head.forward = before


def _low_precision_linears(head: torch.nn.Module) -> list[Any]:
    """Returns the linear layers of a head (itself, or those below an adapter's wrapper) that must be cast up.

    Empty if the head is in fp32, or if not all of its weights belong to plain linear layers.
    """
    linears = [
        module
        for module in head.modules()
        if type(module) is torch.nn.Linear and ("forward" not in vars(module) or _has_hook(module))
    ]
    theirs = {id(weight) for linear in linears for weight in linear.parameters()}
    if any(id(weight) not in theirs for weight in head.parameters()):
        return []
    return linears if any(linear.weight.dtype != torch.float32 for linear in linears) else []


def _has_hook(module: torch.nn.Module) -> bool:
    """Says whether accelerate has hidden the forward method to carry inputs to the module's device."""
    return "_hf_hook" in vars(module)


def _outer_norms(base: torch.nn.Module) -> list[torch.nn.Module]:
    """Returns the norms that belong to no layer: layers stand in lists, so their names contain numbers."""
    return [
        module
        for name, module in base.named_modules()
        if "norm" in type(module).__name__.lower() and not any(part.isdecimal() for part in name.split("."))
    ]


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Says whether two tensors are the same; Mamba rounds the first to the dtype of the second."""
    if one.shape != other.shape:
        return False
    # Mostly the second is the first or a view of it; only to compare values would a GPU have to be waited for.
    return bool(one.data_ptr() == other.data_ptr() or torch.equal(one.to(other.dtype), other))


def _exact_linear(linear: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """The forward method in fp32; the weights are cast up chunk by chunk, since the head may take a gigabyte."""
    with torch.autocast(x.device.type, enabled=False):
        if x.is_cuda and linear.weight.dtype == torch.bfloat16:
            out = split_product(x.float().flatten(0, -2), linear.weight).unflatten(0, x.shape[:-1])
        else:
            chunks = linear.weight.split(max(1, CHUNK // linear.in_features))
            out = torch.cat([F.linear(x.float(), chunk.float()) for chunk in chunks], dim=-1)
    return out if linear.bias is None else out.add_(linear.bias.float())


def split_product(x_NH: torch.Tensor, weight_VH: torch.Tensor) -> torch.Tensor:
    """Returns x W^T in fp32 for fp32 x and bf16 W, (N, V), by bf16 products: on a GPU these are ten times as fast.

    x is the sum of three bf16 numbers exactly, since 3 times 8 significant bits are the 24 of fp32. Products of bf16
    numbers are exact in fp32, and sums are in fp32, so the result is as exact as that of an fp32 product.
    """
    out = []
    for part_NH in x_NH.split(max(1, LOGITS // len(weight_VH))):
        high = part_NH.bfloat16()
        middle = (part_NH - high).bfloat16()
        parts_SH = torch.cat([high, middle, (part_NH - high - middle).bfloat16()])  # S = 3 N
        if x_NH.is_cuda:
            sums_SV = torch.mm(parts_SH, weight_VH.t(), out_dtype=torch.float32)
        else:
            sums_SV = torch.mm(parts_SH.float(), weight_VH.t().float())
        out.append(sums_SV.view(3, len(part_NH), -1).sum(0))
    return torch.cat(out)
