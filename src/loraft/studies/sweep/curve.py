"""`loraft sweep --from RUN`: cuts one trained adapter to lower ranks, and scores every rank over one backbone.

No rank is trained again. The adapters of the other trials of the run's sweep, trained with the same config at other
ranks, are shown beside where there are some. Each cut adapter is written as a bundle, which `predict --run` takes.

Shapes: N test rows, K labels, R cut ranks.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from loraft.config.kinds import refuse_label_sets
from loraft.config.names import relative
from loraft.config.schema import Config, LoraSection
from loraft.config.study_sections import SweepConfig
from loraft.config.yaml_io import dump_config
from loraft.data.dataset import load_data, warn_of_notes
from loraft.engine import scorer
from loraft.errors import ConfigError, RunError, listed, spared
from loraft.evaluation.choosing import DEFAULT, Metric, report_for
from loraft.evaluation.equivalence import MARGIN, Equivalence, equivalence
from loraft.evaluation.evaluate import predicted_rows
from loraft.evaluation.metrics import LOWER_IS_BETTER
from loraft.models import manifest
from loraft.models.adapter import add_adapters
from loraft.models.load import load_base
from loraft.models.truncation import Cut, cut, settings_of_cut, settings_to_cut
from loraft.progress import ROWS, Stage, each
from loraft.runs.atomic_files import to_json, write_text
from loraft.runs.bundle import config_of
from loraft.runs.environment import keep_environment
from loraft.runs.lock import locked
from loraft.runs.peft_folder import CONFIG_FILE, WEIGHTS_FILE
from loraft.runs.predictions import RunPredictions, difference_of_rows, read_predictions, write_rows
from loraft.runs.run import Bundle, Run, find_run, places
from loraft.runs.study_folders import RankCurveFolder, SweepFolder
from loraft.studies.sweep.curve_records import CurvePoint, RankCurve
from loraft.studies.sweep.curve_tables import draw
from loraft.studies.sweep.shared_backbone import Tell
from loraft.training.results import RunResult

WAY = "loraft sweep without --from trains each rank"


def find_source(wanted: str, output: Path) -> Run:
    """The run that is to be cut: the one that is named, or of a sweep the finished trial with the largest rank.

    Raises:
        RunError: there is no such run, or no trial of the sweep is finished, or several share the largest rank.
    """
    sweep = next((SweepFolder(path) for path in places(wanted, output) if os.path.isdir(path)), None)
    if sweep is None or not sweep.begun:
        return find_run(wanted, output)
    ranks = {run.name: config_of(run).lora.r for run in _finished_in(sweep.path)}
    largest = [name for name, rank in ranks.items() if rank == max(ranks.values())]
    if len(largest) != 1:
        got = f"got {listed(largest)} of rank {max(ranks.values())}" if largest else "got none that is finished"
        raise RunError(f"{sweep.path}: --from takes the trial with the largest rank ({got}); name a trial")
    return Run(sweep.path / largest[0])


def rank_curve(
    run: Run,
    config: Config,
    ranks: Sequence[int] | None = None,
    *,
    force: bool = False,
    tell: Tell = lambda message: None,
) -> RankCurve:
    """Cuts the adapter of a finished run to lower ranks, scores all of them on the test split, and writes the results.

    Args:
        run: that was trained, with one label a row.
        config: of the run; `output.folder` and `name` may be others.
        ranks: at most the run's; by default those of `SweepConfig` below it.
        force: replace a finished rank curve of that name.
        tell: called with each line for the user.

    Raises:
        ConfigError: a rank above the run's; or an adapter, task or way of decoding that cannot be cut or compared.
        RunError: the run is not finished, or its test rows have changed since.
    """
    chosen = _checked(run, config, ranks)
    sweep = run.path.absolute().parent
    name = config.name or (f"{sweep.name}-{run.name}-cut" if SweepFolder(sweep).begun else f"{run.name}-cut")
    with locked(Path(config.output.folder) / name, force=force):
        folder = RankCurveFolder.create(Path(config.output.folder), name, force=force)
        try:
            return _rank_curve(run, config, chosen, folder, force=force, tell=tell)
        except BaseException:
            folder.discard()
            raise


def _checked(run: Run, config: Config, ranks: Sequence[int] | None) -> list[int]:
    """The ranks to cut to, below the run's own; refuses what can be refused before the backbone is loaded."""
    refuse_label_sets(config, "sweep --from")
    if isinstance(run, Bundle) or not run.finished:
        got = "a bundle, without its test predictions" if isinstance(run, Bundle) else f"no {run.results_file}"
        raise RunError(f"{run.path}: --from takes a finished run (got {got}); loraft train makes one")
    if config.eval.decode != "score":
        raise ConfigError(f"--from: ranks are compared by scored labels (got eval.decode={config.eval.decode}); {WAY}")
    full = int(settings_to_cut(run.adapter)["r"])
    given = [rank for rank in SweepConfig().ranks if rank < full] if ranks is None else ranks
    if above := [rank for rank in given if rank > full]:
        raise ConfigError(f"--ranks: above the rank {full} of {run.path} (got {listed(map(str, above))}); {WAY}")
    chosen = sorted(set(given) - {full})
    if not chosen:
        raise ConfigError(f"--ranks: no rank below that of {run.path} (got a run of rank {full}); {WAY}")
    return chosen


def _rank_curve(
    run: Run, config: Config, ranks: Sequence[int], folder: RankCurveFolder, *, force: bool, tell: Tell
) -> RankCurve:
    write_text(folder.config_path, dump_config(config))
    keep_environment(folder.environment_path, config, anew=force)
    full, source = read_predictions(run), RunResult.of(run)
    split = load_data(config, "test")
    warn_of_notes([split])
    manifest.check_drawn(manifest.read(run.adapter), config_of(run), config, split)
    rows = RunPredictions(
        run.path, full.labels, tuple(split.examples.rows.tolist()), tuple(split.texts), split.labels, split.labels
    )
    if (reason := difference_of_rows(full, rows)) is not None:
        raise RunError(f"{split.source}: has other test rows than {run.path} ({reason}); put the file back")
    encoder, base = load_base(run, config)
    prompts = [prompt.ids for prompt in encoder.encode(split.texts)]
    started = time.perf_counter()
    cuts = cut(run.adapter, ranks)
    scores_RNK, together = _scores(base, config, cuts, (prompts, encoder.completions_K), encoder.unscored, tell)
    seconds = time.perf_counter() - started
    calibration = manifest.calibration(run.adapter, config)  # fitted to the adapter that is cut
    metric = Metric.of(config)
    if metric.key in LOWER_IS_BETTER or not metric.measured_on(full.references_N):
        metric = DEFAULT  # the margin is in points

    def compared(own_N: np.ndarray, other: RunPredictions) -> Equivalence:
        return equivalence(
            full.references_N, own_N, other.predictions_N, len(full.labels), score=metric.computed,
            bootstrap_samples=config.eval.bootstrap_samples, seed=config.seed,
        )  # fmt: skip

    twins = {}
    for twin in _twins(run, config):
        answers = read_predictions(twin)
        if difference_of_rows(full, answers) is None:
            twins[config_of(twin).lora.r] = twin, answers
    rank = config.lora.r
    points = [_trained(run, source, rank, None)]
    points += [
        _trained(one, RunResult.of(one), k, compared(answers.predictions_N, full))
        for k, (one, answers) in twins.items()
    ]
    for one, scores_NK in zip(cuts, scores_RNK, strict=True):
        bundle = Bundle(folder.path / f"r{one.rank}")
        probs_NK = calibration.probabilities(scores_NK)
        own_N = probs_NK.argmax(axis=1)
        report = report_for(config, full.references_N, probs_NK, own_N, full.labels)
        _write(bundle, run, config, one, report.scores)
        write_rows(bundle, predicted_rows(split, full.labels, own_N, probs_NK), texts=config.output.texts)
        points.append(
            CurvePoint(
                rank=one.rank,
                made="cut",
                run=str(bundle.path),
                trainable_parameters=sum(weight.numel() for weight in one.weights.values()),
                scores=report.scores,
                intervals=report.intervals,
                energy=one.energy,
                to_full=compared(own_N, full),
                to_trained=compared(own_N, twins[one.rank][1]) if one.rank in twins else None,
            )
        )
    result = RankCurve(
        path=str(folder.path),
        source=str(run.path),
        rank=rank,
        backbone=config.model.label,
        quant=config.quant.method,
        data=config.data.source,
        task=config.prompt.task,
        labels=encoder.task.labels,
        n=len(full.rows),
        confidence=config.eval.confidence,
        margin=MARGIN,
        points=tuple(sorted(points, key=lambda point: (point.rank, point.made == "cut"))),
        training_seconds=source.train.seconds,
        seconds=round(seconds, 1),
        together=together,
        metric=metric,
    )
    with spared("the figure", "the same command with --force"):
        draw(result, folder.figure_path)
    folder.finish(result)
    return result


def _scores(
    base: Any, config: Config, cuts: Sequence[Cut], rows: tuple[Any, Any], unscored: int, tell: Tell
) -> tuple[Sequence[np.ndarray], bool]:
    """The scores (N, K) of each cut adapter, in nats, and whether one batch held them all."""
    from peft import set_peft_model_state_dict

    model, names = add_adapters(base, [_section(config, one.rank) for one in cuts], seed=config.seed)
    for name, one in zip(names, cuts, strict=True):
        loaded = set_peft_model_state_dict(model, one.weights, adapter_name=name)
        missing = [key for key in loaded.missing_keys if f".{name}." in key]
        if strange := [*missing, *loaded.unexpected_keys]:
            raise RunError(f"{config.model.label}: the adapter does not fit it (got {listed(strange)}); train again")
    model.eval()
    given: dict[str, Any] = {"unscored": unscored, "batch_tokens": config.eval.batch_tokens}
    if scorer.scores_together(model):
        tell(f"scoring {len(cuts)} ranks in one batch")
        with Stage("scoring test", len(rows[0]), ROWS):
            return list(scorer.score_adapters(model, names, *rows, **given)), True
    # On a CPU without quantisation the update is added to the weights while it is scored: as exact, and faster.
    merges = base.device.type == "cpu" and base.dtype == torch.float32 and not getattr(base, "is_loaded_in_4bit", False)
    scores = []
    for name, one in each([*zip(names, cuts, strict=True)], "cut", note=lambda pair: f"rank {pair[1].rank}"):
        tell(f"scoring rank {one.rank}")
        model.base_model.set_adapter(name)
        if merges:
            model.merge_adapter([name])
        with Stage("scoring test", len(rows[0]), ROWS):
            scores.append(scorer.score(model, *rows, **given))
        if merges:
            model.unmerge_adapter()
    return scores, False


def _section(config: Config, rank: int) -> LoraSection:
    """The config's adapter section for a cut adapter, whose scale is 1."""
    changes = {"r": rank, "lora_alpha": float(rank), "alpha_per_rank": None, "use_rslora": False}
    return config.lora.model_copy(update={**changes, "init_lora_weights": "default"})


def _write(bundle: Bundle, run: Run, config: Config, one: Cut, scores: dict[str, float]) -> None:
    """Writes a cut adapter as a bundle: peft's two files, and the run's manifest with its rank and scores."""
    bundle.path.mkdir(parents=True, exist_ok=True)
    save_file(one.weights, bundle.path / WEIGHTS_FILE, metadata={"format": "pt"})
    settings = settings_of_cut(settings_to_cut(run.adapter), one.rank)
    write_text(bundle.path / CONFIG_FILE, to_json(settings))
    content = manifest.read(run.adapter)
    backbone, name = content.backbone, config.model.name
    if os.path.isabs(name):
        backbone = replace(backbone, relative_path=relative(name, bundle.path.parent))
    own = config_of(run)
    cut_config = own.model_copy(update={"lora": _section(own, one.rank)}).model_dump()
    kept = {key: scores[key] for key in content.scores if key in scores}
    manifest.write(bundle.path, replace(content, backbone=backbone, scores=kept, config=cut_config))


def _trained(run: Run, result: RunResult, rank: int, to_full: Equivalence | None) -> CurvePoint:
    return CurvePoint(
        rank=rank,
        made="trained",
        run=str(run.path),
        trainable_parameters=result.train.parameters.trainable,
        scores=result.after.scores,
        intervals=result.after.intervals,
        energy=1.0 if to_full is None else None,
        to_full=to_full,
        to_trained=None,
    )


def _twins(run: Run, config: Config) -> list[Run]:
    """The other finished trials of the run's sweep whose config differs in the rank alone."""

    def compared(of: Config) -> dict[str, Any]:
        values = of.model_dump(exclude={"output", "name", "fewshot", "sweep", "preset"})
        del values["lora"]["r"]
        return values

    own = compared(config_of(run))
    inside = _finished_in(run.path.parent) if SweepFolder(run.path.parent).begun else []
    return [other for other in inside if other.name != run.name and compared(config_of(other)) == own]


def _finished_in(sweep: Path) -> list[Run]:
    found = [Run(path.parent) for path in sorted(sweep.glob(f"[!.]*/{Run.config_file}"))]
    return [run for run in found if run.finished]
