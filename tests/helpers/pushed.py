"""A finished run over the bundled backbone, with the `loraft.json` that trainings write."""

import json
import shutil
from pathlib import Path
from typing import Any

from loraft.config.resolve import load_config, resolve
from loraft.config.yaml_io import dump_config
from loraft.runs.atomic_files import write_json
from loraft.runs.hashes import hashes_of, sha256_of
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


def made_folder(run: Run, folder: Path, kind: str) -> Path:
    """A folder as a merge or an export leaves it, with empty weights."""
    folder.mkdir()
    settings = {"architectures": ["LlamaForCausalLM"], "_name_or_path": "/chỗ/khác/mô hình"}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json", "spiece.model",
                 "model.onnx", "model.gguf"):  # fmt: skip
        (folder / name).write_text("{}", encoding="utf-8")
    (folder / "pytorch_model.bin").touch()
    files = hashes_of(folder, [path.name for path in folder.iterdir()])
    shutil.copy(run.adapter / "loraft.json", folder)
    to = {} if kind == "merged" else {"to": kind}
    merged = {
        "backbone": "/chỗ/khác/mô hình",
        "rows": 317,
        "split": "/chỗ/khác/val.csv",
        "compared": {"agreement": 0.99},
    }
    weights = sha256_of(run.adapter / "adapter_model.safetensors")
    change_bundle(folder, files=files, merged={**to, **merged, "adapter_sha256": weights})
    return folder


def code_blocks(card: str) -> list[str]:
    """The code of a card."""
    return [part.partition("\n")[2] for part in card.split("```")[1::2]]
