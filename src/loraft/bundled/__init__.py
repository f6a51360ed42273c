"""What ships with the package: the tiny Vietnamese backbone, a finished adapter for it, and the feedback data."""

from loraft.bundled.names import HERE, bundled_adapters, bundled_backbones, bundled_data

__all__ = ["HERE", "bundled_adapters", "bundled_backbones", "bundled_data"]
