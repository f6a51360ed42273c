"""A finished run over the bundled backbone, with the `loraft.json` that trainings write."""

import json
import shutil
from pathlib import Path
from typing import Any

from loraft.config.resolve import load_config, resolve
from loraft.config.yaml_io import dump_config
from loraft.runs.atomic_files import write_json
from loraft.runs.hashes import hashes_of
from loraft.runs.run import Run

FIRST = Path(__file__).parents[1] / "fixtures" / "first_layout" / "run"


def finished_run(folder: Path, *overrides: str) -> Run:
    """A copy of the run of the first layout, as if trained with these settings; the weights are the same."""
    run = Run(Path(shutil.copytree(FIRST, folder)))
    config = resolve(base=load_config(run.config_path), overrides=overrides)
    run.config_path.write_text(dump_config(config), encoding="utf-8")
    change_bundle(run.adapter, config=config.model_dump(), files=hashes_of(run.adapter, ADAPTER))
    return run


ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def change_bundle(folder: Path, **content: Any) -> None:
    """Changes keys of a folder's `loraft.json`."""
    path = folder / "loraft.json"
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **content})
