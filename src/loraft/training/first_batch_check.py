"""Checks on a training's first batch that the fast methods compute the loss and the gradients of the plain one."""

import warnings
from collections.abc import Callable, Sequence

import torch
from peft import PeftModel

from loraft.engine import lora_linear
from loraft.engine.loss import BatchMethod, answer_loss_sum
from loraft.errors import BackboneError, first_line
from loraft.models.adapter import weights_of

CHECKED_ROWS = 4  # of the first batch
Losses = Callable[[BatchMethod], torch.Tensor]  # by a method

# Largest accepted differences: of gradients as a share of their norm, of the loss in nats per answer token. In bf16 the
# gradients of two right methods differ by up to 0.15 of their norm, and by as much from those in fp32.
GRADIENT_LIMIT = {torch.float32: 1e-3}
LOSS_LIMIT = {torch.float32: 1e-4}
GRADIENT_LIMIT_BELOW_FP32, LOSS_LIMIT_BELOW_FP32 = 0.5, 5e-2


def check_first_batch(
    model: PeftModel,
    padded: dict[str, torch.Tensor],
    losses: Losses,
    method: BatchMethod,
    adapters: Sequence[str] | None,
    *,
    dtype: torch.dtype,
) -> BatchMethod:
    """Returns the method that training goes on with; where it is another one than before, a warning says why.

    The loss of a few packed rows is compared with that of the same rows, padded, by the library's own layers. LoRA's B
    starts at zero, so it is perturbed during the check: a wrong LoRA product would go unnoticed otherwise. The
    gradients of fused layers are compared with autograd's. A method that raises an error counts as a wrong one.
    Adapters whose plain loss is not finite have diverged, in a training that is resumed: they are left out. If none is
    finite, nothing is compared, and a warning says so.

    Args:
        model: with the layers, attention and LoRA products of `method` enabled.
        padded: a few rows as a padded batch, on the model's device.
        losses: of the same rows, summed, of each adapter.
        method: that the training has chosen.
        adapters: names of the adapters of a joint training, None where the active one trains alone.
        dtype: of the backbone's floating-point weights.

    Raises:
        BackboneError: the loss of a joint training differs from peft's or fails; it has no slower method to fall back
            to.
    """
    was_training = model.training
    model.eval()  # dropout off
    with torch.no_grad(), lora_linear.perturbed(model):
        # In evaluation mode and without a layout, the layers of transformers and peft run, though others are enabled.
        plain_A = _plain_losses(model, padded, adapters, dtype)
        finite_A = plain_A.isfinite()
        if not finite_A.any():
            warnings.warn(
                f"the first batch's loss is not finite (got {float(plain_A[0])}), so the fast methods are not checked",
                stacklevel=2,
            )
            model.train(was_training)
            return method
        plain_loss = float(plain_A[finite_A].sum())
        tokens = float(padded["weights"].sum()) * max(1, int(finite_A.sum()))
        dead = [name for name, finite in zip(adapters or (), finite_A, strict=False) if not finite]

        def loss_of(method: BatchMethod) -> torch.Tensor:
            return losses(method)[finite_A].sum()

        with lora_linear.active_in_evaluation(model):
            if method is BatchMethod.FUSED and (why := _why_not_fused(model, loss_of, dead, dtype)):
                method = BatchMethod.ATTENTION
                warnings.warn(
                    f"{why} on this architecture; training continues with shared-prefix attention, which is slower",
                    stacklevel=2,
                )
            try:
                shared_loss = float(loss_of(method))
                found = f"loss {shared_loss:.6f} with shared prefix, {plain_loss:.6f} padded"
            except Exception as error:  # an architecture may refuse a mask or position ids in any way
                shared_loss, found = float("nan"), f"the shared prefix fails: {first_line(error)}"
    model.train(was_training)
    tolerance = LOSS_LIMIT.get(dtype, LOSS_LIMIT_BELOW_FP32) * max(1.0, plain_loss / tokens)
    if abs(shared_loss - plain_loss) / tokens <= tolerance:
        return method
    if adapters is not None:
        raise BackboneError(
            f"joint training: it does not agree with peft on this architecture ({found}); use --joint off"
        )
    warnings.warn(
        f"{found}; on this architecture training goes on with padded batches and peft's own layers", stacklevel=2
    )
    return BatchMethod.PADDED


def _plain_losses(
    model: PeftModel, padded: dict[str, torch.Tensor], adapters: Sequence[str] | None, dtype: torch.dtype
) -> torch.Tensor:
    """The loss of a padded batch by the library's own layers, of each adapter by itself: (A,)."""
    if adapters is None:
        return answer_loss_sum(model, padded, dtype)[None]
    found = []
    for name in adapters:
        model.base_model.set_adapter(name)
        found.append(answer_loss_sum(model, padded, dtype))
    model.base_model.set_adapter(list(adapters))
    return torch.stack(found)


def _why_not_fused(model: PeftModel, loss_of: Losses, dead: Sequence[str], dtype: torch.dtype) -> str:
    """Returns what is wrong with fused layers, in words; empty if they are right."""
    try:
        agree = _gradients_agree(model, loss_of, dead, dtype)
    except Exception as error:  # as for the loss
        return f"fused layers fail ({first_line(error)})"
    return "" if agree else "the gradients of fused layers differ from autograd's"


@torch.enable_grad()
def _gradients_agree(model: PeftModel, loss_of: Losses, dead: Sequence[str], dtype: torch.dtype) -> bool:
    """Compares the gradients of fused layers with autograd's over the same packed batch, without dead adapters'.

    They are compared kind by kind of projection (all q_proj together, all k_proj, ...): one wrong kind must not hide
    in the norm of the others.
    """
    left_out = {weight for name in dead for weight in weights_of(model, name)}
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad and p not in left_out}
    by_method: list[dict[str, list[torch.Tensor]]] = []
    for method in (BatchMethod.ATTENTION, BatchMethod.FUSED):
        loss = loss_of(method)
        if not loss.requires_grad:  # the method lost the graph
            return False
        gradients = torch.autograd.grad(loss, [*trained.values()], materialize_grads=True)
        kinds: dict[str, list[torch.Tensor]] = {}
        for name, gradient in zip(trained, gradients, strict=True):
            # "q_proj" of "....q_proj.lora_A.default.weight", "lm_head" of "....lm_head.modules_to_save.default.weight"
            kind = name.partition(".lora_")[0].partition(".modules_to_save.")[0].rpartition(".")[2]
            kinds.setdefault(kind, []).append(gradient.flatten())
        by_method.append(kinds)
    right, ours = by_method
    limit = GRADIENT_LIMIT.get(dtype, GRADIENT_LIMIT_BELOW_FP32)
    vectors = [(torch.cat(right[kind]), torch.cat(ours[kind])) for kind in right]
    return all(float((theirs - own).norm()) <= limit * float(theirs.norm()) for theirs, own in vectors)
