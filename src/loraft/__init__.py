"""loraft: fine-tune a causal language model into a text classifier with LoRA or QLoRA, and measure it honestly.

The names below are the whole public API. They are imported on first use, so that `import loraft` stays cheap.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "BackboneError": "errors",
    "BadRow": "data.records",
    "Classifier": "evaluation.classifier",
    "Config": "config.schema",
    "ConfigError": "errors",
    "DataError": "errors",
    "Example": "data.records",
    "LoraftError": "errors",
    "Prediction": "evaluation.predict",
    "Run": "runs.run",
    "RunError": "errors",
    "compare": "studies.compare.compare",
    "describe": "studies.dataset.statistics",
    "dump_config": "config.yaml_io",
    "evaluate": "evaluation.evaluate",
    "fewshot": "studies.fewshot.study",
    "load": "evaluation.classifier",
    "load_config": "config.resolve",
    "predict": "evaluation.predict",
    "resolve": "config.resolve",
    "sweep": "studies.sweep.runner",
    "train": "training.pipeline",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module 'loraft' has no attribute {name!r}; public names: {', '.join(sorted(_HOME))}")
    return getattr(import_module(f"loraft.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
