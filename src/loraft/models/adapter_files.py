"""The weights in an adapter's file: which there are, and whether an adapter can hold such numbers."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open

from loraft.errors import BackboneError, listed
from loraft.runs.peft_folder import AGAIN, WEIGHTS_FILE

FLOATS = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float64: "float64"}


def check_weights(folder: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each weight in an adapter's file.

    Raises:
        BackboneError: the file cannot be read, or holds integers, NaN or infinities.
    """
    shapes, of_other_dtypes, not_finite = {}, [], []
    with errors_named(folder, "cannot be read", AGAIN), safe_open(folder / WEIGHTS_FILE, "pt") as file:
        for name in sorted(file.keys()):
            weight = file.get_tensor(name)
            shapes[name] = tuple(weight.shape)
            if weight.dtype not in FLOATS:
                of_other_dtypes.append(f"{str(weight.dtype).removeprefix('torch.')} in {name}")
            elif not weight.isfinite().all():
                not_finite.append(name)
    if of_other_dtypes:
        raise BackboneError(
            f"{folder}: weights of an adapter are floating-point numbers (got {listed(of_other_dtypes)}); allowed:"
            f" {', '.join(FLOATS.values())}; {AGAIN}"
        )
    if not_finite:
        raise BackboneError(
            f"{folder}: weights are NaN or infinite (got {listed(not_finite)}); its training diverged, or the file is"
            " damaged: train again with a lower train.learning_rate, or copy the folder again"
        )
    return shapes


def refuse_shapes(folder: Path, saved: Mapping[str, tuple[int, ...]], wanted: Mapping[str, torch.Tensor]) -> None:
    """Refuses weights of another shape than the adapter's config and the backbone ask for.

    Raises:
        BackboneError: there are some.
    """
    wrong = [
        f"{name} {_shape(saved[name])} instead of {_shape(weight.shape)}"
        for name, weight in sorted(wanted.items())
        if name in saved and saved[name] != tuple(weight.shape)
    ]
    if wrong:
        raise BackboneError(
            f"{folder}: the adapter does not fit the backbone or its own r (got the shapes {listed(wrong)}); name its"
            " backbone by --model, or copy the folder again"
        )


def _shape(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes))


@contextmanager
def errors_named(folder: Path, what: str, way: str) -> Iterator[None]:
    """Turns errors of loading an adapter into one that names the folder and says what to do."""
    try:
        yield
    except BackboneError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as peft has settings
        raise BackboneError(f"{folder}: the adapter {what} ({in_one_line(error)}); {way}") from error


def in_one_line(error: Exception) -> str:
    """The first line of an error that says something: torch's errors of loading begin with a heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("Error(s) in loading")), type(error).__name__)
