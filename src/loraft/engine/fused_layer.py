"""A Llama decoder layer over rows that share a prefix, in as few operations as it takes, with its gradient by hand.

A step of a small model, or of a few rows on a GPU, spends much of its time between operations and on small ones; and of
what a layer computes, much is never read. Here a layer is one node of autograd's graph: no cast, view or sum in it has
a node of its own, the keys and values of the prefix are never copied for a row, the last layer runs its queries and
its feed-forward part only where the LM head will look, and the first layer's input, which nothing trains, gets no
gradient. Projections are the modules that they are, so NF4, biases and adapters are as elsewhere.

Layers that this is not written for keep their own forward; `prefix_attention` serves those. The tests compare loss,
gradients and scores with padded batches and with plain forward passes.

Suffixes: N tokens of all packed rows, Q those that ask, D head size, H hidden size, F features of any kind; what
attention multiplies is (heads, tokens, D) or (heads, queries, keys), the heads counted as `layouts.Heads` says.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from loraft.engine.layout import Layout, bare

LAYERS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _scaled(left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.baddbmm(left.new_zeros(1, 1, 1), left, right, beta=0, alpha=scale)


def _norm(x_NH: torch.Tensor, norm: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns weight * x / rms(x), x / rms(x), and 1 / rms(x) in fp32 (Zhang and Sennrich 2019)."""
    wide_NH = x_NH.float()
    rstd_N1 = torch.rsqrt(wide_NH.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    hat_NH = (wide_NH * rstd_N1).to(x_NH.dtype)
    return norm.weight * hat_NH, hat_NH, rstd_N1


def _norm_back(grad_NH: torch.Tensor, hat_NH: torch.Tensor, rstd_N1: torch.Tensor, norm: Any) -> torch.Tensor:
    wide_NH, hat = (grad_NH * norm.weight).float(), hat_NH.float()
    share_N1 = (wide_NH * hat).mean(-1, keepdim=True)
    return torch.addcmul(wide_NH, hat, share_N1, value=-1).mul_(rstd_N1).to(grad_NH.dtype)


def _rotate(x_NF: torch.Tensor, cos_N1D: torch.Tensor, sin_N1D: torch.Tensor, sign: int = 1) -> torch.Tensor:
    """Rotary embedding (Su et al. 2021); sign -1 is the transposed rotation, which the gradient takes."""
    x_NhD = x_NF.view(len(x_NF), -1, cos_N1D.shape[-1])
    left, right = x_NhD.chunk(2, -1)
    return torch.addcmul(x_NhD * cos_N1D, torch.cat([-right, left], -1), sin_N1D, value=sign).view_as(x_NF)


class _Layer:
    """One decoder layer: its forward pass over a layout, and its gradient.

    Args:
        last: no other layer follows.
        adapters: as in `lowrank.enabled`.
    """

    def __init__(self, module: Any, *, last: bool, adapters: Sequence[str] | None) -> None:
        own: Any = module.forward
        self.plain: Any = own.plain if isinstance(own, _Layer) else own
        self.last, self.adapters = last, adapters
        attention, mlp = module.self_attn, module.mlp
        self.number, self.scale, self.size = attention.layer_idx, attention.scaling, attention.head_dim
        self.norms = module.input_layernorm, module.post_attention_layernorm
        self.projections = {name: getattr(mlp if hasattr(mlp, name) else attention, name) for name in PROJECTIONS}

    def __call__(
        self,
        hidden_states: torch.Tensor,
        *args: Any,
        layout: Layout | None = None,
        position_embeddings: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Stands in for the module's own forward, which is taken where there is no layout."""
        if layout is None:
            out: torch.Tensor = self.plain(hidden_states, *args, position_embeddings=position_embeddings, **kwargs)
            return out
        rows = hidden_states.shape[0]
        x_NH = hidden_states.flatten(0, 1)
        cos, sin = (table.expand(rows, -1, -1).flatten(0, 1)[:, None] for table in position_embeddings)
        if torch.is_grad_enabled():
            from loraft.engine import lora_linear  # and with it peft, which prediction does without

            weights = lora_linear.weights(self.projections.values(), self.adapters)
            out_NH = _Fused.apply(x_NH, self, layout, cos, sin, *weights)
        else:
            out_NH = self.compute(x_NH, layout, cos, sin, lambda name, x_NF: self.projections[name](x_NF))[0]
        return out_NH.view(rows, -1, out_NH.shape[-1])

    def compute(
        self,
        x_NH: torch.Tensor,
        layout: Layout,
        cos_N1D: torch.Tensor,
        sin_N1D: torch.Tensor,
        project: Callable[[str, torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Returns the layer's output, of the kept tokens alone if it is the last one, and what the gradient needs."""
        first_NH, hat1_NH, rstd1_N1 = _norm(x_NH, self.norms[0])
        keys_NF = _rotate(project("k_proj", first_NH), cos_N1D, sin_N1D)
        values_NF = project("v_proj", first_NH)
        x_NH, asking_NH, cos_Q1D, sin_Q1D = self._asking(layout, x_NH, first_NH, cos_N1D, sin_N1D)
        queries_NF = _rotate(project("q_proj", asking_NH), cos_Q1D, sin_Q1D)
        mixed_NF, attended = self._attend(queries_NF, keys_NF, values_NF, layout)
        middle_NH = project("o_proj", mixed_NF).add_(x_NH)
        second_NH, hat2_NH, rstd2_N1 = _norm(middle_NH, self.norms[1])
        gate_NF, up_NF = project("gate_proj", second_NH), project("up_proj", second_NH)
        out_NH = project("down_proj", F.silu(gate_NF).mul_(up_NF)).add_(middle_NH)
        return out_NH, [
            first_NH, hat1_NH, rstd1_N1, mixed_NF, second_NH, hat2_NH, rstd2_N1, gate_NF, up_NF,
            cos_N1D, sin_N1D, *attended,
        ]  # fmt: skip

    def _asking(self, layout: Layout, *tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        """Of the last layer, the tokens that the head looks at; of the others all."""
        return [tensor.index_select(0, layout.kept) for tensor in tensors] if self.last else tensors

    def _attend(
        self, queries_NF: torch.Tensor, keys_NF: torch.Tensor, values_NF: torch.Tensor, layout: Layout
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        rows, heads, groups, batch = layout.sizes
        both, size = rows * heads, self.size
        there, bias = (layout.last_queries, layout.last_bias) if self.last else (layout.queries, layout.bias)
        prefix_k, own_k = layout.keys.spread(keys_NF, size)
        prefix_v, own_v = layout.keys.spread(values_NF, size)
        if layout.cache is not None:
            prefix_k, prefix_v = layout.cache[self.number]
        else:
            prefix_k, prefix_v = prefix_k.view(both, -1, size), prefix_v.view(both, -1, size)
        if layout.record is not None:
            layout.record.append((prefix_k, prefix_v))
        if there is None:  # the last layer of a prefix that is recorded: nobody reads what it attends to
            return queries_NF, []
        if layout.record is not None:  # a prefix may be long: no logits of all its pairs
            asked = there.spread(queries_NF, size)[0].view(1, both * groups, -1, size)
            keys, values = (t[None].repeat_interleave(groups, 1) for t in (prefix_k, prefix_v))
            mixed = F.scaled_dot_product_attention(asked, keys, values, is_causal=True, scale=self.scale)
            return there.gather([mixed], heads * groups * size), []
        length = prefix_k.shape[1]
        prefix_q, own_q = there.spread(queries_NF, size)
        out: list[torch.Tensor] = []
        prefix_p = own_p = None
        if len(prefix_q):
            prefix_q = prefix_q.view(both, -1, size)
            logits = torch.baddbmm(layout.causal, prefix_q, prefix_k.transpose(1, 2), alpha=self.scale)
            prefix_p = logits.softmax(-1)
            out.append(torch.bmm(prefix_p, prefix_v))
        if batch:
            own_q, own_k, own_v = (t.view(both * batch, -1, size) for t in (own_q, own_k, own_v))
            logits = torch.baddbmm(bias, own_q, own_k.transpose(1, 2), alpha=self.scale)
            if length:  # all suffixes attend to the one prefix in one product a head
                wide_q = own_q.view(both, -1, size)
                ahead = _scaled(wide_q, prefix_k.transpose(1, 2), self.scale)
                own_p = torch.cat([ahead.view(*logits.shape[:2], length), logits], -1).softmax(-1)
                mixed = torch.bmm(own_p[..., :length].view(both, -1, length), prefix_v).view_as(own_q)
                out.append(mixed.baddbmm_(own_p[..., length:], own_v))
            else:
                own_p = logits.softmax(-1)
                out.append(torch.bmm(own_p, own_v))
        mixed_NF = there.gather(out, heads * groups * size)
        return mixed_NF, [prefix_q, prefix_k, prefix_v, prefix_p, own_q, own_k, own_v, own_p]

    def backward(
        self,
        grad_NH: torch.Tensor,
        layout: Layout,
        saved: Sequence[torch.Tensor],
        masks: dict[str, torch.Tensor | None],
        *,
        below: bool,
    ) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """Returns the gradients of the layer's input, None if not `below`, and of the adapters' weights."""
        first_NH, hat1_NH, rstd1_N1, mixed_NF, second_NH, hat2_NH, rstd2_N1, gate_NF, up_NF = saved[:9]
        cos_N1D, sin_N1D, *attended = saved[9:]
        from loraft.engine import lora_linear

        weights: dict[str, list[torch.Tensor]] = {}

        def pull(name: str, grad: torch.Tensor, x: torch.Tensor, onto: Any = None, below: bool = True) -> Any:
            layer = self.projections[name]
            out, weights[name] = lora_linear.pull(layer, grad, x, masks[name], self.adapters, onto=onto, below=below)
            return out

        open_NF = F.silu(gate_NF)
        d_hidden = pull("down_proj", grad_NH, open_NF * up_NF)
        d_second = pull("up_proj", d_hidden * open_NF, second_NH)
        d_gate = torch.ops.aten.silu_backward(d_hidden.mul_(up_NF), gate_NF)
        d_second = pull("gate_proj", d_gate, second_NH, d_second)
        d_middle = _norm_back(d_second, hat2_NH, rstd2_N1, self.norms[1]).add_(grad_NH)
        d_mixed = pull("o_proj", d_middle, mixed_NF)
        d_queries, d_keys, d_values = self._attend_back(d_mixed, layout, attended)
        asking_NH, cos_Q1D, sin_Q1D = self._asking(layout, first_NH, cos_N1D, sin_N1D)
        d_asking = pull("q_proj", _rotate(d_queries, cos_Q1D, sin_Q1D, -1), asking_NH, below=below)
        d_keys = _rotate(d_keys, cos_N1D, sin_N1D, -1)
        d_first = pull("k_proj", d_keys, first_NH, None if self.last else d_asking, below)
        d_first = pull("v_proj", d_values, first_NH, d_first, below)
        d_x = None
        if below and self.last:
            d_x = _norm_back(d_first.index_add_(0, layout.kept, d_asking), hat1_NH, rstd1_N1, self.norms[0])
            d_x.index_add_(0, layout.kept, d_middle)
        elif below:
            d_x = _norm_back(d_first, hat1_NH, rstd1_N1, self.norms[0]).add_(d_middle)
        return d_x, [weight for name in PROJECTIONS for weight in weights[name]]

    def _attend_back(
        self, grad_NF: torch.Tensor, layout: Layout, attended: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns the gradients of queries, keys and values, token after token."""
        prefix_q, prefix_k, prefix_v, prefix_p, own_q, own_k, own_v, own_p = attended
        rows, heads, groups, batch = layout.sizes
        both, size, length = rows * heads, self.size, prefix_k.shape[1]
        there = layout.last_queries if self.last else layout.queries
        assert there is not None
        prefix_d, own_d = there.scatter(grad_NF, size)
        queries, keys, values = [], [], []
        prefix_dk = prefix_dv = None
        if prefix_p is not None:
            prefix_d = prefix_d.view(both, -1, size)
            prefix_dv = torch.bmm(prefix_p.transpose(1, 2), prefix_d)
            d_logits = _softmax_back(torch.bmm(prefix_d, prefix_v.transpose(1, 2)), prefix_p)
            queries.append(_scaled(d_logits, prefix_k, self.scale))
            prefix_dk = _scaled(d_logits.transpose(1, 2), prefix_q, self.scale)
        if batch:
            own_d = own_d.view_as(own_q)
            d_probs = torch.bmm(own_d, own_v.transpose(1, 2))
            own_dv = torch.bmm(own_p[..., length:].transpose(1, 2), own_d)
            if length:
                wide_d, wide_q = (t.view(both, -1, size) for t in (own_d, own_q))
                ahead = torch.bmm(wide_d, prefix_v.transpose(1, 2)).view(*d_probs.shape[:2], length)
                d_probs = torch.cat([ahead, d_probs], -1)
                ahead_p = own_p[..., :length].view(both, -1, length)
                prefix_dv = _onto(prefix_dv, ahead_p.transpose(1, 2), wide_d, 1.0)
            d_logits = _softmax_back(d_probs, own_p)
            own_l = d_logits[..., length:]
            own_dq = _scaled(own_l, own_k, self.scale)
            if length:
                ahead_l = d_logits[..., :length].view(both, -1, length)
                own_dq = own_dq.view(both, -1, size).baddbmm_(ahead_l, prefix_k, alpha=self.scale)
                prefix_dk = _onto(prefix_dk, ahead_l.transpose(1, 2), wide_q, self.scale)
            queries.append(own_dq)
            keys.append(_scaled(own_l.transpose(1, 2), own_q, self.scale))
            values.append(own_dv)
        if length:
            keys.insert(0, prefix_dk)
            values.insert(0, prefix_dv)
        width = heads * size
        return there.gather(queries, width * groups), layout.keys.gather(keys, width), layout.keys.gather(values, width)


def _onto(before: torch.Tensor | None, left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    return _scaled(left, right, scale) if before is None else before.baddbmm_(left, right, alpha=scale)


def _softmax_back(grad: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    return torch._softmax_backward_data(grad, probs, -1, probs.dtype)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NH: torch.Tensor, layer: _Layer, layout: Layout, *rest: torch.Tensor) -> torch.Tensor:
        from loraft.engine import lora_linear

        masks: dict[str, torch.Tensor | None] = {}

        def project(name: str, x_NF: torch.Tensor) -> torch.Tensor:
            out, masks[name] = lora_linear.project(layer.projections[name], x_NF, layer.adapters)
            return out

        out_NH, saved = layer.compute(x_NH, layout, rest[0], rest[1], project)
        ctx.layer, ctx.layout = layer, layout
        ctx.save_for_backward(*saved, *(masks[name] for name in PROJECTIONS))
        return out_NH

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_NH: torch.Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        masks = dict(zip(PROJECTIONS, saved[-len(PROJECTIONS) :], strict=True))
        d_x, weights = ctx.layer.backward(
            grad_NH, ctx.layout, saved[: -len(PROJECTIONS)], masks, below=ctx.needs_input_grad[0]
        )
        return d_x, None, None, None, None, *weights


def supports(model: Any) -> bool:
    """Says whether all decoder layers of a backbone, with or without an adapter, are of the kind that this is for."""
    base = bare(model)
    config = base.config.get_text_config()
    layers = list(getattr(getattr(base, "model", None), "layers", []))
    return (
        len(layers) > 0
        and all(type(layer).__name__ in LAYERS and _is_own(layer) for layer in layers)
        and config.hidden_act == "silu"
        and getattr(config, "sliding_window", None) is None
        and not config.attention_dropout
    )


def _is_own(layer: torch.nn.Module) -> bool:
    """Says whether a layer's forward is its class's or ours; others are hooks that spread a model over devices."""
    return isinstance(vars(layer).get("forward", None), _Layer | None)


@contextmanager
def enabled(model: Any, adapters: Sequence[str] | None = None) -> Iterator[None]:
    """Inside the block, layers of a supported model that are given a `layout` compute it as this module does.

    Without gradients any projection will do. For training they must be what `lowrank.suits` says.

    Args:
        model: a backbone or a PeftModel; its layers are as before afterwards.
        adapters: as in `lowrank.enabled`.
    """
    layers = list(bare(model).model.layers)
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = _Layer(layer, last=layer is layers[-1], adapters=adapters)
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            if own is None:
                del layer.forward
            else:
                layer.forward = own
