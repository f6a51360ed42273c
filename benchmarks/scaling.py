"""What a sweep of 8 ranks x 5 seeds and 100 million predictions cost on 1, 8 and 64 GPUs, at 1B and 8B.

    python benchmarks/scaling.py [--price 3] [--seeds 200]

Simulates the workers (cluster.py) over the units of work (workload.py: measured figures and assumptions) and prints the
tables. Without options it writes them into docs/scaling.md, with the plot and benchmarks/results/scaling.json; the same
command gives the same files.
"""

import json
import math
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from cluster import Cluster, Unit, simulate
from workload import (
    ASSUMPTIONS,
    HOUR,
    RESULTS,
    ROWS,
    SHAPES,
    Assumption,
    Model,
    Values,
    cluster,
    measured,
    prediction_units,
    sweep_units,
)

from loraft.display.figure import drawing

DOCS = Path(__file__).parent.parent / "docs"
GPUS = (1, 8, 64)
DRAWS = 200  # simulated runs of each case
PLANS = ("one pass a seed", "planned", "one by one")
IDLE, SETUP = 0.1, 0.25  # shares of the reserved time above which they are named as the limit
MADE = re.compile(r"(<!-- made by benchmarks/scaling\.py: (\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)
Case = dict[str, Any]


def case(units: Sequence[Unit], on: Cluster, values: Values, seeds: int, computing: float = 1.0) -> Case:
    """What the units cost on the cluster: hours, GPU-hours, dollars and kWh, each the mean over the seeds.

    Args:
        computing: the part of a unit's time in which the card computes; in the rest it waits for Python.
    """
    ideal = simulate(units, replace(on, failure_every=math.inf, sigma=0.0), 0)
    runs = [simulate(units, on, seed) for seed in range(seeds)]
    hours = [run.makespan / HOUR for run in runs]
    cuts = statistics.quantiles(hours, n=20, method="inclusive")
    busy, mean = statistics.fmean(run.busy for run in runs) / HOUR, statistics.fmean(hours)
    reserved = mean * on.workers
    at_work = busy * computing
    cards = at_work * values["gpu_watts"] + (reserved - at_work) * values["idle_watts"]
    watts = cards + reserved * values["node_watts"]
    ideal_reserved = ideal.makespan * on.workers
    found = {
        "ideal_hours": ideal.makespan / HOUR, "hours": mean, "hours_5": cuts[0], "hours_95": cuts[-1],
        "gpu_hours": reserved, "busy_gpu_hours": busy, "dollars": reserved * values["price"],
        "busy_dollars": busy * values["price"], "kwh": watts * values["pue"] / 1000,
        "failures": statistics.fmean(run.failures for run in runs),
        "lost_gpu_hours": statistics.fmean(run.lost for run in runs) / HOUR,
        "down_gpu_hours": statistics.fmean(run.down for run in runs) / HOUR,
        "given_up": statistics.fmean(len(run.given_up) for run in runs),
        "idle": 1 - (ideal.busy + min(on.start, ideal.makespan) * on.workers) / ideal_reserved,
        "setup": (ideal.setup + on.start * on.workers) / ideal_reserved,
    }  # fmt: skip
    return {key: rounded(value) for key, value in found.items()}


def rounded(value: float, digits: int = 4) -> float:
    """The number to so many significant digits, so that another processor's last digits do not show."""
    return float(f"{value:.{digits}g}") if abs(value) > 1e-9 else 0.0


def limit(found: Mapping[str, Any], units: int, gpus: int, work: str) -> str:
    """What keeps the case from being faster, in words."""
    if units < gpus:
        return f"{units} units: {gpus - units} GPUs get none"
    if found["setup"] > SETUP:
        return f"start-up of workers and units: {found['setup']:.0%} of the time"
    if found["idle"] > IDLE:
        return f"the last units: {found['idle']:.0%} of the time GPUs wait for them"
    return work


def sweeps(values: Values, seeds: int, size: str) -> list[Case]:
    """The sweep in every plan on every number of GPUs."""
    model, found = Model(size, measured(), values), list[Case]()
    for count in GPUS:
        plans = {plan: sweep_units(model, plan, count) for plan in PLANS}
        if len(plans["planned"]) == len(plans["one pass a seed"]):
            del plans["planned"]
        found += [_both(model, "sweep", plan, units, count, "the training", seeds) for plan, units in plans.items()]
    return found


def predictions(values: Values, seeds: int, size: str) -> list[Case]:
    """The predictions with one process a GPU, and with as many as leave the card no pause, on every number of GPUs."""
    model, found = Model(size, measured(), values), list[Case]()
    for count in GPUS:
        for processes in sorted({1, model.filling()}):
            slow = "the card"
            if processes < model.filling():
                slow = f"Python: {1 - model.computing(processes):.0%} of a row, while the card waits"
            units = prediction_units(model, processes)
            found.append(_both(model, "predictions", f"{processes} a GPU", units, count, slow, seeds, processes))
    return found


def _both(
    model: Model, what: str, plan: str, units: Sequence[Unit], gpus: int, work: str, seeds: int, processes: int = 1
) -> Case:
    computing = model.computing(processes) if what == "predictions" else 1.0
    clusters = (cluster(model, gpus, what, len(units), spot=spot, processes=processes) for spot in (False, True))
    steady, spot = (case(units, on, model.values, seeds, computing) for on in clusters)
    largest = max(units, key=lambda unit: unit.work)
    return {
        "what": what, "size": model.size, "gpus": gpus, "plan": plan, "units": len(units),
        "unit_setup": rounded(largest.setup), "unit_work": rounded(largest.work), "steady": steady, "spot": spot,
        "limit": limit(steady, len(units), gpus, work),
    }  # fmt: skip


def sensitivity(values: Values, seeds: int) -> list[Case]:
    """How far each assumption's range moves each of three cases, alone."""
    figures, found = measured(), list[Case]()

    def three(changed: Values) -> list[Case]:
        large, small = (Model(size, figures, changed) for size in ("8B", "1B"))
        passes = sweep_units(large, PLANS[0], 8)
        made = [case(passes, cluster(large, 8, "sweep", len(passes), spot=False), changed, seeds)]
        for model, gpus in ((large, 64), (small, 8)):
            shards = prediction_units(model, 1)
            on = cluster(model, gpus, "predictions", len(shards), spot=False)
            made.append(case(shards, on, changed, seeds, model.computing(1)))
        return made

    for key, assumption in ASSUMPTIONS.items():
        if key in ("spot_every", "row_in", "row_out"):
            continue  # these cases do not depend on them
        low, high = (three({**values, key: end}) for end in (assumption.low, assumption.high))
        found.append({"assumption": key, "cases": list(zip(low, high, strict=True))})
    return found


def curves(values: Values, seeds: int) -> dict[str, list[Case]]:
    """Hours on 1 to 64 GPUs at 8B, for the plot."""
    model, found = Model("8B", measured(), values), dict[str, list[Case]]()
    for name in (*PLANS, "predictions"):
        what = "sweep" if name in PLANS else name
        found[name] = []
        for count in (1, 2, 4, 8, 16, 32, 64):
            units = sweep_units(model, name, count) if what == "sweep" else prediction_units(model, 1)
            made = case(units, cluster(model, count, what, len(units), spot=False), values, seeds)
            columns = ("ideal_hours", "hours", "hours_5", "hours_95")
            found[name].append({"gpus": count, **{key: made[key] for key in columns}})
    return found


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def plain(value: float) -> str:
    """As it was given where four digits hold it, else three significant digits."""
    return f"{value:,.4g}" if abs(value) < 1000 and float(f"{value:.4g}") == value else number(value)


def _table(heads: str, rows: Sequence[Sequence[str]], right: int = 0) -> str:
    names = heads.split(" | ")
    align = ["---"] * right + ["---:"] * (len(names) - right)
    return "\n".join([f"| {heads} |", f"|{'|'.join(align)}|", *(f"| {' | '.join(row)} |" for row in rows)])


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the page by their name in its marks."""
    figures, assumed = found["measured"].values(), found["assumptions"].values()
    made = {
        "measured": _table(
            "measured | value | from benchmarks/results",
            [[one["what"], _value(one), f"`{one['source']}`"] for one in figures], 3,
        ),
        "assumed": _table(
            "assumed | value | range | why",
            [[one["what"], _value(one), f"{plain(one['low'])} to {plain(one['high'])}", one["why"]] for one in assumed],
            4,
        ),
    }  # fmt: skip
    for what, plan in (("sweep", "units"), ("predictions", "processes")):
        cases = [one for one in found["cases"] if one["what"] == what]
        made[what] = _table(
            f"backbone | GPUs | {plan} | hours, nothing goes wrong | hours, mean (5 % to 95 %) | GPU-hours, of them"
            " busy | $ reserved | $ busy | kWh | what limits",
            [_line(one) for one in cases], 3,
        )  # fmt: skip
    made["spot"] = _table(
        "8B | GPUs | units, processes | hours, mean (5 % to 95 %) | failures | GPU-hours of work lost | GPU-hours"
        " until replaced | given up | $ reserved",
        [_spot_line(one) for one in found["cases"] if one["size"] == "8B"], 3,
    )  # fmt: skip
    made["short"] = short(found["cases"])
    made["sensitivity"] = _table(
        "assumption, low to high | 8B sweep: hours | $ | kWh | 8B predictions: hours | $ | kWh | 1B predictions: hours"
        " | $ | kWh",
        [_moved(one, found["assumptions"]) for one in found["sensitivity"]], 1,
    )  # fmt: skip
    columns = ("rows", "read", "written", "loading")
    made["rates"] = _table(
        "backbone | GPUs | rows/s | MB/s read | MB/s written | reading the backbone, s",
        [[one["size"], str(one["gpus"]), *(number(one[key]) for key in columns)] for one in found["rates"]], 2,
    )  # fmt: skip
    return made


def _value(one: Mapping[str, Any]) -> str:
    return f"{plain(one['value'])} {one['unit']}".strip()


def short(cases: Sequence[Case]) -> str:
    """What the tables say, in a few sentences."""

    def of(what: str, size: str, gpus: int) -> list[Case]:
        return [one for one in cases if (one["what"], one["size"], one["gpus"]) == (what, size, gpus)]

    def cost(found: Mapping[str, float]) -> str:
        return f"{number(found['hours'])} hours, ${number(found['dollars'])} and {number(found['kwh'])} kWh"

    (passes, *_), many = of("sweep", "8B", 1), min(of("sweep", "8B", 64), key=lambda one: one["steady"]["hours"])
    one, crowd = passes["steady"], many["steady"]
    (fed, *_), (full, *_) = of("predictions", "1B", 1), of("predictions", "1B", 1)[::-1]
    large, (wide, *_) = of("predictions", "8B", 1)[-1], of("predictions", "8B", 64)[::-1]
    return "\n".join([
        f"- The sweep at 8B: {cost(one)} on one GPU in joint passes; {cost(crowd)} on 64 GPUs, {many['plan']}. That is"
        f" {number(one['hours'] / crowd['hours'])} times as fast for {number(crowd['dollars'] / one['dollars'])} times"
        " the money.",
        f"- 100 million predictions at 8B: {cost(large['steady'])} on one GPU; {cost(wide['steady'])} on 64.",
        f"- At 1B a process keeps its card waiting: on one GPU, {full['plan']} instead of {fed['plan']} take"
        f" {number(full['steady']['hours'])} hours instead of {number(fed['steady']['hours'])}.",
        f"- Failures cost little, because units are short: where machines are taken back, 8B predictions on 64 GPUs"
        f" lose {number(wide['spot']['lost_gpu_hours'])} GPU-hours of work and {number(wide['spot']['down_gpu_hours'])}"
        f" until a GPU is replaced, of {number(wide['spot']['gpu_hours'])}.",
    ])  # fmt: skip


def _named(one: Case) -> list[str]:
    plan = f"{one['units']}, {one['plan']}" if one["what"] == "sweep" else one["plan"]
    return [one["size"], str(one["gpus"]), plan]


def _spread(one: Case) -> str:
    return f"{number(one['hours'])} ({number(one['hours_5'])} to {number(one['hours_95'])})"


def _line(one: Case) -> list[str]:
    found = one["steady"]
    return [
        *_named(one), number(found["ideal_hours"]), _spread(found),
        f"{number(found['gpu_hours'])}, {number(found['busy_gpu_hours'])}", number(found["dollars"]),
        number(found["busy_dollars"]), number(found["kwh"]), one["limit"],
    ]  # fmt: skip


def _spot_line(one: Case) -> list[str]:
    found = one["spot"]
    cells = (found[key] for key in ("failures", "lost_gpu_hours", "down_gpu_hours", "given_up", "dollars"))
    return [one["what"], *_named(one)[1:], _spread(found), *(number(cell) for cell in cells)]


def _moved(one: Case, assumptions: Mapping[str, Any]) -> list[str]:
    ends = assumptions[one["assumption"]]
    cells = [
        number(low[key]) if number(low[key]) == number(high[key]) else f"{number(low[key])} to {number(high[key])}"
        for low, high in one["cases"] for key in ("hours", "dollars", "kwh")
    ]  # fmt: skip
    return [f"{ends['what']}, {plain(ends['low'])} to {plain(ends['high'])} {ends['unit']}".strip(), *cells]


def filled(page: str, made: Mapping[str, str]) -> str:
    """The page with the tables between their marks."""
    return MADE.sub(lambda match: f"{match[1]}{made[match[2]]}\n{match[3]}", page)


def rates(values: Values) -> list[Case]:
    """What the GPUs ask of the storage while they predict, each with as many processes as keep its card busy."""
    found = []
    for size in SHAPES:
        model = Model(size, measured(), values)
        for count in GPUS:
            processes = model.filling()
            rows = count / model.a_row(processes)
            read, written = (rows * values[key] / 1e6 for key in ("row_in", "row_out"))
            one = {"rows": rows, "read": read, "written": written, "loading": model.loading(count * processes)}
            found.append({"size": size, "gpus": count, **{key: rounded(value) for key, value in one.items()}})
    return found


def draw(found: Mapping[str, list[Case]], path: Path) -> None:
    """Hours over GPUs, with the band from 5 % to 95 %; the thin line is the first point over the GPUs."""
    styles = dict(
        zip((*PLANS, "predictions"), (("s-", "0.0"), ("o--", "0.3"), ("^:", "0.5"), ("o-", "0.0")), strict=True)
    )
    with drawing(path, (7.2, 3.2)) as figure:
        for place, (title, names) in enumerate({"sweep": PLANS, "100 million predictions": ("predictions",)}.items()):
            axes = figure.add_subplot(1, 2, place + 1)
            for name in names:
                mark, shade = styles[name]
                columns = ("gpus", "hours", "hours_5", "hours_95")
                gpus, means, low, high = ([one[key] for one in found[name]] for key in columns)
                axes.plot(gpus, means, mark, color=shade, markersize=4, label=name)
                axes.fill_between(gpus, low, high, color=shade, alpha=0.15)
            first = found[names[0]][0]["ideal_hours"]
            axes.plot(gpus, [first / count for count in gpus], "-", color="0.6", linewidth=0.8, label="in proportion")
            axes.set(xscale="log", yscale="log", xlabel="GPUs", ylabel="hours", title=f"8B, {title}")
            axes.set_xticks(gpus, [str(count) for count in gpus])
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
            axes.legend(fontsize=7, loc="lower left")


def computed(values: Values, seeds: int) -> dict[str, Any]:
    """The whole record."""
    given: dict[str, Assumption] = {key: replace(one, value=values[key]) for key, one in ASSUMPTIONS.items()}
    ends = ("value", "low", "high")
    return {
        "command": "python benchmarks/scaling.py", "seeds": seeds, "rows": ROWS,
        "measured": {key: {**asdict(one), "value": rounded(one.value)} for key, one in measured().items()},
        "assumptions": {
            key: {**asdict(one), **{end: rounded(getattr(one, end), 6) for end in ends}} for key, one in given.items()
        },
        "cases": [one for kind in (sweeps, predictions) for size in SHAPES for one in kind(values, seeds, size)],
        "sensitivity": sensitivity(values, seeds),
        "rates": rates(values), "curves": curves(values, seeds),
    }  # fmt: skip


def main(
    price: Annotated[float, typer.Option(min=0, help="Dollars for a GPU and an hour.")] = ASSUMPTIONS["price"].value,
    seeds: Annotated[int, typer.Option(min=20, help="Simulated runs of each case.")] = DRAWS,
    docs: Annotated[Path, typer.Option(help="Folder of the page and its plot.")] = DOCS,
    out: Annotated[Path, typer.Option(help="The record.")] = RESULTS / "scaling.json",
) -> None:
    """Simulate every case and print the tables; at the price and number of runs of the page, write it, too."""
    found = computed({**{key: one.value for key, one in ASSUMPTIONS.items()}, "price": price}, seeds)
    made = tables(found)
    print("\n\n".join(made.values()))
    if (price, seeds) != (ASSUMPTIONS["price"].value, DRAWS):
        print("Another price or number of runs: nothing was written.", file=sys.stderr)
        return
    page = docs / "scaling.md"
    text = filled(page.read_text(encoding="utf-8"), made)
    out.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    page.write_text(text, encoding="utf-8")
    draw(found["curves"], docs / "scaling.png")


if __name__ == "__main__":
    typer.run(main)
