"""What the tests of several studies share."""

from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn during the test, to be asked what they show."""
    figures: list[Any] = []
    make = Figure.__init__

    def keep(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        figures.append(self)

    monkeypatch.setattr(Figure, "__init__", keep)
    return figures
