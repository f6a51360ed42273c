"""A decoder layer of the Llama kind for packed rows, as one node of autograd's graph with a hand-written gradient.

Why: in a step of a small model much of the time goes into small operations (casts, views, sums) and their nodes in the
graph, and into results that nobody reads. This layer saves both.

- The keys and values of the prefix are never copied for a suffix.
- The last layer computes queries and feed-forward part only for the tokens that the LM head reads.
- Embeddings are frozen, so the first layer computes no gradient of its input.

The linear layers stay the modules that they are, so 4-bit weights, biases and adapters work as elsewhere
(`lora_linear`). Layers of other architectures keep their own forward method; `prefix_attention` serves those. The tests
compare loss, gradients and scores with padded batches and plain forward passes.

Letters: N tokens of all packed rows, K tokens that the layer outputs (in the last layer those of all rows that the LM
head reads, in other layers all N), D head size, H hidden size, F features of any kind.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch

from loraft.engine import fused_operations, key_ranges
from loraft.engine.fused_operations import gated_silu, gated_silu_backward, rms_norm, rms_norm_backward, rotate
from loraft.engine.key_ranges import RangedLayout
from loraft.engine.layout import Layout, unwrap

LAYERS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class FusedLayer:
    """Replacement for the forward method of one decoder layer: its forward pass over a layout, and its gradient.

    Args:
        module: the decoder layer of transformers.
        last: it is the last one.
        adapters: as in `lora_linear.enabled`.
    """

    def __init__(self, module: Any, *, last: bool, adapters: Sequence[str] | None) -> None:
        self.plain_forward: Any = module.forward
        self.last, self.adapters = last, adapters
        attention_module, mlp = module.self_attn, module.mlp
        self.layer_index, self.scale = attention_module.layer_idx, attention_module.scaling
        self.norms = module.input_layernorm, module.post_attention_layernorm
        self.projections = {
            name: getattr(mlp if hasattr(mlp, name) else attention_module, name) for name in PROJECTIONS
        }

    def __call__(
        self,
        hidden_states: torch.Tensor,
        *args: Any,
        layout: Layout | RangedLayout | None = None,
        position_embeddings: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Returns the layer's output, (A, T, H); the last layer returns the kept tokens only.

        Args:
            hidden_states: (A, T, H).
            *args: for the module's own forward method, which runs where there is no layout.
            layout: of the packed rows.
            position_embeddings: cosines and sines of the rotary embedding, (1, T, D) each.
            **kwargs: for the module's own forward method.
        """
        if layout is None:
            out: torch.Tensor = self.plain_forward(
                hidden_states, *args, position_embeddings=position_embeddings, **kwargs
            )
            return out
        rows = hidden_states.shape[0]
        x_NH = hidden_states.flatten(0, 1)
        # The last layer selects some tokens of all rows; others read the one table for every row.
        tables = [
            table.expand(rows if self.last else -1, -1, -1).flatten(0, 1)[:, None] for table in position_embeddings
        ]
        if torch.is_grad_enabled():
            from loraft.engine import lora_linear  # imports peft, which takes long and which prediction does not need

            weights = lora_linear.adapter_weights(self.projections.values(), self.adapters)
            out_NH = _FusedLayerFunction.apply(x_NH, self, layout, tables, *weights)
        else:
            out_NH = self.compute(x_NH, layout, tables, lambda name, x_NF: self.projections[name](x_NF))[0]
        return out_NH.view(rows, -1, out_NH.shape[-1])

    def compute(
        self,
        x_NH: torch.Tensor,
        layout: Layout | RangedLayout,
        tables: Sequence[torch.Tensor],
        project: Callable[[str, torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Returns the layer's output (K, H), and the tensors that `backward` needs.

        Args:
            x_NH: the layer's input.
            layout: of the packed rows.
            tables: cosines and sines of the rotary embedding, (N, 1, D), or those of one row, (T, 1, D).
            project: takes the name of a projection and its input, returns its output.
        """
        # Attention: middle = x + o_proj(mixed), where mixed = attention(q, k, v) is computed from norm1(x).
        normed1_NH, x_NH, for_norm1 = rms_norm(x_NH, self.norms[0])
        keys_NF, values_NF = project("k_proj", normed1_NH), project("v_proj", normed1_NH)
        # From here on the last layer goes on with the kept tokens alone.
        x_KH, normed1_KH, *kept_tables = self._kept(layout, x_NH, normed1_NH, *tables)
        queries_KF, keys_NF = rotate(project("q_proj", normed1_KH), keys_NF, kept_tables, tables)
        mixed_KF, for_attention = self._attention(queries_KF, keys_NF, values_NF, layout)
        normed2_KH, middle_KH, for_norm2 = rms_norm(project("o_proj", mixed_KF), self.norms[1], x_KH)
        # Feed-forward: out = middle + down_proj(silu(gate) * up) with gate, up from norm2(middle).
        gate_KF, up_KF = project("gate_proj", normed2_KH), project("up_proj", normed2_KH)
        out_KH = project("down_proj", gated_silu(gate_KF, up_KF)).add_(middle_KH)
        return out_KH, [
            normed1_NH, normed1_KH, *for_norm1, mixed_KF, normed2_KH, *for_norm2, gate_KF, up_KF,
            *kept_tables, *tables, *for_attention,
        ]  # fmt: skip

    def _attention(
        self, queries_KF: torch.Tensor, keys_NF: torch.Tensor, values_NF: torch.Tensor, layout: Layout | RangedLayout
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor | None]]:
        """Returns the output of attention (K, F), and what its gradient needs."""
        if isinstance(layout, Layout):
            return fused_operations.attention(
                queries_KF, keys_NF, values_NF, layout, layer_index=self.layer_index, scale=self.scale, last=self.last
            )
        if layout.record is not None:
            layout.record.append((keys_NF, values_NF))
        if layout.cache is not None:
            keys_NF, values_NF = (
                torch.cat([tensor.unflatten(0, (layout.copies, -1)) for tensor in pair], dim=1).flatten(0, 1)
                for pair in zip(layout.cache[self.layer_index], (keys_NF, values_NF), strict=True)
            )
        return key_ranges.attention(queries_KF, keys_NF, values_NF, layout, scale=self.scale, last=self.last)

    def _kept(self, layout: Layout | RangedLayout, *tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        """Returns the rows of the kept tokens of each tensor in the last layer, and all rows in other layers."""
        return [tensor.index_select(0, layout.kept) for tensor in tensors] if self.last else tensors

    def backward(
        self,
        grad_KH: torch.Tensor,
        layout: Layout | RangedLayout,
        saved: Sequence[torch.Tensor],
        for_adapters: dict[str, Sequence[torch.Tensor | None]],
        *,
        input_grad: bool,
    ) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """Returns the gradients of the layer's input (N, H), and of the adapters' weights.

        In the comments g is `grad_KH`, and W_name the weight of a projection together with its adapter.

        Args:
            grad_KH: gradient of the layer's output.
            layout: as in `compute`.
            saved: what `compute` returned.
            for_adapters: what `lora_linear.lora_forward` returned for each projection, empty without an adapter.
            input_grad: whether the input's gradient is needed; else None is returned for it.
        """
        from loraft.engine import lora_linear

        normed1_NH, normed1_KH, *for_norm1 = saved[:4]
        mixed_KF, normed2_KH, *for_norm2 = saved[4:8]
        gate_KF, up_KF, *rotary = saved[8:14]
        for_attention = saved[14:]
        d_weights: dict[str, list[torch.Tensor]] = {}

        def project_back(
            name: str, grad: torch.Tensor, x: torch.Tensor | None, add_to: Any = None, input_grad: bool = True
        ) -> Any:
            """Returns the gradient of a projection's input, added to `add_to`, and keeps those of its adapters."""
            d_input, d_weights[name] = lora_linear.lora_backward(
                self.projections[name], grad, x, for_adapters[name], self.adapters, add_to=add_to, input_grad=input_grad
            )
            return d_input

        # Feed-forward: out = middle + hidden W_down^T, where hidden = silu(gate) * up, computed from norm2(middle).
        hidden_KF = gated_silu(gate_KF, up_KF) if for_adapters["down_proj"] else None  # only an adapter needs it
        d_hidden_KF = project_back("down_proj", grad_KH, hidden_KF)  # g W_down
        d_gate_KF, d_up_KF = gated_silu_backward(d_hidden_KF, gate_KF, up_KF)
        d_normed2_KH = project_back("up_proj", d_up_KF, normed2_KH)  # d_up W_up
        d_normed2_KH = project_back("gate_proj", d_gate_KF, normed2_KH, d_normed2_KH)  # += d_gate W_gate
        # middle reaches the output through norm2 and through the residual connection: norm2'(d_normed2) + g
        d_middle_KH = rms_norm_backward(d_normed2_KH, for_norm2, self.norms[1], grad_KH)

        # Attention: middle = x + mixed W_o^T, where mixed = attention(q, k, v).
        d_mixed_KF = project_back("o_proj", d_middle_KH, mixed_KF)  # d_middle W_o
        if isinstance(layout, Layout):
            d_queries_KF, d_keys_NF, d_values_NF = fused_operations.attention_backward(
                d_mixed_KF, layout, for_attention, scale=self.scale, last=self.last
            )
        else:
            d_queries_KF, d_keys_NF, d_values_NF = key_ranges.attention_backward(
                d_mixed_KF, layout, for_attention, scale=self.scale, last=self.last
            )
        d_queries_KF, d_keys_NF = rotate(d_queries_KF, d_keys_NF, rotary[:2], rotary[2:], -1)
        # d_normed1 = d_queries W_q + d_keys W_k + d_values W_v. In the last layer the first term has rows for the kept
        # tokens only, so it stays a tensor of its own and is added to their rows below.
        d_normed1_KH = project_back("q_proj", d_queries_KF, normed1_KH, input_grad=input_grad)
        d_normed1_NH = project_back("k_proj", d_keys_NF, normed1_NH, None if self.last else d_normed1_KH, input_grad)
        d_normed1_NH = project_back("v_proj", d_values_NF, normed1_NH, d_normed1_NH, input_grad)

        # x reaches middle through norm1 and through the residual connection: norm1'(d_normed1) + d_middle
        d_x_NH = None
        if input_grad and self.last:
            d_normed1_NH = d_normed1_NH.index_add_(0, layout.kept, d_normed1_KH)
            d_x_NH = rms_norm_backward(d_normed1_NH, for_norm1, self.norms[0])
            d_x_NH.index_add_(0, layout.kept, d_middle_KH)
        elif input_grad:
            d_x_NH = rms_norm_backward(d_normed1_NH, for_norm1, self.norms[0], d_middle_KH)
        return d_x_NH, [weight for name in PROJECTIONS for weight in d_weights[name]]


class _FusedLayerFunction(torch.autograd.Function):
    """The node of a fused layer in autograd's graph; its inputs are the layer's input and the adapters' weights."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NH: torch.Tensor,
        layer: FusedLayer,
        layout: Layout | RangedLayout,
        tables: Sequence[torch.Tensor],
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        """Returns the layer's output; the weights are arguments so that autograd returns their gradients."""
        from loraft.engine import lora_linear

        for_adapters: dict[str, list[torch.Tensor | None]] = {}

        def project(name: str, x_NF: torch.Tensor) -> torch.Tensor:
            out, for_adapters[name] = lora_linear.lora_forward(layer.projections[name], x_NF, layer.adapters)
            return out

        out_KH, saved = layer.compute(x_NH, layout, tables, project)
        ctx.layer, ctx.layout = layer, layout
        ctx.sizes = [len(for_adapters[name]) for name in PROJECTIONS]
        ctx.save_for_backward(*(tensor for name in PROJECTIONS for tensor in for_adapters[name]), *saved)
        return out_KH

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_KH: torch.Tensor) -> tuple[Any, ...]:
        """Returns the gradient of each argument of `forward`, None for arguments that need no gradient."""
        saved = iter(ctx.saved_tensors)
        for_adapters = {name: list(islice(saved, size)) for name, size in zip(PROJECTIONS, ctx.sizes, strict=True)}
        d_x_NH, d_weights = ctx.layer.backward(
            grad_KH, ctx.layout, list(saved), for_adapters, input_grad=ctx.needs_input_grad[0]
        )
        return d_x_NH, None, None, None, *d_weights


def supports(model: Any) -> bool:
    """Says whether `FusedLayer` can replace every decoder layer: class, activation, no window, no attention dropout.

    Whether the adapters allow it says `lora_linear.supports`. FSDP gives the layers that it shards other classes.
    """
    base = unwrap(model)
    config = base.config.get_text_config()
    layers = list(getattr(getattr(base, "model", None), "layers", []))
    return (
        len(layers) > 0
        and all(type(layer).__name__ in LAYERS and _has_own_forward(layer) for layer in layers)
        and not any("original_module" in part._modules for layer in layers for part in layer.modules())  # trained whole
        and config.hidden_act == "silu"
        and getattr(config, "sliding_window", None) is None
        and not config.attention_dropout
    )


def _has_own_forward(layer: torch.nn.Module) -> bool:
    """Says whether a layer's forward method is its class's or ours. accelerate sets others to spread a model."""
    return isinstance(vars(layer).get("forward", None), FusedLayer | None)


@contextmanager
def enabled(model: Any, adapters: Sequence[str] | None = None) -> Iterator[None]:
    """Inside the block, decoder layers that are called with a `layout` argument run as `FusedLayer`.

    Without gradients the projections may be of any kind. For training `lora_linear.supports` must accept them.

    Args:
        model: a backbone or a PeftModel; its layers are restored on exit.
        adapters: as in `lora_linear.enabled`.
    """
    layers = list(unwrap(model).model.layers)
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = FusedLayer(layer, last=layer is layers[-1], adapters=adapters)
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward
