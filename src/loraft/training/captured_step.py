"""A training step over batches of a fixed size: on CUDA as a graph of kernels that is launched as a whole.

A step of a model of a billion weights is some 2,000 kernels, and Python needs longer to launch them than the GPU to run
them. A CUDA graph holds all launches of one size of batch. It reads the batch from a vector that never moves
(`engine.static_batch`) and adds the gradients to one that never moves either (`flat_adamw`). Its first batch of a size
runs as usual, which also loads all kernels; the second one is captured while it is issued; later ones are replays.
Forward and backward pass are one graph for each size, clipping and optimizer one graph for all: so gradients of several
batches can add up before an update.

All of it but the graphs themselves runs on a CPU too, where the tests compare it with the other kinds of step.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import torch

from loraft.engine import lora_linear
from loraft.engine.adapter_stack import AdapterStack, drop_stacks
from loraft.engine.static_batch import Size, StaticBatch, StaticInputs
from loraft.errors import Note, first_line
from loraft.training.flat_adamw import FlatAdamW

MAX_GRAPHS = 24  # the one that has not been used for longest is dropped


class GraphRunner:
    """Runs functions without arguments; on CUDA, from its second run on, each as a graph.

    Args:
        device: that runs them. Where it is no CUDA device, functions just run.
    """

    def __init__(self, device: torch.device) -> None:
        self.captures = device.type == "cuda"
        self.device = device
        self._seen: set[Hashable] = set()
        self._graphs: OrderedDict[Hashable, torch.cuda.CUDAGraph] = OrderedDict()
        # Graphs run one after the other and leave nothing behind but what the caller keeps: they can share memory.
        self._pool = torch.cuda.graph_pool_handle() if self.captures else None

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Runs a function; the key stands for it and for the sizes of everything that it reads.

        The function must read and write memory that does not move, never wait for the device, and return nothing.
        """
        graph = self._graphs.get(key)
        if graph is None and self.captures and key in self._seen:
            graph = self._captured(key, function)
        if graph is None:
            self._seen.add(key)
            function()
            return
        self._graphs.move_to_end(key)
        graph.replay()

    def _captured(self, key: Hashable, function: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        if len(self._graphs) >= MAX_GRAPHS:
            torch.cuda.synchronize(self.device)  # its last replay may not be over
            self._graphs.popitem(last=False)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                function()
        except Exception as error:  # an architecture may do anything in its forward pass
            self.captures = False
            torch.cuda.synchronize(self.device)
            warnings.warn(
                f"training: a step cannot be captured on this backbone ({first_line(error)}); its kernels are launched"
                " one by one, which is slower",
                Note,
                stacklevel=2,
            )
            return None
        self._graphs[key] = graph
        return graph


class CapturedStep:
    """Forward and backward pass over static batches, and the gradients of other ones.

    Args:
        loss_sums: takes the fields of a batch; returns the weighted sum of -log p of each adapter, (A,), in nats.
        optimizer: takes the gradients.
        copies: of the weights, brought up to date before each pass, which computes with them and their gradients.
        runner: runs the passes.
        losses_A: each pass adds its loss for each adapter.
    """

    def __init__(
        self,
        loss_sums: Callable[[StaticInputs], torch.Tensor],
        optimizer: FlatAdamW,
        copies: "LowPrecisionCopies | AdapterStack",
        runner: GraphRunner,
        losses_A: torch.Tensor,
    ) -> None:
        self.loss_sums, self.optimizer, self.copies = loss_sums, optimizer, copies
        self.runner, self.losses_A = runner, losses_A
        self.loss = torch.zeros((), device=runner.device)  # of the last batch
        self._inputs: dict[Size, StaticInputs] = {}

    def forward_backward(self, batch: StaticBatch, count: int) -> torch.Tensor:
        """Adds a batch's gradients to the optimizer's; returns its share of the mean loss, which the next call changes.

        Args:
            batch: on the CPU.
            count: answer tokens of the accumulation window.
        """
        size = batch.inputs.size
        if size not in self._inputs:
            self._inputs[size] = StaticInputs(torch.zeros_like(batch.inputs.vector, device=self.runner.device), size)
        inputs = self._inputs[size]
        batch.inputs.scale_1.fill_(1.0 / count)
        inputs.vector.copy_(batch.inputs.vector, non_blocking=True)
        self.runner.run(size, lambda: self._pass(inputs))
        return self.loss

    def _pass(self, inputs: StaticInputs) -> None:
        self.copies.refresh()
        losses_A = self.loss_sums(inputs) * inputs.scale_1
        self.losses_A.add_(losses_A.detach())
        self.loss.copy_(losses_A.detach().sum())
        self.add_gradients(losses_A.sum())

    def add_gradients(self, loss: torch.Tensor) -> None:
        """Adds the gradients of a loss to the optimizer's."""
        scaler = self.optimizer.scaler
        scaled = loss if scaler is None else scaler.scale(loss)
        self.copies.add_gradients(torch.autograd.grad(scaled, self.copies.leaves, materialize_grads=True))


class LowPrecisionCopies:
    """Copies of LoRA weights in the backbone's dtype, cast all at once instead of one by one in every product.

    Args:
        optimizer: of the fp32 weights.
        weights: that products read through `low_precision`, see `lora_linear`.
        dtype: of the copies; none are made in fp32.

    Attributes:
        leaves: the tensor that a gradient is taken of, for each parameter of the optimizer.
    """

    def __init__(self, optimizer: FlatAdamW, weights: Sequence[torch.nn.Parameter], dtype: torch.dtype) -> None:
        copied = {id(weight) for weight in weights} if dtype != torch.float32 else set()
        self.optimizer = optimizer
        self._vectors = [flat.weights.to(dtype) for flat in optimizer.flats] if copied else []
        self.leaves: list[torch.Tensor] = []
        for number, flat in enumerate(optimizer.flats):
            parts = flat.parts(self._vectors[number]) if copied else flat.parameters
            for parameter, part in zip(flat.parameters, parts, strict=True):
                leaf: torch.Tensor = parameter
                if id(parameter) in copied:
                    leaf = part.detach().requires_grad_()
                    parameter.low_precision = leaf
                self.leaves.append(leaf)

    @torch.no_grad()
    def refresh(self) -> None:
        """Copies the parameters' values into the copies."""
        for vector, flat in zip(self._vectors, self.optimizer.flats, strict=False):
            vector.copy_(flat.weights)

    def add_gradients(self, gradients: Sequence[torch.Tensor]) -> None:
        """Adds the gradients of `leaves` to the optimizer's."""
        self.optimizer.add_gradients(gradients)


def weight_copies(
    model: torch.nn.Module,
    optimizer: FlatAdamW,
    weights: Sequence[torch.nn.Parameter],
    adapters: Sequence[str] | None,
    dtype: torch.dtype,
) -> LowPrecisionCopies | AdapterStack:
    """Returns what a step computes with: stacks where adapters train together and nothing else does, else copies."""
    gradients = optimizer.gradients()
    if adapters is not None and gradients.keys() == {id(weight) for weight in weights}:
        return AdapterStack(model, adapters, dtype, gradients)
    return LowPrecisionCopies(optimizer, weights, dtype)


def drop_copies(model: torch.nn.Module) -> None:
    """Takes away what `weight_copies` made; products cast and stack the weights themselves again."""
    lora_linear.drop_low_precision(model)
    drop_stacks(model)
