"""Names and folders of what ships with the package: the tiny Vietnamese backbone and the feedback data."""

from pathlib import Path

HERE = Path(__file__).parent


def bundled_backbones() -> dict[str, Path]:
    """The folder of each bundled backbone, by name."""
    return {"loraft-vi-tiny": HERE / "loraft-vi-tiny"}


def bundled_data() -> dict[str, Path]:
    """The folder of each bundled data set, by name."""
    return {"feedback": HERE / "feedback"}
