"""Triton kernels of attention by ranges of keys; `key_ranges` says what they compute and is their reference.

Forward pass and gradients follow FlashAttention-2: the probabilities of a block of queries and a block of keys exist
only inside a program. A block of queries visits the keys of the prefix and those from its first stretch on. A block of
keys visits the queries within its bounds. All sizes that depend on the data are read on the device, so one CUDA graph
serves every batch of a size. Nothing is added atomically: results are the same in every run.

Source: Dao 2023, https://arxiv.org/abs/2307.08691, algorithms 1 and 2

Letters as in `key_ranges`, and S parts of the queries that see a block of keys. A program holds tiles of BLOCK queries
and BLOCK keys. WIDTH is D rounded up to a power of two. Statistics of the softmax are in fp32 and to base 2.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from loraft.engine.layout import HeadCounts

if TYPE_CHECKING:
    from loraft.engine.key_ranges import KeyRanges

MOST_PARTS = 8  # the gradients of keys take fp32 buffers of this many times their size at most
# Small vectors that lie anywhere: their alignment must not make new compilations.
RANGES = ("ranges_ptr", "bounds_ptr", "prefix_ptr")
FEW_QUERIES = 1024  # up to here one program serves one query head, so that there are enough programs


def attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    ranges: "KeyRanges",
    copies: int,
    heads: HeadCounts,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the output (A * M, C * G * D), and for the gradient the logarithms of the softmax's sums (A * C * G, M).

    Args:
        queries: (A * M, C * G * D).
        keys: (A * L, C * D).
        values: as the keys.
        ranges: which keys each query sees.
        copies: A.
        heads: C and G.
        scale: factor of the logits.
    """
    queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
    count, size = queries.shape[0] // copies, keys.shape[1] // heads[0]
    out = torch.empty_like(queries)
    log_sums = queries.new_empty(copies * heads[0] * heads[1], count, dtype=torch.float32)
    width, block, launch = _launch(queries, size)
    _forward_kernel[triton.cdiv(count, block), len(log_sums)](
        queries, keys, values, ranges.queries_4M.contiguous(), ranges.prefix_1, out, log_sums, scale, count,
        keys.shape[0] // copies, C=heads[0], G=heads[1], D=size, WIDTH=width, BLOCK=block, **launch,
    )  # fmt: skip
    return out, log_sums


def attention_backward(
    grad: torch.Tensor,
    saved: Sequence[torch.Tensor],
    ranges: "KeyRanges",
    copies: int,
    heads: HeadCounts,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the gradients of queries, keys and values.

    Args:
        grad: gradient of the output.
        saved: queries, keys and values, and what `attention` returned for them.
        ranges, copies, heads, scale: as there.
    """
    grad, queries, keys, values, out, log_sums = (tensor.contiguous() for tensor in (grad, *saved))
    kv_heads, groups = heads
    count, key_count, size = len(queries) // copies, len(keys) // copies, keys.shape[1] // kv_heads
    width, block, launch = _launch(queries, size)
    sizes = dict(C=kv_heads, G=groups, D=size, WIDTH=width, BLOCK=block, **launch)
    d_queries, d_keys, d_values = torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)
    delta = torch.empty_like(log_sums)
    _query_grad_kernel[triton.cdiv(count, block), len(log_sums)](
        queries, keys, values, grad, out, ranges.queries_4M.contiguous(), ranges.prefix_1, log_sums, delta, d_queries,
        scale, count, key_count, **sizes,
    )  # fmt: skip

    # The prefix's keys are seen by all queries. So that few programs do not work much longer than the others, the
    # queries of a block of keys are dealt out in parts; a last kernel adds up what the parts and the heads gave.
    part_size = block * max(256 // block, triton.cdiv(count, block * MOST_PARTS))
    heads_each = 1 if copies * count <= FEW_QUERIES else groups
    parts = triton.cdiv(count, part_size) * (groups // heads_each)
    partial = torch.empty(2, parts, *keys.shape, dtype=torch.float32, device=keys.device)
    key_blocks, bounds = triton.cdiv(key_count, block), ranges.keys_2L.contiguous()
    _key_grad_kernel[key_blocks, copies * kv_heads, parts](
        queries, keys, values, grad, ranges.queries_4M.contiguous(), bounds, ranges.prefix_1, log_sums, delta, partial,
        scale, count, key_count, part_size, EACH=heads_each, **sizes,
    )  # fmt: skip
    _sum_parts_kernel[key_blocks, copies * kv_heads](
        partial, bounds, d_keys, d_values, scale, key_count, parts, part_size, EACH=heads_each, **sizes
    )
    return d_queries, d_keys, d_values


def _launch(tensor: torch.Tensor, size: int) -> tuple[int, int, dict[str, int]]:
    """Returns WIDTH, BLOCK and how a kernel is launched: tiles small enough for registers and shared memory."""
    width = max(16, triton.next_power_of_2(size))
    old = tensor.is_cuda and torch.cuda.get_device_capability(tensor.device) < (
        8,
        0,
    )  # Triton has no tensor cores there
    small = tensor.element_size() > 2 or width > 128 or old
    return width, 32 if small else 64, {"num_warps": 8 if width >= 128 else 4, "num_stages": 1 if small else 2}


@triton.jit
def _query_ranges(ranges_ptr, query, M):
    """Returns own, begin, first and stop of some queries; those beyond the last one see nothing."""
    inside = query < M
    own = tl.load(ranges_ptr + query, mask=inside, other=-1)
    begin = tl.load(ranges_ptr + M + query, mask=inside, other=1 << 30)
    first = tl.load(ranges_ptr + 2 * M + query, mask=inside, other=0)
    stop = tl.load(ranges_ptr + 3 * M + query, mask=inside, other=0)
    return own, begin, first, stop


@triton.jit
def _seen(key, own, begin, first, stop, prefix):
    """Returns whether queries see keys, as `key_ranges.visible`."""
    return (key <= own) & ((key < prefix) | (key >= begin) | ((key >= first) & (key < stop)))


@triton.jit
def _key_steps(own, begin, first, stop, prefix, BLOCK: tl.constexpr):
    """Returns which keys a block of queries visits.

    These are `prefix_steps` blocks from key 0 on, and then those between `low` and `high`, up to `steps` in all.
    """
    high = tl.max(own, 0) + 1
    low = tl.maximum(tl.min(tl.where(stop > first, first, begin), 0), prefix)
    prefix_steps = tl.cdiv(tl.minimum(prefix, high), BLOCK)
    return low, high, prefix_steps, prefix_steps + tl.cdiv(tl.maximum(high - low, 0), BLOCK)


@triton.jit
def _keys_of_step(step, low, high, prefix_steps, prefix, BLOCK: tl.constexpr):
    """Returns the keys of a step, and which of them belong to it."""
    in_prefix = step < prefix_steps
    start = tl.where(in_prefix, step * BLOCK, low + (step - prefix_steps) * BLOCK)
    key = start + tl.arange(0, BLOCK)
    return key, key < tl.where(in_prefix, prefix, high)


@triton.jit
def _tile(ptr, copy, count, token, inside, head, HEADS: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr):
    """Returns the pointers to a head of some tokens of a copy, (BLOCK, WIDTH), and which of them are valid."""
    feature = tl.arange(0, WIDTH)
    start = (copy.to(tl.int64) * count) * (HEADS * D) + head * D
    return (
        ptr + start + token[:, None] * (HEADS * D) + feature[None, :],
        inside[:, None] & (feature[None, :] < D),
    )


@triton.jit(do_not_specialize=["M", "L"], do_not_specialize_on_alignment=RANGES)
def _forward_kernel(
    q_ptr, k_ptr, v_ptr, ranges_ptr, prefix_ptr, out_ptr, log_sums_ptr, scale, M, L,
    C: tl.constexpr, G: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: a block of queries of one head."""
    copy, head = tl.program_id(1) // (C * G), tl.program_id(1) % (C * G)
    query = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    own, begin, first, stop = _query_ranges(ranges_ptr, query, M)
    prefix = tl.load(prefix_ptr)
    low, high, prefix_steps, steps = _key_steps(own, begin, first, stop, prefix, BLOCK)
    q_at, q_valid = _tile(q_ptr, copy, M, query, query < M, head, C * G, D, WIDTH)
    q = tl.load(q_at, mask=q_valid, other=0.0)

    # Logits that a query does not see are low but finite. A query that has seen none yet adds up nonsense, which is
    # multiplied by 0 at the first key that it sees; each query sees itself.
    top = tl.full([BLOCK], -1.0e30, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    mixed = tl.zeros([BLOCK, WIDTH], tl.float32)
    for step in range(steps):
        key, inside = _keys_of_step(step, low, high, prefix_steps, prefix, BLOCK)
        k_at, k_valid = _tile(k_ptr, copy, L, key, inside, head // G, C, D, WIDTH)
        v_at, v_valid = _tile(v_ptr, copy, L, key, inside, head // G, C, D, WIDTH)
        k = tl.load(k_at, mask=k_valid, other=0.0)
        v = tl.load(v_at, mask=v_valid, other=0.0)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * 1.4426950408889634)  # to base 2
        seen = _seen(key[None, :], own[:, None], begin[:, None], first[:, None], stop[:, None], prefix)
        logits = tl.where(seen & inside[None, :], logits, -1.0e30)
        new_top = tl.maximum(top, tl.max(logits, 1))
        probs = tl.exp2(logits - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(probs, 1)
        mixed = tl.dot(probs.to(v.dtype), v, mixed * shrink[:, None], input_precision="ieee")
        top = new_top

    out_at, out_valid = _tile(out_ptr, copy, M, query, query < M, head, C * G, D, WIDTH)
    tl.store(out_at, (mixed / total[:, None]).to(out_ptr.dtype.element_ty), mask=out_valid)
    tl.store(log_sums_ptr + tl.program_id(1) * M + query, top + tl.log2(total), mask=query < M)


@triton.jit(do_not_specialize=["M", "L"], do_not_specialize_on_alignment=RANGES)
def _query_grad_kernel(
    q_ptr, k_ptr, v_ptr, grad_ptr, out_ptr, ranges_ptr, prefix_ptr, log_sums_ptr, delta_ptr, d_q_ptr, scale, M, L,
    C: tl.constexpr, G: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: the gradient of a block of queries of one head; it also stores delta = sum(grad * out) of each."""
    copy, head = tl.program_id(1) // (C * G), tl.program_id(1) % (C * G)
    query = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    own, begin, first, stop = _query_ranges(ranges_ptr, query, M)
    prefix = tl.load(prefix_ptr)
    low, high, prefix_steps, steps = _key_steps(own, begin, first, stop, prefix, BLOCK)
    q_at, valid = _tile(q_ptr, copy, M, query, query < M, head, C * G, D, WIDTH)
    grad_at, grad_valid = _tile(grad_ptr, copy, M, query, query < M, head, C * G, D, WIDTH)
    out_at, out_valid = _tile(out_ptr, copy, M, query, query < M, head, C * G, D, WIDTH)
    q = tl.load(q_at, mask=valid, other=0.0)
    grad = tl.load(grad_at, mask=grad_valid, other=0.0)
    out = tl.load(out_at, mask=out_valid, other=0.0)
    statistics = tl.program_id(1) * M + query
    log_sum = tl.load(log_sums_ptr + statistics, mask=query < M, other=0.0)
    delta = tl.sum(grad.to(tl.float32) * out.to(tl.float32), 1)
    tl.store(delta_ptr + statistics, delta, mask=query < M)

    d_q = tl.zeros([BLOCK, WIDTH], tl.float32)
    for step in range(steps):
        key, inside = _keys_of_step(step, low, high, prefix_steps, prefix, BLOCK)
        k_at, k_valid = _tile(k_ptr, copy, L, key, inside, head // G, C, D, WIDTH)
        v_at, v_valid = _tile(v_ptr, copy, L, key, inside, head // G, C, D, WIDTH)
        k = tl.load(k_at, mask=k_valid, other=0.0)
        v = tl.load(v_at, mask=v_valid, other=0.0)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * 1.4426950408889634)
        seen = _seen(key[None, :], own[:, None], begin[:, None], first[:, None], stop[:, None], prefix)
        probs = tl.where(seen & inside[None, :], tl.exp2(logits - log_sum[:, None]), 0.0)
        d_probs = tl.dot(grad, tl.trans(v), input_precision="ieee")
        d_logits = probs * (d_probs - delta[:, None])
        d_q = tl.dot(d_logits.to(k.dtype), k, d_q, input_precision="ieee")
    d_q_at, d_q_valid = _tile(d_q_ptr, copy, M, query, query < M, head, C * G, D, WIDTH)
    tl.store(d_q_at, (d_q * scale).to(d_q_ptr.dtype.element_ty), mask=d_q_valid)


@triton.jit
def _bounds_of_keys(bounds_ptr, key, L):
    """Returns the first query that sees one of these keys, and the one behind the last."""
    low = tl.load(bounds_ptr + key, mask=key < L, other=1 << 30)
    high = tl.load(bounds_ptr + L + key, mask=key < L, other=0)
    return tl.min(low, 0), tl.max(high, 0)


@triton.jit(do_not_specialize=["M", "L", "part_size"], do_not_specialize_on_alignment=RANGES)
def _key_grad_kernel(
    q_ptr, k_ptr, v_ptr, grad_ptr, ranges_ptr, bounds_ptr, prefix_ptr, log_sums_ptr, delta_ptr, partial_ptr, scale,
    M, L, part_size, C: tl.constexpr, G: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    EACH: tl.constexpr,
):  # fmt: skip
    """One program: what one part of the queries, of EACH query heads, adds to the gradients of a block of keys.

    Tiles are transposed, keys before queries. A part without queries writes nothing, and `_sum_parts_kernel` reads
    nothing of it.
    """
    copy, kv_head = tl.program_id(1) // C, tl.program_id(1) % C
    part, head_part = tl.program_id(2) // (G // EACH), tl.program_id(2) % (G // EACH)
    key = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    low, high = _bounds_of_keys(bounds_ptr, key, L)
    start = low + part * part_size
    if start >= high:
        return
    prefix = tl.load(prefix_ptr)
    k_at, valid = _tile(k_ptr, copy, L, key, key < L, kv_head, C, D, WIDTH)
    v_at, v_valid = _tile(v_ptr, copy, L, key, key < L, kv_head, C, D, WIDTH)
    k = tl.load(k_at, mask=valid, other=0.0)
    v = tl.load(v_at, mask=v_valid, other=0.0)
    d_k = tl.zeros([BLOCK, WIDTH], tl.float32)
    d_v = tl.zeros([BLOCK, WIDTH], tl.float32)
    steps = tl.cdiv(tl.minimum(high - start, part_size), BLOCK)
    for step in range(steps * EACH):  # all queries of one head, then those of the next
        head = kv_head * G + head_part * EACH + step // steps
        query = start + (step % steps) * BLOCK + tl.arange(0, BLOCK)
        own, begin, first, stop = _query_ranges(ranges_ptr, query, M)
        q_at, q_valid = _tile(q_ptr, copy, M, query, query < M, head, C * G, D, WIDTH)
        grad_at, grad_valid = _tile(grad_ptr, copy, M, query, query < M, head, C * G, D, WIDTH)
        q = tl.load(q_at, mask=q_valid, other=0.0)
        grad = tl.load(grad_at, mask=grad_valid, other=0.0)
        statistics = (copy * (C * G) + head) * M + query
        log_sum = tl.load(log_sums_ptr + statistics, mask=query < M, other=0.0)
        delta = tl.load(delta_ptr + statistics, mask=query < M, other=0.0)
        logits = tl.dot(k, tl.trans(q), input_precision="ieee") * (scale * 1.4426950408889634)
        seen = _seen(key[:, None], own[None, :], begin[None, :], first[None, :], stop[None, :], prefix)
        probs = tl.where(seen, tl.exp2(logits - log_sum[None, :]), 0.0)
        d_v = tl.dot(probs.to(grad.dtype), grad, d_v, input_precision="ieee")
        d_probs = tl.dot(v, tl.trans(grad), input_precision="ieee")
        d_logits = probs * (d_probs - delta[None, :])
        d_k = tl.dot(d_logits.to(q.dtype), q, d_k, input_precision="ieee")
    size = tl.num_programs(1).to(tl.int64) * L * D  # of one part: A * L * C * D
    own_part = partial_ptr + tl.program_id(2) * size
    d_k_at, _ = _tile(own_part, copy, L, key, key < L, kv_head, C, D, WIDTH)
    d_v_at, _ = _tile(own_part + tl.num_programs(2) * size, copy, L, key, key < L, kv_head, C, D, WIDTH)
    tl.store(d_k_at, d_k, mask=valid)
    tl.store(d_v_at, d_v, mask=valid)


@triton.jit(do_not_specialize=["L", "parts", "part_size"], do_not_specialize_on_alignment=RANGES)
def _sum_parts_kernel(
    partial_ptr, bounds_ptr, d_k_ptr, d_v_ptr, scale, L, parts, part_size,
    C: tl.constexpr, G: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    """One program: the gradients of a block of keys and values of one head, the sum over all parts."""
    copy, kv_head = tl.program_id(1) // C, tl.program_id(1) % C
    key = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    low, high = _bounds_of_keys(bounds_ptr, key, L)
    filled = tl.cdiv(tl.maximum(high - low, 0), part_size) * (G // EACH)
    size = tl.num_programs(1).to(tl.int64) * L * D
    d_k = tl.zeros([BLOCK, WIDTH], tl.float32)
    d_v = tl.zeros([BLOCK, WIDTH], tl.float32)
    for part in range(filled):
        d_k_at, valid = _tile(partial_ptr + part * size, copy, L, key, key < L, kv_head, C, D, WIDTH)
        d_v_at, _ = _tile(partial_ptr + (parts + part) * size, copy, L, key, key < L, kv_head, C, D, WIDTH)
        d_k += tl.load(d_k_at, mask=valid, other=0.0)
        d_v += tl.load(d_v_at, mask=valid, other=0.0)
    out_k_at, out_valid = _tile(d_k_ptr, copy, L, key, key < L, kv_head, C, D, WIDTH)
    out_v_at, _ = _tile(d_v_ptr, copy, L, key, key < L, kv_head, C, D, WIDTH)
    tl.store(out_k_at, (d_k * scale).to(d_k_ptr.dtype.element_ty), mask=out_valid)
    tl.store(out_v_at, d_v.to(d_v_ptr.dtype.element_ty), mask=out_valid)
