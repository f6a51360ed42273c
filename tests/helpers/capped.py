"""`loraft` with limits that make a command take seconds, also as a program: `python -m helpers.capped`."""

import sys

STEPS = ["train.max_steps=2", "data.max_train_rows=96", "data.max_eval_rows=24", "data.max_test_rows=12"]
CAPS = {
    "train": STEPS,
    "check": STEPS,
    "sweep": [*STEPS, "sweep.ranks=[1, 2]"],
    "audit": ["train.max_steps=2", "data.max_train_rows=96"],
    "fewshot": ["fewshot.repeats=1", *STEPS[1:]],
    "eval": ["data.max_test_rows=12"],
    "data": ["data.max_train_rows=200"],
}


def capped(arguments: list[str]) -> list[str]:
    """The arguments of `loraft`, and behind them the limits of the command, where it has any."""
    if arguments[:1] == ["sweep"] and "--from" in arguments:  # no training, and the run's own rows
        return arguments
    name, text = arguments[0] if arguments else "", " ".join(arguments)
    limits = CAPS.get(name, [])
    if {"--ranks", "--grid", "--search"} & {*arguments}:
        limits = [limit for limit in limits if not limit.startswith("sweep.")]
    if "--preset tutorial" in text and name != "config":  # its backbone and data come from the hub
        limits = [*limits, "model.name=loraft-vi-tiny", "data.source=feedback", "data.revision=null"]
    return [*arguments, *(word for limit in limits for word in ("--set", limit))]


if __name__ == "__main__":
    from loraft.cli.app import main

    main(capped(sys.argv[1:]))
