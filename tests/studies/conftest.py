"""What the tests of several studies share."""

from collections.abc import Iterator
from typing import Any

import pytest
from helpers.figures import drawn_figures


@pytest.fixture
def drawn() -> Iterator[list[Any]]:
    """The figures that are drawn during the test."""
    with drawn_figures() as figures:
        yield figures
