"""The command `loraft push`: parses the flags; `delivery.push` does the work."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, say, warnings_said
from loraft.cli.options import Json, Output, RunArgument
from loraft.errors import listed
from loraft.visible import visible


def push(
    to: Annotated[str, typer.Option("--to", metavar="OWNER/NAME", help="Repository on the hub; made if missing.")],
    run: RunArgument = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="FOLDER",
            help="Output of loraft merge or export, in place of the adapter.",
            show_default="none",
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    revision: Annotated[
        str | None,
        typer.Option("--revision", metavar="BRANCH", help="Branch there; made if missing.", show_default="main"),
    ] = None,
    dry_run: Annotated[
        Path | None,
        typer.Option("--dry-run", metavar="FOLDER", help="Write the files there; send nothing.", show_default="off"),
    ] = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Upload a run's adapter, or weights made of it, to the hub.

    With a model card; prints the commit's address. The token is that of `hf auth login` or HF_TOKEN. The run is then
    used by its name there: --run hf:OWNER/NAME.

    Examples:
        loraft push --to my-name/feedback --dry-run upload
        loraft push --to my-name/feedback --private
    """
    from loraft.delivery.push import push as upload
    from loraft.runs.run import find_run, newest_finished

    place = Path(output or "runs")
    with warnings_said():
        found = newest_finished(place) if run is None else find_run(run, place)
        done = upload(found, to, folder=folder, private=private, branch=revision, dry_run=dry_run)
    told = listed(f"{name} ({size:,} bytes)" for name, size in done.files.items())
    say(f"{'uploaded' if done.revision else 'wrote'} {told}")
    if done.left_out:
        say(f"note: left out {listed(done.left_out)}")
    if done.deleted:
        say(f"note: deleted there, of an earlier push: {listed(done.deleted)}")
    if as_json:
        print_json(done)
    else:
        print(visible(done.url))
    if done.revision and done.kind in ("adapter", "merged", "gguf"):  # what loraft loads
        at = f"@{revision}" if revision else ""
        say(f"next: loraft predict --run {shlex.quote(f'hf:{to}{at}')} 'thầy giảng bài rất dễ hiểu'")
