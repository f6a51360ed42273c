"""A tiny random backbone instead of the bundled one."""

from collections.abc import Iterator
from typing import Any

import pytest
from helpers.tiny import backbone


@pytest.fixture(scope="module")
def loads() -> Iterator[list[Any]]:
    """Makes audits load a tiny random backbone; lists those that were loaded."""
    loaded: list[Any] = []

    def load(*sections: Any) -> Any:
        loaded.append(backbone())
        return loaded[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loraft.models.load.load_backbone", load)
        yield loaded
