"""The commands `loraft models` and `loraft config`: what ships with loraft, the resolved config, and its keys."""

import shlex
import shutil
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from loraft.bundled import bundled_adapters, bundled_backbones, bundled_data
from loraft.cli.console import print_json
from loraft.cli.options import ConfigFlags, Json, complete_key, with_config_flags
from loraft.config.names import show
from loraft.errors import ConfigError, listed


def list_bundled(json: Json = False) -> None:
    """List what ships: backbones, an adapter, data, tasks, presets.

    With their licences and paths.

    Examples:
        loraft models
        loraft models --json
    """
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
        heads = ("name", "kind", "licence")
        table.show([table.listing(heads, [[row[head] for head in heads] for row in rows])])
        table.show_lines(f"{row['name']}: {row['path']}" for row in rows)  # whole, to be copied


@with_config_flags()
def show_config(
    given: ConfigFlags,
    key: Annotated[
        str | None,
        typer.Argument(metavar="KEY", help="With --describe: only this key, or the keys of this section.",
                       show_default="all keys", autocompletion=complete_key),
    ] = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="List the keys: what each means, its type, bounds and default.")
    ] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Print the resolved config, or with --describe what its keys mean.

    The config is YAML, ready to be edited and given to --config.

    Examples:
        loraft config --rank 8 --set train.max_steps=100
        loraft config --describe lora
    """
    from loraft.config.yaml_io import dump_config
    from loraft.runs.atomic_files import to_json

    if describe:
        if others := [f"--{'set' if name == 'sets' else name}" for name, value in vars(given).items() if value]:
            raise ConfigError(
                f"--describe: says what keys mean, not their values (got {listed(others)}); give it alone"
            )
        _describe(key, json=json)
        return
    if key is not None:
        named, typed = (key, shlex.quote(key)) if len(key) < 60 else (show(key), "KEY")
        raise ConfigError(f"{named}: is for --describe; loraft config --describe {typed}")
    resolved = given.resolve(flags=given.keys())
    print(to_json(resolved.model_dump()) if json else dump_config(resolved), end="\n" if json else "")


def _describe(name: str | None, *, json: bool) -> None:
    """Prints keys, each with its description and its values on lines of their own, which fit any terminal."""
    from loraft.config.reference import matching

    found = matching(name)
    if json:
        print_json(found)
        return
    width = min(shutil.get_terminal_size().columns, 100)
    for one in found:
        print(one.key)
        for line in (one.description, f"{one.type} [default: {one.default_words}]"):
            print(textwrap.fill(line, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))


def _licence(folder: Path) -> str:
    """What the card's front matter says, as the hub reads it."""
    import yaml

    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    front = text.split("---")[1] if text.startswith("---") else ""
    return str((yaml.safe_load(front) or {}).get("license", "see its folder"))
