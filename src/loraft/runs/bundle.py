"""The config of a finished run, or of a bundle, which has it in its `loraft.json`."""

import os
from typing import Any

from loraft.config.names import show
from loraft.config.resolve import load_config, whole_config
from loraft.config.schema import Config, OutputSection
from loraft.errors import RunError
from loraft.runs.records import read_object
from loraft.runs.run import Bundle, Run

MEND = "copy the folder again"


def config_of(run: Run) -> Config:
    """The config that a run was trained with; merged weights are their own backbone.

    Its folder gives no leave to run code that comes with the backbone.

    Raises:
        ConfigError: the config is missing, damaged or of another version.
        RunError: a bundle's `loraft.json` is damaged.
    """
    config = _bundled(run) if isinstance(run, Bundle) else load_config(run.config_path)
    return config.model_copy(update={"model": config.model.model_copy(update={"trust_remote_code": False})})


def _bundled(bundle: Bundle) -> Config:
    content = read_object(bundle.results_path, MEND)
    backbone, data = (found if isinstance(found := content.get(key), dict) else {} for key in ("backbone", "data"))
    values = content.get("config")
    if values is None:  # bundles of earlier versions hold the sections that prediction needs
        model = {"name": backbone.get("name"), "revision": backbone.get("revision")}
        values = {"model": model, "quant": backbone.get("quant", {}), "prompt": content.get("prompt")}
        values |= {"data": {"source": data.get("source")}, "lora": {}, "train": {}}
    if not isinstance(values, dict):
        raise RunError(f"{bundle.results_path}: config must hold the config's sections (got {show(values)}); {MEND}")
    config = whole_config(values, bundle.results_path)
    # Neither the folders nor the files and trackers of a stranger.
    not_taken: dict[str, dict[str, Any]] = {
        "model": {"cache_dir": None},
        "data": {"cache_dir": None, "extra_train": []},
        "train": {"report_to": []},
        "output": {"folder": OutputSection().folder},
    }
    config = config.model_copy(
        update={key: getattr(config, key).model_copy(update=own) for key, own in not_taken.items()}
    )
    merged = content.get("merged")
    if merged is None:
        return config
    if isinstance(merged, dict) and merged.get("to") in ("classifier", "onnx"):
        raise RunError(
            f"{bundle.path}: is an export for other programs (got --to {merged['to']}); docs/export.md shows its use;"
            " name the run, or merged weights"
        )
    own = {"name": os.path.abspath(bundle.path), "revision": None, "dtype": backbone.get("dtype") or "auto"}
    changes = {"model": own, "quant": {"method": "none"}}
    return config.model_copy(update={key: getattr(config, key).model_copy(update=new) for key, new in changes.items()})
