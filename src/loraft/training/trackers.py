"""Sends a run's config and the lines of its log to TensorBoard, Weights & Biases, MLflow and trackio.

What is sent: the resolved config, the numbers of `log.jsonl`, and the scores on the test split. No sentence of the
data, no file and nothing that is printed. A tracker that cannot be opened ends the run before it has trained; one that
fails later is left out with a warning. `trackers.json` in the run's folder has the ids by which a resumed run goes on
in the same place.
"""

import os
import secrets
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from types import TracebackType
from typing import Any

from huggingface_hub import constants

from loraft.config.diagnostics import known_keys, value_of
from loraft.config.schema import Config
from loraft.distributed import is_main_process
from loraft.errors import LoraftError, first_line
from loraft.runs.records import read_object, write_record
from loraft.runs.run import Run, default_name

PROJECT = "loraft"  # where no environment variable of the tracker names another
IDS_FILE = "trackers.json"
PARAMS_AT_ONCE, LONGEST_PARAM = 100, 500  # limits of MLflow's servers


class _TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, run: Run, name: str, values: dict[str, Any], ids: dict[str, str]) -> None:
        try:
            self._new: Any = import_module("torch.utils.tensorboard").SummaryWriter
        except ImportError:
            self._new = import_module("tensorboardX").SummaryWriter
        self._folder = str(run.path / "tensorboard")
        self._writer: Any = None
        self._config = "\n".join(f"    {key}: {value}" for key, value in values.items())  # Markdown, as code

    def log(self, step: int, values: dict[str, float]) -> None:
        if self._writer is None:
            # A process that was killed may have logged this step and later ones already: TensorBoard drops those.
            again = not any(key.startswith("test/") for key in values)
            self._writer = self._new(self._folder, purge_step=step if again else None)
            self._writer.add_text("config", self._config)
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        if self._writer is not None:
            self._writer.close()


class _WandB:
    """A run in Weights & Biases, with its files in the run's folder; what is printed is not captured."""

    def __init__(self, run: Run, name: str, values: dict[str, Any], ids: dict[str, str]) -> None:
        offline = constants.HF_HUB_OFFLINE and "WANDB_MODE" not in os.environ
        self._run = import_module("wandb").init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            group=_group(name),
            id=ids.setdefault("wandb", secrets.token_hex(4)),
            resume="allow",
            dir=str(run.path),
            config=values,
            mode="offline" if offline else None,
            # The patch of a changed repository may hold rows.
            settings={"console": "off", "disable_git": not values["output.texts"]},
        )
        self._run.define_metric("*", step_metric="train/global_step")

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log({**values, "train/global_step": step})

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _MLflow:
    """A run in MLflow, where its own variables say; the config is its parameters."""

    def __init__(self, run: Run, name: str, values: dict[str, Any], ids: dict[str, str]) -> None:
        self._mlflow = mlflow = import_module("mlflow")
        known = ids.get("mlflow")
        if known is None and "MLFLOW_EXPERIMENT_ID" not in os.environ:
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        opened = mlflow.start_run(run_id=known, run_name=name, nested=mlflow.active_run() is not None)
        ids["mlflow"] = opened.info.run_id
        params = [(key, str(value)[:LONGEST_PARAM]) for key, value in values.items()]
        for first in range(0, len(params) if known is None else 0, PARAMS_AT_ONCE):  # they cannot be changed later
            mlflow.log_params(dict(params[first : first + PARAMS_AT_ONCE]))

    def log(self, step: int, values: dict[str, float]) -> None:
        self._mlflow.log_metrics(values, step=step)

    def close(self, *, failed: bool) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


class _Trackio:
    """A run in trackio, which keeps its files itself, and knows a run by its name."""

    def __init__(self, run: Run, name: str, values: dict[str, Any], ids: dict[str, str]) -> None:
        self._trackio = import_module("trackio")
        self._trackio.init(project=PROJECT, name=name, group=_group(name), config=values, resume="allow")

    def log(self, step: int, values: dict[str, float]) -> None:
        self._trackio.log(values, step=step)

    def close(self, *, failed: bool) -> None:
        self._trackio.finish()  # the run's own `finish` is called again when Python ends, and prints on stdout


# Each is opened with the run's directory and name, the values of the config's keys, and the ids of this run in the
# trackers where it was opened before, to which it adds its own. Other trackers are transformers' own.
KINDS: dict[str, Callable[[Run, str, dict[str, Any], dict[str, str]], Any]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "mlflow": _MLflow,
    "trackio": _Trackio,
}


class Trackers:
    """The trackers of one run; as a context it closes those that are open, whatever ended the run.

    Args:
        run: the run directory.
        config: of the run.
    """

    def __init__(self, run: Run, config: Config) -> None:
        self._run, self._config = run, config
        self._open: dict[str, Any] = {}

    def open(self) -> None:
        """Opens them, in the main process.

        Raises:
            LoraftError: one cannot be opened.
        """
        wanted = [name for name in dict.fromkeys(self._config.train.report_to) if name in KINDS]
        if not wanted or not is_main_process():
            return
        ids_path = self._run.path / IDS_FILE
        ids = read_object(ids_path, "delete it: the trackers begin anew") if ids_path.exists() else {}
        title = self._config.name or default_name(self._config)
        values = {key: value_of(self._config, key) for key in known_keys()}
        for name in wanted:
            try:
                with redirect_stdout(sys.stderr):
                    self._open[name] = KINDS[name](self._run, title, values, ids)
            except Exception as error:
                why = f"{type(error).__name__}: {first_line(error)}"
                raise LoraftError(
                    f"train.report_to: cannot be opened (got {name!r}: {why}); mend that, or leave it out"
                ) from error
        if ids:
            write_record(ids_path, ids)

    def log(self, line: Mapping[str, Any]) -> None:
        """Sends the numbers of one line of the log, in the groups train, eval and test.

        Args:
            line: `step`, and numbers by the names that the trainer gives them.
        """
        values = {_grouped(key): value for key, value in line.items() if key != "step" and value is not None}
        for name in [*self._open]:
            self._try(name, lambda tracker: tracker.log(line["step"], values))

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in [*self._open]:
            self._try(name, lambda tracker: tracker.close(failed=kind is not None))
        self._open.clear()

    def _try(self, name: str, call: Callable[[Any], None]) -> None:
        try:
            with redirect_stdout(sys.stderr):
                call(self._open[name])
        except Exception as error:
            del self._open[name]
            why = f"{type(error).__name__}: {first_line(error)}"
            warnings.warn(f"train.report_to: {name} failed ({why}); the run goes on without it", stacklevel=3)


def _group(name: str) -> str | None:
    """The sweep of a trial."""
    return name.rpartition("/")[0] or None


def _grouped(key: str) -> str:
    group, _, rest = key.partition("_")
    return f"{group}/{rest}" if group in ("eval", "test") else f"train/{key}"
