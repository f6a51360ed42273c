"""Names and folders of what ships with the package: tiny Vietnamese backbones, a finished adapter, feedback data."""

from pathlib import Path

HERE = Path(__file__).parent


def bundled_backbones() -> dict[str, Path]:
    """The folder of each bundled backbone, by name."""
    return {folder.name: folder for folder in sorted(HERE.glob("loraft-vi-*"))}


def bundled_data() -> dict[str, Path]:
    """The folder of each bundled data set, by name."""
    return {"feedback": HERE / "feedback"}


def bundled_adapters() -> dict[str, Path]:
    """The folder of each bundled adapter by name; it is used like a finished run."""
    return {"demo": HERE / "demo"}
