"""The memory that a training needs, before weights are there: full fine-tuning, LoRA and QLoRA side by side."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Memory:
    """What a training holds, in bytes.

    Attributes:
        weights: of the backbone and the adapter.
        gradients: of all trained weights.
        optimizer: its state, two moments a trained weight for Adam.
        activations: the most that one step holds beside these.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def peak(self) -> int:
        """The most that is held at once, in bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations
