"""The commands `loraft models` and `loraft config`: what ships with loraft, and the resolved config."""

from pathlib import Path

from loraft.bundled import bundled_adapters, bundled_backbones, bundled_data
from loraft.cli.console import print_json
from loraft.cli.options import ConfigFile, Data, Json, Model, Output, Preset, Quant, Rank, Seed, Sets, Task, dotted


def list_bundled(json: Json = False) -> None:
    """List what ships with loraft: backbones, an adapter and data with their licences, tasks, presets."""
    from loraft.config.resolve import presets, tasks
    from loraft.display import table

    folders = [("backbone", *item) for item in bundled_backbones().items()]
    folders += [("adapter", *item) for item in bundled_adapters().items()]
    folders += [("data", *item) for item in bundled_data().items()]
    rows = [{"name": name, "kind": kind, "licence": _licence(path), "path": str(path)} for kind, name, path in folders]
    for kind, paths in (("task", tasks()), ("preset", presets())):
        rows += [{"name": n, "kind": kind, "licence": "Apache-2.0", "path": str(p)} for n, p in paths.items()]
    if json:
        print_json(rows)
    else:
        table.show([table.listing(["name", "kind", "licence", "path"], [list(row.values()) for row in rows])])


def show_config(
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    quant: Quant = None,
    rank: Rank = None,
    output: Output = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Print the resolved config, ready to be edited and given to --config."""
    from loraft.config.resolve import resolve
    from loraft.config.yaml_io import dump_config
    from loraft.runs.atomic_files import to_json

    flags = dotted(model=model, data=data, task=task, quant=quant, rank=rank, output=output, seed=seed)
    resolved = resolve(preset=preset, config_file=config, overrides=sets or (), flags=flags)
    print(to_json(resolved.model_dump()) if json else dump_config(resolved), end="\n" if json else "")


def _licence(folder: Path) -> str:
    """What the card's front matter says, as the hub reads it."""
    import yaml

    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    front = text.split("---")[1] if text.startswith("---") else ""
    return str((yaml.safe_load(front) or {}).get("license", "see its folder"))
