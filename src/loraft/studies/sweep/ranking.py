"""Finds the best setting of a sweep, and tests which other settings differ from it.

A setting is one combination of the swept values without the seed: a rank, or a point of the grid. The best setting is
chosen on the validation split and compared with the others on the test split; choosing on the test split would make its
reported score too high.

Shapes: S seeds, N test rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from loraft.evaluation import significance
from loraft.evaluation.choosing import DEFAULT, Metric
from loraft.evaluation.intervals import spreads
from loraft.runs.predictions import RunPredictions, difference_of_rows
from loraft.studies.sweep.records import Ranking, SettingRecord, SettingScores, TrialRecord, VersusBest


def rank_settings(
    records: Sequence[TrialRecord], answers: Mapping[str, RunPredictions], confidence: float, metric: Metric = DEFAULT
) -> Ranking:
    """The settings of a sweep with means over their seeds, each tested against the best one.

    Args:
        records: one of each trial.
        answers: predictions on the test split of the finished trials, by name.
        confidence: coverage of the intervals, in (0, 1); 1 - confidence is the level of all tests together.
        metric: of the records' `chosen_by`.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(repr(without_seed(record.settings)), []).append(record)
    settings = [_setting(group, confidence) for group in groups.values()]
    finished = [(setting, setting.measured) for setting in settings if setting.measured is not None]
    if not finished:
        return Ranking(tuple(settings), None, None)
    best, _ = min(finished, key=lambda pair: (-metric.gain(pair[1].chosen_by), pair[1].trainable_parameters))

    def by_seed(setting: SettingRecord) -> dict[Any, RunPredictions]:
        of_setting = [r for r in records if r.name in setting.trials and r.measured is not None]
        return {record.settings.get("seed"): answers[record.name] for record in of_setting}

    tests: dict[int, VersusBest] = {}  # by the setting's number; settings that cannot be paired have none
    for number, setting in enumerate(settings):
        if setting.measured is not None and setting is not best:
            test = against(by_seed(setting), by_seed(best))
            if test is not None:
                tests[number] = test
    corrected = significance.holm([test.p_value for test in tests.values()])
    for (number, test), p_holm in zip(tests.items(), corrected, strict=True):
        measured = settings[number].measured
        assert measured is not None
        versus_best = replace(test, p_holm=p_holm, same=not significance.rejects(p_holm, confidence))
        settings[number] = replace(settings[number], measured=replace(measured, versus_best=versus_best))
    of_best = [(r, r.measured) for r in records if r.name in best.trials and r.measured is not None]
    trial, _ = max(of_best, key=lambda pair: metric.gain(pair[1].chosen_by))
    return Ranking(tuple(settings), best, trial)


def against(own: Mapping[Any, RunPredictions], best: Mapping[Any, RunPredictions]) -> VersusBest | None:
    """Tests a setting against the best one on the same test rows, paired by seed.

    Every seed answers the same test rows, and the seeds of a setting agree on most of them. If each answer counted as a
    row of its own, any difference would look certain. So the unit of the test is the row: for each row the gains are
    summed over the seeds. The seeds are taken as given; the standard deviation of a score shows their effect.

    Args:
        own: predictions of the setting, by seed.
        best: those of the best setting.

    Returns:
        The test, not yet corrected for the number of tests; None if the two have no seed in common with the same rows.
    """
    seeds = [seed for seed in own if seed in best and difference_of_rows(own[seed], best[seed]) is None]
    # If the data file changed between two trials, their rows differ: only seeds with the rows of the first are summed.
    seeds = [seed for seed in seeds if difference_of_rows(own[seed], own[seeds[0]]) is None]
    if not seeds:
        return None
    # 1 where only the setting is right, -1 where only the best is, 0 where they agree
    gains_SN = np.stack([own[seed].correct.astype(np.int64) - best[seed].correct for seed in seeds])
    return VersusBest(
        seeds=len(seeds),
        n=gains_SN.shape[1],
        b=int((gains_SN > 0).sum()),
        c=int((gains_SN < 0).sum()),
        p_value=significance.sign_flip(gains_SN.sum(axis=0)),
    )


def without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The swept keys and values of a setting, from those of a trial."""
    return {key: value for key, value in settings.items() if key != "seed"}


def _setting(group: Sequence[TrialRecord], confidence: float) -> SettingRecord:
    finished = [record.measured for record in group if record.measured is not None]
    measured = None
    if finished:
        peaks = [trial.peak_memory_mib for trial in finished if trial.peak_memory_mib is not None]
        measured = SettingScores(
            scores=spreads(finished, confidence),
            # fmean does not depend on the order, so the same scores in another order are a tie.
            validation_macro_f1=fmean(trial.validation_macro_f1 for trial in finished),
            validation_score=fmean(trial.chosen_by for trial in finished),
            trainable_parameters=finished[0].trainable_parameters,
            seconds=round(fmean(trial.seconds for trial in finished), 1),
            peak_memory_mib=round(fmean(peaks)) if peaks else None,
        )
    return SettingRecord(
        settings=without_seed(group[0].settings),
        alpha_policy=group[0].alpha_policy,
        trials=tuple(record.name for record in group),
        seeds=len(finished),
        failed=sum(record.status == "failed" for record in group),
        measured=measured,
    )
