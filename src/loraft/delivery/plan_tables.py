"""The tables and lines of `loraft plan`."""

from rich.table import Table

from loraft.delivery.memory_plan import METHODS, MOST_ROWS, Memory
from loraft.delivery.plan import GIB, HERE, KEPT_BACK, RESERVE, Fit, Plan
from loraft.display import table
from loraft.progress import duration

NAMES = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}
PARTS = ("weights", "gradients", "optimizer", "activations", "peak")


def parameter_line(plan: Plan) -> str:
    """The line that peft's `print_trainable_parameters` prints."""
    share = 100 * plan.trainable / plan.total
    return f"trainable params: {plan.trainable:,d} || all params: {plan.total:,d} || trainable%: {share:.4f}"


def head_lines(plan: Plan) -> list[str]:
    """What is planned: weights, bits, batches, and what was assumed."""
    shared = f"; a batch computes its first {plan.prefix} once" if plan.shared_prefix else ""
    again = "; activations twice" if plan.checkpointing else ""
    return [
        parameter_line(plan),
        f"{plan.bits:.3f} bits a quantised weight (QLoRA)",
        f"{plan.batch} rows of up to {plan.length} tokens{shared}{again}",
        *(f"note: {note}" for note in plan.notes),
    ]


def title(plan: Plan) -> str:
    """Of the figure."""
    return f"{plan.backbone}: {plan.batch} rows of up to {plan.length} tokens"


def by_name(plan: Plan) -> dict[str, Memory]:
    """Memory of the methods on this machine, by their names for people with the dtype of the weights."""
    return {f"{NAMES[method]}, {plan.dtypes[method]}": plan.methods[method] for method in METHODS}


def memory_table(plan: Plan) -> Table:
    """Memory on this machine in GiB, a row for each method."""
    made = table.number_table("GiB", *PARTS)
    for name, memory in by_name(plan).items():
        table.add_row(made, name, *(f"{getattr(memory, part) / GIB:.3f}" for part in PARTS))
    return made


def device_table(plan: Plan) -> Table:
    """The largest batch of each method on each device, and whether the config's batch fits."""
    made = table.number_table("largest batch", "GiB", *NAMES.values())
    for name, fit in plan.devices.items():
        table.add_row(made, name, f"{fit.room / GIB:.2f}", *(_verdict(fit, method) for method in METHODS))
    return made


def _verdict(fit: Fit, method: str) -> str:
    if not fit.batches[method]:
        return "does not fit"
    return f"{fit.batches[method]}" + ("" if fit.fits[method] else ", less than asked")


def foot_lines(plan: Plan) -> list[str]:
    """What the tables mean, and how long the training takes."""
    dtypes = "/".join(dict.fromkeys(plan.dtypes.values()))
    lines = [
        f"GiB: free on {HERE}, where weights are {dtypes}. A card computes in 16 bits; of what PyTorch finds there,"
        f" {RESERVE} GiB are for CUDA and {KEPT_BACK:.0%} for holes. Largest batch: a power of two up to {MOST_ROWS}."
        " Full fine-tuning: fp32 weights, padded rows of a batch."
    ]
    if plan.steps is None:
        return [*lines, "steps: not known without the data; --set train.max_steps=N gives them"]
    lines.append(f"training: {plan.steps:,} steps, about {plan.tokens:,} tokens ({plan.padded_tokens:,} padded)")
    if plan.calibration is not None and plan.seconds is not None:
        timed = plan.calibration
        lines.append(
            f"time here: {duration(plan.seconds)} without evaluations; {timed.seconds_per_step:.3g} s a step,"
            f" {timed.tokens_per_second:,.0f} tokens/s, by {timed.steps} steps ({timed.method})"
        )
    return lines
