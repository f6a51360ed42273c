"""Splits the trials of a sweep into units of work for several workers.

A unit is trained by one worker, with `local_engine.run_trials`: one trial, or several that share a joint pass.
"""

from collections.abc import Sequence

from loraft.studies.sweep.joint_groups import joint_groups
from loraft.studies.sweep.trials import Trial

Unit = tuple[Trial, ...]


def units(trials: Sequence[Trial], joint: str, *, workers: int, begun: Sequence[Sequence[Trial]] = ()) -> list[Unit]:
    """The units of work, in the order in which they should start.

    Args:
        trials: that have to be run.
        joint: `sweep.joint`; off makes each trial a unit.
        workers: that work at the same time. A joint group is dealt out to as many of them as leaves two trials or more
            to each; the ranks are dealt like cards, so that no worker has all the large ones.
        begun: the trials of each joint pass that was begun; each stays a unit, or the pass would be lost.
    """
    together: list[Unit] = [tuple(group) for group in begun] if joint != "off" else []
    kept = {trial.name for unit in together for trial in unit}
    for group in joint_groups([trial for trial in trials if trial.name not in kept]) if joint != "off" else ():
        hands = max(1, min(workers, len(group) // 2))
        together += [tuple(group[hand::hands]) for hand in range(hands)]
    grouped = {trial.name for unit in together for trial in unit}
    return [*together, *((trial,) for trial in trials if trial.name not in grouped)]
