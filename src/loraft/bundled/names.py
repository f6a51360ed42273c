"""What ships with the package: the tiny Vietnamese backbone, the feedback data and the tasks."""

from pathlib import Path

HERE = Path(__file__).parent


def bundled_backbones() -> dict[str, Path]:
    """Returns the folder of each bundled backbone by name."""
    return {"loraft-vi-tiny": HERE / "loraft-vi-tiny"}


def bundled_data() -> dict[str, Path]:
    """Returns the folder of each bundled data set by name."""
    return {"feedback": HERE / "feedback"}
