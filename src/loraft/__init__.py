"""loraft: fine-tune a causal language model into a text classifier with LoRA or QLoRA, and measure it honestly.

The names below are the whole public API. They are imported on first use, so that `import loraft` stays cheap.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Config": "config.schema",
    "ConfigError": "errors",
    "DataError": "errors",
    "BackboneError": "errors",
    "LoraftError": "errors",
    "RunError": "errors",
    "resolve": "config.resolve",
    "dump_yaml": "config.yaml_io",
    "load_resolved": "config.resolve",
    "train": "training.pipeline",
    "evaluate": "evaluation.evaluate",
    "predict": "evaluation.predict",
    "fewshot": "studies.fewshot.study",
    "sweep": "studies.sweep.runner",
    "compare": "studies.compare.compare",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module 'loraft' has no attribute {name!r}; public names: {', '.join(sorted(_HOME))}")
    return getattr(import_module(f"loraft.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
