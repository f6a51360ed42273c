"""Check a loaded backbone on a few tokens: that it runs, and that no token sees later ones."""

from contextlib import suppress
from typing import Any

import torch
from transformers import PreTrainedModel

from loraft.engine import prefix_attention
from loraft.engine.lm_head import exact_logits
from loraft.errors import BackboneError, first_line


def check_causal(name: str, base: PreTrainedModel) -> None:
    """Checks that a token does not see later ones: transformers loads encoders such as BERT as causal models, too.

    Architectures that `prefix_attention` knows are causal.

    Args:
        name: of the backbone, for the message.
        base: in evaluation mode.

    Raises:
        BackboneError: a later token reaches the logits of the first one, or the backbone cannot run.
    """
    if prefix_attention.supports(base):
        return
    # Of some recurrent layers a shorter text takes another path than whole chunks do.
    length = max(3, getattr(base.config, "chunk_size", None) or 3)
    try:
        causal = _is_causal(base, length)
    except Exception as error:  # an architecture may want other inputs, and say so in any way
        causal = True
        # Mixed dtypes stop some encoders; in fp32 they would run, and then be refused.
        with suppress(Exception), torch.autocast(base.device.type, torch.bfloat16):
            causal = _is_causal(base, length)
        if causal:
            ways = ["--quant none"] if getattr(base, "is_quantized", False) else []
            ways += ["--set model.dtype=fp32"] if base.dtype != torch.float32 else []
            raise BackboneError(
                f"model.name: {name} cannot run {length} tokens ({type(base).__name__}: {first_line(error)}); "
                f"{'try ' if ways else ''}{''.join(f'{way}, or ' for way in ways)}choose a causal language model"
            ) from error
    if not causal:
        raise BackboneError(
            f"model.name: {name} is no causal language model: its tokens see later ones, as in an encoder or a prefix "
            f"language model (got {type(base).__name__}); choose a decoder, such as Llama, Qwen or Gemma"
        )


@torch.enable_grad()
def _is_causal(base: PreTrainedModel, length: int) -> bool:
    """Whether the gradient of the first token's logits for the embeddings of all later ones is zero.

    In a causal model it is exactly zero, in every dtype and however small the weights are.
    """
    size = base.get_input_embeddings().weight.shape[0]
    embedded: list[torch.Tensor] = []  # (1, T, D), where T counts tokens that some architectures put in front, too

    def keep(layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1].clone()  # which a model may change in place

    hook = base.get_input_embeddings().register_forward_hook(keep)
    try:
        ids_1T = size // (torch.arange(length, device=base.device)[None] % 3 + 2)
        with exact_logits(base, torch.arange(length, device=base.device)[None]):  # as in scoring
            first_V = base(input_ids=ids_1T, use_cache=False).logits[0, 0].float()
    finally:
        hook.remove()
    try:
        (gradient_1TD,) = torch.autograd.grad(first_V.sum(), embedded[:1])
    except Exception:  # some quantised layers have no backward pass; encoders do not come with such
        return True
    return not gradient_1TD[:, 1 - length :].nan_to_num().any()
