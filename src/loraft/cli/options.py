"""The flags of the command line, each declared once, with its help and its completion.

Completion functions return all values, of which Typer keeps those that fit; they import the config when they run.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loraft.bundled import bundled_backbones, bundled_data
from loraft.cli.help_page import CONFIG
from loraft.config.names import SHORT
from loraft.errors import ConfigError

if TYPE_CHECKING:
    from loraft.config.schema import Config


def choice(*words: str, names: Sequence[str] = (), **given: Any) -> Any:
    """An option that takes one of these words, which stand on the help page and complete; the command checks them."""
    return typer.Option(*names, metavar="|".join(words), autocompletion=lambda: list(words), **given)


def of_key(key: str, *names: str, **given: Any) -> Any:
    """An option that stands for a config key: the help page and completion take default and choices from there."""
    return typer.Option(*names, **{"show_default": f"{{{key}}}", "autocompletion": _completion(key), **given})


def _completion(key: str) -> Callable[[str], list[str]]:
    return lambda incomplete: _complete_values(key, incomplete)


def _complete_values(key: str, incomplete: str) -> list[str]:
    from loraft.config.reference import reference, written
    from loraft.config.resolve import presets, task_names

    named: dict[str, Callable[[], Iterable[str]]] = {
        "preset": presets,
        "prompt.task": task_names,
        "model.name": bundled_backbones,
        "data.source": bundled_data,
    }
    if key in named:
        return [*named[key](), *(paths(incomplete) if key != "preset" else [])]
    if key not in reference():
        return []
    known = reference()[key]
    default = written(known.default)
    return [*(known.choices or known.examples or ([] if " " in default else [default]))]


def paths(incomplete: str) -> list[str]:
    """Files and folders that begin so, without hidden ones; a single folder comes with what it holds.

    Names with blanks are left to the shell, which quotes them where nothing else is offered.
    """
    folder, slash, begin = incomplete.rpartition("/")
    try:
        inside = sorted(path.name + "/" * path.is_dir() for path in Path(folder + slash).iterdir())
    except OSError:
        return []
    found = [f"{folder}{slash}{name}" for name in inside
             if name.startswith(begin) and not name.startswith(".") and len(name.split()) == 1]  # fmt: skip
    return [*found, *paths(found[0])] if len(found) == 1 and found[0].endswith("/") else found


def complete_split(incomplete: str) -> list[str]:
    """The splits, and files."""
    return ["train", "validation", "test", *paths(incomplete)]


def complete_pairs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Keys, and after KEY= its values, without KEY= where `completion.for_bash` has given that as a pair before.

    A single key comes with its values, since shells end a single completion with a space.
    """
    from loraft.config.diagnostics import known_keys

    before = [*(ctx.params.get("sets") or ()), *(ctx.params.get("grid") or ()),
              *(ctx.params.get("search") or ())]  # fmt: skip
    if before and before[-1].endswith("="):
        return _complete_values(before[-1].rstrip("="), incomplete)
    key, equals, begin = incomplete.partition("=")
    if equals:
        return [f"{key}={value}" for value in _complete_values(key, begin)]
    keys = [known for known in known_keys() if known.startswith(key)]
    values = [f"{keys[0]}={value}" for value in _complete_values(keys[0], "")] if len(keys) == 1 else []
    return [*(f"{known}=" for known in keys), *values]


def complete_key() -> list[str]:
    """Every key of the config, and its sections."""
    from loraft.config.diagnostics import known_keys

    keys = known_keys()
    return [*dict.fromkeys(key.partition(".")[0] for key in keys if "." in key), *keys]


def complete_run(ctx: typer.Context) -> list[str]:
    """Finished runs, trials of sweeps among them, sweeps (their best trial is meant), and bundles."""
    from loraft.runs.run import MANIFEST_FILE, Run
    from loraft.runs.study_folders import SweepFolder

    return _names(ctx, Run.results_file, f"*/{Run.results_file}", SweepFolder.results_file, MANIFEST_FILE)


def complete_work(ctx: typer.Context) -> list[str]:
    """Runs and studies, finished or not, and trials of sweeps."""
    from loraft.runs.run import MANIFEST_FILE, Run
    from loraft.runs.study_folders import (
        AuditFolder,
        DatasetFolder,
        FewshotFolder,
        FoldsFolder,
        RankCurveFolder,
        SweepFolder,
    )

    kinds = (Run, SweepFolder, RankCurveFolder, FoldsFolder, FewshotFolder, DatasetFolder, AuditFolder)
    return _names(ctx, f"*/{Run.config_file}", MANIFEST_FILE, *(kind.config_file for kind in kinds))


def _names(ctx: typer.Context, *files: str) -> list[str]:
    """The folders of the runs that hold one of these files, by their paths in the folder that --output names."""
    given = ctx.params.get("output")  # of merge and export a path: where they write to
    output = Path(given if isinstance(given, str) else "runs")
    found = {path.parent.relative_to(output).as_posix() for file in files for path in output.glob(f"[!.]*/{file}")}
    return sorted(found)


# Values that the config checks come in as text, so that all mistakes are reported together.
Preset = Annotated[str | None, of_key("preset", help="Values to start from.", metavar="NAME", rich_help_panel=CONFIG)]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file over the preset, or a run's config.yaml.", show_default="none",
                 rich_help_panel=CONFIG),
]  # fmt: skip
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any config key, repeatable; loraft config --describe lists them.",
                 autocompletion=complete_pairs, rich_help_panel=CONFIG),
]  # fmt: skip
Model = Annotated[
    str | None,
    of_key("model.name", help="Backbone: bundled name, hub id, folder or GGUF file.", metavar="NAME",
           rich_help_panel=CONFIG),
]  # fmt: skip
Data = Annotated[
    str | None,
    of_key("data.source", help="Rows: bundled name, hub id, folder or file.", metavar="NAME", rich_help_panel=CONFIG),
]
Task = Annotated[
    str | None,
    of_key("prompt.task", help="Built-in task, or its YAML file.", metavar="NAME", rich_help_panel=CONFIG),
]
Quant = Annotated[
    str | None,
    of_key("quant.method", help="Backbone's weights: as they are (LoRA), or in 4 bits (QLoRA).",
           rich_help_panel=CONFIG),
]  # fmt: skip
Rank = Annotated[str | None, of_key("lora.r", help="LoRA rank.", rich_help_panel=CONFIG)]
Output = Annotated[
    str | None, of_key("output.folder", help="Folder of the runs.", metavar="FOLDER", rich_help_panel=CONFIG)
]
Seed = Annotated[str | None, of_key("seed", help="Seed of everything random.", rich_help_panel=CONFIG)]
Decode = Annotated[
    str | None, of_key("eval.decode", help="score: exact label probabilities; generate: free text, parsed.")
]
NEWEST = "newest finished run"
RunName = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN", help="Name or path of a run.", show_default=NEWEST,
                 autocompletion=complete_run),
]  # fmt: skip
RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="Name or path of a run.", show_default=NEWEST, autocompletion=complete_run),
]
Adapter = Annotated[
    Path | None,
    typer.Option("--adapter", metavar="FOLDER", help="A LoRA adapter in PEFT's format, made elsewhere; with --task.",
                 show_default="none"),
]  # fmt: skip
Split = Annotated[
    str,
    typer.Option(metavar="SPLIT|FILE", help="Rows to work on: train, validation or test, or a labelled file.",
                 autocompletion=complete_split),
]  # fmt: skip
Source = Annotated[
    str | None,
    typer.Argument(metavar="DATA", help="As --data: bundled name, hub id, folder or file.",
                   show_default="that of --data",
                   autocompletion=_completion("data.source")),
]  # fmt: skip
MinAgreement = Annotated[
    float, typer.Option(help="Share of rows, 0 to 1, that must get the run's label; else nothing is written.")
]
Raw = Annotated[bool, typer.Option("--raw", help="Probabilities as scored, without the run's calibration.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the libraries' warnings.")]


@dataclass(frozen=True)
class ConfigFlags:
    """The flags that stand for keys of the config, as a command got them; `with_config_flags` gives them to it."""

    preset: Preset = None
    config: ConfigFile = None
    sets: Sets = None
    model: Model = None
    data: Data = None
    task: Task = None
    quant: Quant = None
    rank: Rank = None
    output: Output = None
    seed: Seed = None

    def keys(self, **more: str | None) -> dict[str, Any]:
        """Config keys of the short flags; `more` are those of the command's own flags."""
        return dotted(**{flag: getattr(self, flag) for flag in SHORT_OF_ALL}, **more)

    def resolve(self, *, flags: Mapping[str, Any]) -> "Config":
        """The config of preset, file and --set, with the values of these keys over them."""
        from loraft.config.resolve import resolve

        return resolve(preset=self.preset, config_file=self.config, overrides=self.sets or (), flags=flags)

    def of_source(self, source: str | None) -> "ConfigFlags":
        """With the source that a command got as its argument.

        Raises:
            ConfigError: --data names another.
        """
        if source is None:
            return self
        if self.data not in (None, source):
            raise ConfigError(
                f"--data: another source than the argument (got {self.data} and {source}); give one of them"
            )
        return replace(self, data=source)

    def given(self, *names: str) -> list[str]:
        """Those of these flags that the user gave, as they are typed."""
        return [f"--{name}" for name in names if getattr(self, name) is not None]


SHORT_OF_ALL = ("model", "data", "task", "quant", "rank", "output", "seed")


def with_config_flags(*, without: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declares the flags of `ConfigFlags` for a command, which gets them as its first argument, `given`.

    Args:
        without: flags that the command does not have.
    """

    def declared(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        _, *own = signature.parameters.values()
        flags = [one for one in inspect.signature(ConfigFlags, eval_str=True).parameters.values()
                 if one.name not in without]  # fmt: skip

        @wraps(command)
        def called(**values: Any) -> None:
            command(ConfigFlags(**{flag.name: values.pop(flag.name) for flag in flags}), **values)

        parameters = [one.replace(kind=one.KEYWORD_ONLY) for one in (*own, *flags)]
        called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return called

    return declared


def in_its_folder(
    resolved: "Config", again: Callable[..., "Config"], flags: Mapping[str, Any], *where: Any
) -> "Config":
    """The config, for the directory that its file lies in where that was renamed, moved or copied.

    Args:
        resolved: by `again(flags=flags)`.
        again: resolves with other flags.
        flags: config keys of the command's flags.
        *where: the further arguments of `runs.resume.where_it_lies`.
    """
    from loraft.runs.resume import where_it_lies

    moved = where_it_lies(resolved, *where)
    return again(flags={**flags, **moved}) if moved else resolved


def dotted(**given: str | None) -> dict[str, str | None]:
    """Config keys of the short flags: `dotted(rank="8")` is `{"lora.r": "8"}`."""
    return {SHORT.get(flag, flag): value for flag, value in given.items()}


def uncalibrated(raw: bool) -> str | None:
    """The value of `eval.calibrate` that --raw stands for."""
    return "false" if raw else None
