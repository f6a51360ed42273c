"""Counts the bytes of the tensors that live while code runs, without computing or allocating anything large.

The code runs over a model on torch's meta device, whose tensors have shapes and no data. Each operation of torch, also
in the backward pass, says which tensors it makes, and Python says when the last reference to one is gone. So the count
is that of the code itself: batches, fused layers, saved activations, copies in another dtype.

Indices, masks and token ids stay on the CPU and are computed, because shapes depend on them.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index)


class LiveBytes(TorchDispatchMode):
    """Counts live bytes inside a `with` block.

    Args:
        there: tensors that exist already; they, and views of them, are not counted.
        dense_bytes: of the tensors among them that are stored in 4 bits, by `untyped_storage()._cdata`: what their
            dequantised copy takes while an operation reads them.

    Attributes:
        peak: the most that lived at once, with the dequantised copies.
    """

    def __init__(self, there: Iterable[torch.Tensor], dense_bytes: dict[int, int] | None = None) -> None:
        super().__init__()
        self._now = self.peak = 0
        # Of each storage that was counted, and of those of them that are gone. Python drops what a signal raises while
        # it says that an object is gone, so no Python code may run there: the list's own append does not.
        self._living: dict[int, tuple[Any, int, int]] = {}
        self._gone: list[Any] = []
        self._kept = list(there)  # an address would be given again once its tensor is gone
        self._seen = {tensor.untyped_storage()._cdata for tensor in self._kept}
        self._dense_bytes = dense_bytes or {}

    @property
    def now(self) -> int:
        """Bytes that live at the moment."""
        while self._gone:
            _, address, size = self._living.pop(id(self._gone.pop()))
            self._now -= size
            self._seen.remove(address)
        return self._now

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation on the meta device, or on the CPU if it computes whole numbers from such."""
        kwargs = dict(kwargs or {})
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        on_meta = any(tensor.is_meta for tensor in tensors)
        if func is aten._local_scalar_dense.default and on_meta:
            return tensors[0].dtype.is_floating_point or 1  # any number: it says how a check ends, not what is made
        if on_meta and func.overloadpacket in INDEXING:
            args = (args[0], _without_masks(args[1]), *args[2:])
        if on_meta and not all(tensor.is_meta for tensor in tensors):
            args, kwargs = tree_map_only(torch.Tensor, _to_meta, (args, kwargs))
        if kwargs.get("device") is not None:
            floating = on_meta or _makes_floats(func, args, kwargs, tensors)
            kwargs["device"] = torch.device("meta" if floating else "cpu")
        if func is aten._grouped_mm.default:  # of experts; on the meta device it takes bf16 alone
            dtype = args[0].dtype
            args, kwargs = tree_map_only(torch.Tensor, _to_bf16, (args, kwargs))
            out = func(*args, **kwargs).to(dtype)
        else:
            out = func(*args, **kwargs)
        copies = {tensor.untyped_storage()._cdata for tensor in tensors}
        self._count(out, sum(self._dense_bytes.get(address, 0) for address in copies))
        return out

    def _count(self, out: Any, copies: int) -> None:
        now = self.now  # first, because a new storage may have the address of one that is gone
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._seen:
                    size = storage.nbytes()
                    self._seen.add(storage._cdata)
                    kept = weakref.ref(storage, self._gone.append)
                    self._living[id(kept)] = kept, storage._cdata, size
                    self._now += size
                    now += size
        self.peak = max(self.peak, now + copies)


@contextmanager
def as_on_a_device() -> Iterator[None]:
    """Inside the block torch's attention stores no probabilities, as on a CPU or a card; on meta tensors it would.

    And it can be told to compute in no other dtype, which it refuses for the meta device.
    """
    own, own_autocast = F.scaled_dot_product_attention, torch.autocast

    def autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device_type == "meta" else own_autocast(device_type, *args, **kwargs)

    def attention(*args: Any, **kwargs: Any) -> Any:
        if len(args) > 3 or kwargs.get("dropout_p"):  # the kernel of CPUs has no dropout
            return own(*args, **kwargs)
        given = {key: value for key, value in kwargs.items() if key in ("attn_mask", "is_causal", "scale")}
        if given.get("attn_mask") is not None:
            given["attn_mask"] = given["attn_mask"].to(args[0].dtype)  # of a boolean mask torch makes numbers
        return aten._scaled_dot_product_flash_attention_for_cpu(*args, **given)[0]

    vars(F)["scaled_dot_product_attention"], vars(torch)["autocast"] = attention, autocast
    try:
        yield
    finally:
        vars(F)["scaled_dot_product_attention"], vars(torch)["autocast"] = own, own_autocast


def _to_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_meta else tensor.to("meta")


def _to_bf16(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.bfloat16) if tensor.dtype.is_floating_point else tensor


def _without_masks(indices: Iterable[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """The indices, each boolean mask as the positions where it is true; of a mask without data, none is left out."""
    found: list[torch.Tensor | None] = []
    for index in indices:
        if index is None or index.dtype != torch.bool:
            found.append(index)
        elif index.is_meta:
            found.append(torch.arange(index.numel(), device="meta"))
        else:
            found += index.nonzero().unbind(1)
    return found


def _makes_floats(func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> bool:
    """Says whether an operation that is told a device makes floating-point numbers."""
    if kwargs.get("dtype") is not None:
        return bool(kwargs["dtype"].is_floating_point)
    if tensors:
        return bool(tensors[0].dtype.is_floating_point)
    counts = func.overloadpacket in (aten.arange, aten.full)
    return not counts or any(isinstance(one, float) for one in args)
