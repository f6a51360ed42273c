"""The command line. Each command checks and prints; the work is a plain function in `loraft.api`, imported late.

Help and completion need names and words only, so config, runs and tables are imported where a command begins.

Results go to stdout, everything else to stderr. Exit codes: 0, 1 for what went wrong, 2 for usage and config, 130
for an interrupt; `LORAFT_DEBUG=1` shows the traceback.
"""

import os
import sys
from collections.abc import Sequence

import typer

from loraft.cli import compare, data, evaluate, fewshot, inspect, predict, report, sweep, train
from loraft.errors import LoraftError

app = typer.Typer(
    name="loraft",
    help="Fine-tune a causal language model into a text classifier with LoRA or QLoRA, measure it, and use it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train.train)
app.command("eval")(evaluate.evaluate)
app.command()(predict.predict)
app.command()(fewshot.fewshot)
app.command()(sweep.sweep)
app.command()(compare.compare)
app.command()(data.data)
app.command()(report.report)
app.command("models")(inspect.list_bundled)
app.command("config")(inspect.show_config)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits; the one place where errors become messages and exit codes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in notebooks
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        app(arguments, prog_name="loraft")
    except LoraftError as error:
        if os.environ.get("LORAFT_DEBUG") == "1":
            raise
        separator = "\n  " if "\n" in str(error) else " "
        # not `say`: a process that is not the first must tell its own mistake as well
        print(f"error:{separator}" + str(error).replace("\n", "\n  "), file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
