"""The command `loraft serve`: an HTTP server for finished runs, or what another server needs for one."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loraft.cli.console import results_follow, say, start_command
from loraft.cli.finished_run import finished_run
from loraft.cli.options import NEWEST, Output, Sets, Verbose, choice, complete_run
from loraft.config.names import show
from loraft.errors import ConfigError

if TYPE_CHECKING:
    from loraft.config.schema import Config


def serve(
    runs: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="RUN", help="Name or path of a run; repeatable.", show_default=NEWEST,
                     autocompletion=complete_run),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 is every network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")] = 8000,
    max_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Rows that are computed together.", show_default="32; on a GPU 256"),

    ] = None,
    max_queue: Annotated[int, typer.Option(min=1, help="Rows that may wait; beyond, 429 is the answer.")] = 1024,
    command: Annotated[
        str | None,
        choice("vllm", "ollama", help="Print what that server needs for the run, and exit.", show_default="none"),

    ] = None,
    sets: Sets = None,
    output: Output = None,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Answer requests for labels and probabilities over HTTP.

    Until Ctrl-C or SIGTERM; prints the address. POST /classify {"input": "câu"} or a list; "model" names a run, by
    default the first. GET / is a page to try it.

    Examples:
        loraft serve --port 8080
        loraft serve --command vllm
    """
    if command not in (None, "vllm", "ollama"):
        raise ConfigError(f"--command: unknown (got {show(command)}); allowed: vllm, ollama")
    found = [finished_run(name, output, sets or (), {}) for name in (runs or (None,))]
    if command is not None:
        if len(found) > 1:
            raise ConfigError(f"--command: is for one run (got {len(found)}); give one --run")
        _print_for_another(command, *found[0])
        return
    from loraft.delivery import serving
    from loraft.delivery.batching import Limits
    from loraft.delivery.server import Service
    from loraft.models.calibration import NONE

    serving.check_installed()
    bound = serving.listening_socket(host, port)
    start_command(found[0][1], verbose, adapter=found[0][0], source="requests")
    for path, config in found[1:]:
        say(f"backbone {config.model.label}, adapter {path}")
    names = [serving.model_name(name, path) for name, (path, _) in zip(runs or (None,), found, strict=True)]
    models = serving.load([(name, path, config) for name, (path, config) in zip(names, found, strict=True)])
    batch = max_batch or serving.good_batch(models.values())
    for name, model in models.items():
        if model.calibration != NONE:
            say(f"{name}: probabilities are calibrated, {model.calibration.words}")
    service = Service(models, Limits(batch=batch, queue=max_queue))
    results_follow()
    address, taken = bound.getsockname()[:2]

    def ready() -> None:
        print(f"http://{f'[{address}]' if ':' in address else address}:{taken}", flush=True)

    serving.serve(service, bound, ready=ready)


def _print_for_another(command: str, path: Path, config: "Config") -> None:
    from loraft.delivery import other_servers
    from loraft.models import manifest
    from loraft.models.calibration import NONE
    from loraft.runs.run import Run

    run = Run.open(path)
    calibration = manifest.calibration(run.adapter, config)
    if calibration != NONE:
        biased = ", and may give another label, since biases change labels" if calibration.bias else ""
        say(f"note: {command} generates the answer as scored, without the run's calibration{biased}")
    if command == "vllm":
        print(shlex.join(other_servers.vllm_command(run, config)))
        say(f"a request: {shlex.join(other_servers.vllm_request(run, config, 'thầy giảng bài rất dễ hiểu'))}")
        return
    own = other_servers.run_gguf(run)
    folder = f"{run.name}-gguf"
    print(other_servers.modelfile(run, config, f"./{folder}/{other_servers.GGUF}" if own is None else str(own)), end="")
    if own is None:
        say(f"its file: loraft export {shlex.quote(str(path))} --to gguf --output {shlex.quote(folder)}")
    say(f"then: ollama create {shlex.quote(run.name)} -f MODELFILE")
