"""AdamW with clipping over one vector of all weights of a parameter group, in a few kernels that can be captured.

An adapter has hundreds of small matrices. Here they are slices of one fp32 vector, and so are their gradients and the
two moments. A step reads its learning rate from memory and decides on the device whether to clip and, with a scaled
loss, whether to leave the step out; so it never waits for the device. The state dict is that of `torch.optim.AdamW`
over the single matrices: a checkpoint moves between this optimizer and that one.

Source: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101; the arithmetic is `torch.optim`'s.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.adamw import AdamW, adamw


class _Flat:
    """One parameter group as vectors.

    Attributes:
        number: of the group in the optimizer, which may exchange the group itself when it loads a state.
        weights: fp32; the group's parameters are views into it.
        gradient: fp32, filled by `FlatAdamW.add_gradients`.
        moments: running means of the gradient and of its square.
        step: fp32 scalar, steps taken.
        rate: fp32 scalar, the learning rate.
    """

    def __init__(self, number: int, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.number, self.parameters = number, list(parameters)
        self.weights = torch.cat([parameter.detach().flatten() for parameter in self.parameters])
        self.gradient = torch.zeros_like(self.weights)
        self.moments = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.step, self.rate = self.weights.new_zeros(()), self.weights.new_zeros(())
        for parameter, part in zip(self.parameters, self.parts(self.weights), strict=True):
            parameter.data = part

    def parts(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """Returns a vector of the group's size as views of its parameters' shapes."""
        pieces = vector.split([parameter.numel() for parameter in self.parameters])
        return [piece.view(parameter.shape) for piece, parameter in zip(pieces, self.parameters, strict=True)]


class FlatAdamW(AdamW):
    """AdamW over flat vectors; it clips before a step and zeroes the gradient after it.

    `step()` is all that a trainer calls. Gradients come through `add_gradients`, not through `parameter.grad`.

    Args:
        groups: parameter groups as of `torch.optim.AdamW`, with all its settings. The parameters are fp32, and become
            views into the vectors.
        max_grad_norm: largest norm of the gradient.
        separately: each group is clipped by its own norm; else all by the norm over all groups.
        scaler: whose scale the gradients carry, in fp16; its scale is updated here. None without scaling.
        run: takes a key and a function without arguments and runs it, possibly as a captured graph.

    Attributes:
        norms: of each group's gradient before clipping at the last step, of all groups' unless `separately`.
        largest_norm: of these, 0 for one that is not finite.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        max_grad_norm: float,
        separately: bool,
        scaler: torch.amp.GradScaler | None,
        run: Callable[[str, Callable[[], None]], None],
    ) -> None:
        super().__init__(groups, fused=True)
        groups = self.param_groups
        self.flats = [_Flat(i, group["params"]) for i, group in enumerate(groups) if group["params"]]
        self.max_grad_norm, self.separately, self.scaler, self.run = max_grad_norm, separately, scaler, run
        device = self.flats[0].weights.device
        self.norms = torch.zeros(len(self.flats), device=device)
        self.largest_norm, self.found_infinity = torch.zeros((), device=device), torch.zeros((), device=device)
        if scaler is not None:
            scaler._lazy_init_scale_growth_tracker(device)
        self._keep_state_in_vectors()

    def _keep_state_in_vectors(self) -> None:
        """Makes the state of each parameter views into the vectors."""
        for flat in self.flats:
            for parameter, first, second in zip(flat.parameters, *map(flat.parts, flat.moments), strict=True):
                self.state[parameter] = {"step": flat.step, "exp_avg": first, "exp_avg_sq": second}

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of `torch.optim.AdamW`, whose parameters share no memory: each counts its own steps."""
        saved: dict[str, Any] = super().state_dict()
        saved["state"] = {
            number: {name: tensor.clone() for name, tensor in state.items()} for number, state in saved["state"].items()
        }
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the state of `torch.optim.AdamW` or of this class."""
        super().load_state_dict(state_dict)
        for flat in self.flats:
            loaded = [self.state[parameter] for parameter in flat.parameters]
            if not loaded[0]:  # no step was taken, as where all gradients overflowed so far
                continue
            flat.step.copy_(loaded[0]["step"])
            for moment, name in zip(flat.moments, ("exp_avg", "exp_avg_sq"), strict=True):
                for part, state in zip(flat.parts(moment), loaded, strict=True):
                    part.copy_(state[name])
        self._keep_state_in_vectors()

    def gradients(self) -> dict[int, torch.Tensor]:
        """Returns by the id of each parameter the part of the gradient that is its own."""
        return {
            id(parameter): part
            for flat in self.flats
            for parameter, part in zip(flat.parameters, flat.parts(flat.gradient), strict=True)
        }

    def add_gradients(self, gradients: Sequence[torch.Tensor]) -> None:
        """Adds one gradient for each parameter, group after group, in any dtype."""
        start = 0
        for flat in self.flats:
            own = gradients[start : start + len(flat.parameters)]
            flat.gradient.add_(torch.cat([gradient.reshape(-1) for gradient in own]))
            start += len(own)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Clips, takes a step at the groups' learning rates, and zeroes the gradient."""
        for flat in self.flats:
            flat.rate.fill_(self.param_groups[flat.number]["lr"])
        self.run("update", self._update)

    def _update(self) -> None:
        if self.scaler is not None:
            self.found_infinity.zero_()
            scale: torch.Tensor = self.scaler._scale
            torch._amp_foreach_non_finite_check_and_unscale_(
                [flat.gradient for flat in self.flats], self.found_infinity, scale.double().reciprocal().float()
            )
        norms = torch.stack([torch.linalg.vector_norm(flat.gradient) for flat in self.flats])
        self.norms.copy_(norms if self.separately else torch.linalg.vector_norm(norms))
        self.largest_norm.copy_(self.norms.nan_to_num(0.0, 0.0, 0.0).max())
        factors = (self.max_grad_norm / (self.norms + 1e-6)).clamp(max=1.0)  # as `torch.nn.utils.clip_grad_norm_`
        for flat, factor in zip(self.flats, factors, strict=True):
            group = self.param_groups[flat.number]
            flat.gradient.mul_(factor)
            adamw(
                [flat.weights], [flat.gradient], [flat.moments[0]], [flat.moments[1]], [], [flat.step],
                fused=True, capturable=True, amsgrad=False, beta1=group["betas"][0], beta2=group["betas"][1],
                lr=flat.rate, weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
                found_inf=None if self.scaler is None else self.found_infinity,
            )  # fmt: skip
            flat.gradient.zero_()
        if self.scaler is not None:
            torch._amp_update_scale_(
                self.scaler._scale, self.scaler._growth_tracker, self.found_infinity, self.scaler.get_growth_factor(),
                self.scaler.get_backoff_factor(), self.scaler.get_growth_interval(),
            )  # fmt: skip
