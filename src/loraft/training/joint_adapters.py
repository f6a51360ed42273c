"""What a trainer must know of the adapters that train together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class JointAdapters:
    """The adapters of a joint training.

    Attributes:
        names: of the adapters in peft, the smaller ranks first.
        learning_rates: of each.
        best: folder in which each adapter's best weights are kept, with `best.json`.
        report: takes the number of an adapter and one line of its log.
    """

    names: Sequence[str]
    learning_rates: Sequence[float]
    best: Path
    report: Callable[[int, dict[str, Any]], None]
