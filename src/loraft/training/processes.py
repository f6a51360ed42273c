"""Trainings by several processes: what tells that one of them has ended, and how many rows a step has."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from loraft import distributed
from loraft.config.resolve import load_config
from loraft.config.schema import Config
from loraft.errors import OtherProcessError, RunError
from loraft.runs.environment import Environment
from loraft.runs.records import read_object, read_record
from loraft.runs.run import Run
from loraft.training.whole_checkpoints import STATE_FILE

BATCH_KEYS = ("train.per_device_train_batch_size", "train.gradient_accumulation_steps")


@contextmanager
def together(run: Run, *, on_cpu: bool) -> Iterator[None]:
    """Lets the processes of a launcher work together on a run during the block, see `distributed.together`.

    Raises:
        OtherProcessError: one of them has ended.
    """
    with distributed.together(on_cpu=on_cpu):
        try:
            yield
        except Exception as error:
            if not distributed.connection_lost(error):
                raise
            ended = distributed.lost(error) or "a process on another machine"
            begun = run.config_path.is_file()
            again = f"{run.how_to_resume}, behind a launcher, goes on" if begun else "run the command again"
            raise OtherProcessError(f"{ended} has ended, and with it all others; {again}") from error


def rows_a_step(config: Config) -> int:
    """The rows of one step of the optimizer: of all batches of all processes."""
    return config.train.per_device_train_batch_size * config.train.gradient_accumulation_steps * distributed.processes()


def begun_by(run: Run) -> int:
    """The number of processes that a run was begun by: of its environment, which a damaged one cannot say."""
    try:
        return int(read_record(run.environment_path, Environment, "").variables.get("WORLD_SIZE", "1"))
    except (RunError, ValueError):
        return distributed.processes()


def free_keys(run: Run, config: Config) -> tuple[str, ...]:
    """The keys of the batches that may differ where a training is resumed, since a step keeps its rows.

    Args:
        run: begun with its config; without a checkpoint its environment says by how many processes.
        config: of now.

    Raises:
        RunError: the config is the same, and a step would have other rows by the number of processes.
    """
    begun, now = load_config(run.config_path).train, rows_a_step(config)
    of_one = begun.per_device_train_batch_size * begun.gradient_accumulation_steps
    then = of_one * begun_by(run)
    for state in run.checkpoints.glob(f"checkpoint-*/{STATE_FILE}"):
        with suppress(RunError, KeyError, TypeError, AttributeError):  # damage is told where one is chosen
            saved = read_object(state, "")["stateful_callbacks"].get("TrainingClock", {}).get("attributes", {})
            # Earlier versions did not write it; each process wrote its random state.
            then = saved.get("rows") or of_one * len([*state.parent.glob("rng_state*.pth")]) or then
    if then == now:
        return BATCH_KEYS
    size, batches = config.train.per_device_train_batch_size, config.train.gradient_accumulation_steps
    if (size, batches) != (begun.per_device_train_batch_size, begun.gradient_accumulation_steps):
        return ()
    count = distributed.processes()
    share, left = divmod(then, size * count)
    way = f"--set {BATCH_KEYS[1]}={share} keeps them"
    if left:
        share, left = divmod(then, count)
        way = f"--set {BATCH_KEYS[0]}={share} --set {BATCH_KEYS[1]}=1 keeps them"
    if left:
        way = f"a number of processes that divides {then} can keep them"
    raise RunError(
        f"{run.path}: was begun with {then} rows a step (got {size} rows x {batches} batches x {count}"
        f" process{'es' * (count > 1)}); {way}"
    )
