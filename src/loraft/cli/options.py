"""The flags of the command line, each declared once, with its help and its completion.

Completion functions return all values, of which Typer keeps those that fit; they import the config when they run.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loraft.bundled import bundled_backbones, bundled_data

if TYPE_CHECKING:
    from loraft.config.schema import Config

CONFIG = "Config"  # panel of the help page
SHORT = {
    "model": "model.name",
    "data": "data.source",
    "task": "prompt.task",
    "quant": "quant.method",
    "rank": "lora.r",
    "decode": "eval.decode",
    "calibrate": "eval.calibrate",
}


def _complete_preset() -> list[str]:
    from loraft.config.resolve import presets

    return list(presets())


def _complete_task() -> list[str]:
    from loraft.config.resolve import task_names

    return task_names()


def _complete_set() -> list[str]:
    from loraft.config.diagnostics import known_keys

    return [f"{key}=" for key in known_keys()]


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
Preset = Annotated[
    str | None,
    typer.Option(help="quickstart or tutorial.", autocompletion=_complete_preset, rich_help_panel=CONFIG),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file over the preset, or a run's.", rich_help_panel=CONFIG)
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any config key.", autocompletion=_complete_set,
                 rich_help_panel=CONFIG),
]  # fmt: skip
Model = Annotated[
    str | None,
    typer.Option(help="Backbone: bundled name, hub id, folder, GGUF file.",
                 autocompletion=lambda: list(bundled_backbones()), rich_help_panel=CONFIG),
]  # fmt: skip
Data = Annotated[
    str | None,
    typer.Option(help="Bundled name, hub id, folder or file.", autocompletion=lambda: list(bundled_data()),
                 rich_help_panel=CONFIG),
]  # fmt: skip
Task = Annotated[
    str | None,
    typer.Option(help="sentiment, topic, or a YAML file.", autocompletion=_complete_task, rich_help_panel=CONFIG),
]
Quant = Annotated[
    str | None,
    typer.Option(help="none (LoRA) or nf4 (QLoRA).", autocompletion=lambda: ["none", "nf4"], rich_help_panel=CONFIG),
]
Rank = Annotated[str | None, typer.Option(metavar="INTEGER", help="LoRA rank.", rich_help_panel=CONFIG)]
Output = Annotated[str | None, typer.Option(metavar="FOLDER", help="Where the runs lie: runs.", rich_help_panel=CONFIG)]
Seed = Annotated[str | None, typer.Option(metavar="INTEGER", help="Of everything random.", rich_help_panel=CONFIG)]
RunName = Annotated[
    str | None,
    typer.Option("--run", help="Name or path; else the newest finished run.", autocompletion=complete_run),
]
RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="Name or path; else the newest finished run.", autocompletion=complete_run),
]
Adapter = Annotated[
    Path | None,
    typer.Option("--adapter", metavar="FOLDER", help="A LoRA adapter in PEFT's format, made elsewhere; with --task."),
]
Raw = Annotated[bool, typer.Option("--raw", help="Probabilities as scored, without the run's calibration.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the libraries' warnings.")]


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
