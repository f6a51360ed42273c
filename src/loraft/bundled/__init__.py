"""What ships with the package: the tiny Vietnamese backbone and the feedback data."""

from loraft.bundled.names import HERE, bundled_backbones, bundled_data

__all__ = ["HERE", "bundled_backbones", "bundled_data"]
