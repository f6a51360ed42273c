"""`loraft.fewshot`: measures the backbone with demonstrations in the prompt, beside baselines and a trained adapter.

One draw of demonstrations says little: another draw can score ten points higher or lower. So each number of shots is
measured with several draws on the same test rows, and the report gives mean, standard deviation and interval.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loraft.config.kinds import refuse_label_sets
from loraft.config.names import shortened
from loraft.config.resolve import load_config
from loraft.config.schema import Config
from loraft.config.study_sections import FewshotConfig
from loraft.config.yaml_io import dump_config
from loraft.data.dataset import Split, load_data
from loraft.display.progress import shown
from loraft.errors import RunError, spared
from loraft.evaluation.baselines import BASELINES
from loraft.evaluation.choosing import Metric, report_for
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.enough_rows import refuse_unmeasured
from loraft.evaluation.evaluate import judge
from loraft.models import manifest
from loraft.models.adapter import MOVING_INITS
from loraft.models.calibration import Calibration
from loraft.models.encoder import Encoder
from loraft.models.load import build, load_run
from loraft.models.prompts import Demonstrations, Prompt, warn_of_cuts
from loraft.models.source import located
from loraft.progress import each
from loraft.runs.atomic_files import write_text
from loraft.runs.environment import keep_environment
from loraft.runs.lock import locked
from loraft.runs.predictions import predicted_ids
from loraft.runs.records import as_json, record_from
from loraft.runs.resume import OUTPUT_KEYS, check_same_config
from loraft.runs.run import Run
from loraft.runs.storage import reraise
from loraft.runs.study_folders import FewshotFolder
from loraft.studies.fewshot.context import check_context, chosen_rows, demonstrations_of
from loraft.studies.fewshot.demonstrations import Draw, draws
from loraft.studies.fewshot.figures import fewshot_curve
from loraft.studies.fewshot.records import DrawRecord, FewshotResult
from loraft.studies.fewshot.summary import ADAPTER, BACKBONE, compare_best, name_of, summarise, verdict

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One measurement to make: of a baseline (`shots` None), or of a model with `shots` demonstrations of one draw."""

    model: str
    shots: int | None
    draw: int


def fewshot(
    config: Config,
    *,
    run: str | Path | None = None,
    adapter_shots: bool = False,
    force: bool = False,
    resume: bool = False,
    quiet: bool = False,
    tell: Tell = lambda message: None,
) -> FewshotResult:
    """Measures the backbone with k demonstrations in the prompt, several draws for each k, and the baselines.

    The prompt without demonstrations is always measured too, so that each k can be compared with it.

    Args:
        config: its `fewshot` section gives the numbers of shots, the number of draws, and how rows are selected.
        run: directory of a finished run; its adapter is measured too, with the prompt that it was trained with.
        adapter_shots: also measure the adapter with the demonstrations in its prompt.
        force: delete an earlier study of the same name.
        resume: continue a study: draws that were measured are kept, and those that are missing are added, also where
            the config now asks for more draws or other numbers of shots.
        quiet: show no progress.
        tell: called with each message for the user, one line of text.

    Returns:
        The table with scores as fractions, every draw, the comparisons with their intervals, and a verdict in words.

    Raises:
        ConfigError: a row has any number of labels (`prompt.kind=multilabel`); no test row has the label that
            `train.metric` names.
        DataError: too many demonstrations for the context, or there are too few training rows; raised before
            any measurement.
        RunError: a study of that name exists, or the run is not finished or does not match.

    Examples:
        >>> import loraft
        >>> config = loraft.resolve(overrides=["fewshot.shots=[1]", "fewshot.repeats=2", "data.max_train_rows=32",
        ...     "data.max_test_rows=8", f"output={folder}"])
        >>> study = loraft.fewshot(config, quiet=True)
        >>> [row.name for row in study.rows]
        ['majority label', 'TF-IDF + linear SVM', 'backbone, 0 shots', 'backbone, 1 shot']
    """
    refuse_label_sets(config, "fewshot")
    adapter_run = None if run is None else Run(Path(run))
    if adapter_run is not None and adapter_run.finished:
        config = located(adapter_run.adapter, config)
    folder = folder_of(config, adapter_run)
    if resume:
        _check_begun(folder, config)
    folder.check(force=force, resume=resume)
    with locked(folder.path, force=force), shown(quiet=quiet):
        return _fewshot(config, adapter_run, adapter_shots, force=force, resume=resume, tell=tell)


def _fewshot(
    config: Config, adapter_run: Run | None, adapter_shots: bool, *, force: bool, resume: bool, tell: Tell
) -> FewshotResult:
    """As `fewshot`, in a locked directory."""
    section, shots = config.fewshot, sorted({0, *config.fewshot.shots})
    train, test = load_data(config, "train"), load_data(config, "test")
    refuse_unmeasured(config, test)
    if adapter_run is not None and adapter_run.finished:
        trained = load_config(adapter_run.config_path)
        manifest.check_drawn(manifest.read(adapter_run.adapter), trained, config, test)
    drawn = draws(train, test, max_shots=shots[-1], repeats=section.repeats, selection=section.selection,
                  seed=config.seed, order=section.order)  # fmt: skip
    tokens = check_context(config, train, test, drawn, shots)
    jobs = list(plan(section, shots, adapter=adapter_run is not None, adapter_shots=adapter_shots))
    sources = _sources(train, test, adapter_run)
    begun = folder_of(config, adapter_run)
    done = {job: row for job, row in _kept(begun, sources).items() if job in jobs} if resume else {}
    left = [job for job in jobs if job not in done]
    if resume:
        tell(f"resuming: {len(done)} of {len(jobs)} measurements are done")
    if any(job.shots is not None for job in left):  # baselines need no model
        encoder, model = build(config) if adapter_run is None else load_run(Run.open(adapter_run.path), config)
        # Some initialisations of an adapter change the backbone's weights: such a model without its adapter is not the
        # original backbone, which is therefore loaded a second time.
        changed = adapter_run is not None and config.lora.init_lora_weights in MOVING_INITS
        backbone = build(config)[1] if changed else model
    study = FewshotFolder.create(
        Path(config.output.folder), fewshot_name(config, adapter_run), force=force, resume=resume
    )
    if not study.finished:  # the config of a finished study is replaced together with its results
        write_text(study.config_path, dump_config(config))
    keep_environment(study.environment_path, config)

    try:
        for job in each(left, "measurement", note=lambda job: name_of(job.model, job.shots)):
            train_rows, cut = None, 0.0
            if job.shots is None:
                report, predictions = _baseline(job.model, config, train, test)
            else:
                train_rows = _shown_rows(train, drawn[job.draw], job.shots)
                demonstrations = demonstrations_of(train, encoder.task, drawn[job.draw], job.shots)
                bare = job.model == BACKBONE
                with model.disable_adapter() if bare and adapter_run is not None else nullcontext():
                    # With demonstrations the prompt is not the one that the adapter was calibrated with.
                    as_trained = adapter_run.adapter if adapter_run and not bare and job.shots == 0 else None
                    fitted, judged = manifest.calibration(as_trained, config), backbone if bare else model
                    report, predictions, cut = _judge(judged, encoder, test, config, demonstrations, fitted)
            source = sources[job.model]
            done[job] = DrawRecord(job.model, job.shots, job.draw, report, train_rows, predictions, source, cut)
            study.append_log(as_json(done[job]))
        records = [done[job] for job in jobs]
        result = _result(config, study.path, adapter_run, records, tokens, train, test)
        write_text(study.config_path, dump_config(config))
        study.finish(result)
        with spared("the figure", "the same command with --resume"):
            fewshot_curve(result, study.figure_path)
    except KeyboardInterrupt as stop:
        stop.add_note(f"{len(done)} of {len(jobs)} measurements are saved; {study.how_to_resume} continues")
        raise
    except Exception as error:
        if not done:
            study.discard()
        reraise(error, study)
    return result


def plan(section: FewshotConfig, shots: Sequence[int], *, adapter: bool, adapter_shots: bool) -> Iterator[Job]:
    """Yields the measurements in order: baselines, the adapter as trained, then each model by shots and draws.

    Args:
        section: number of draws, and how rows are selected.
        shots: numbers of demonstrations, 0 among them.
        adapter: measure an adapter with the prompt that it was trained with.
        adapter_shots: also measure it with demonstrations.
    """
    for name in BASELINES:
        yield Job(name, None, 0)
    if adapter:
        yield Job(ADAPTER, 0, 0)
    # So many demonstrations are the same in every draw: none, or the single nearest one.
    same_in_all = 1 if section.selection == "nearest" else 0
    for model in (BACKBONE, ADAPTER) if adapter and adapter_shots else (BACKBONE,):
        for k in shots:
            for draw in range(section.repeats if k > same_in_all else 1):
                if (model, k) != (ADAPTER, 0):
                    yield Job(model, k, draw)


def _judge(
    model: Any, encoder: Encoder, test: Split, config: Config, shown: Sequence[Demonstrations], calibration: Calibration
) -> tuple[EvaluationReport, tuple[int, ...], float]:
    """Scores and predicted label ids on the test split, and the share of the demonstrations' tokens that was left out.

    `shown` has one list of demonstrations for all rows or one for each.
    """
    prompts: Sequence[Prompt]
    if len(shown) == 1:
        prompts = encoder.encode(test.texts, shown[0])
    else:
        prompts = [encoder.encode([text], own)[0] for text, own in zip(test.texts, shown, strict=True)]
    warn_of_cuts(prompts, test.name)
    report, rows = judge(model, encoder, prompts, test, config, calibration=calibration)
    cut = sum(prompt.shown_cut for prompt in prompts) / max(1, sum(prompt.shown for prompt in prompts))
    return report, tuple(predicted_ids(rows, encoder.task.labels).tolist()), cut


def _baseline(name: str, config: Config, train: Split, test: Split) -> tuple[EvaluationReport, tuple[int, ...]]:
    """Scores and predicted label ids of a baseline on the test split."""
    started = time.perf_counter()
    predictions_N = BASELINES[name](train, test)
    labels = config.prompt.labels or []
    report = report_for(config, test.labels, None, predictions_N, labels)
    return replace(report, seconds=round(time.perf_counter() - started, 3)), tuple(predictions_N.tolist())


def _result(
    config: Config,
    path: Path,
    adapter_run: Run | None,
    records: Sequence[DrawRecord],
    tokens: Mapping[int, int],
    train: Split,
    test: Split,
) -> FewshotResult:
    """The results of a study whose measurements are complete."""
    rows = summarise(records, tokens, config.eval.confidence)
    predictions: dict[str, list[Sequence[int]]] = {}  # of each draw, by the name of its row in the table
    for record in records:
        predictions.setdefault(name_of(record.model, record.shots), []).append(record.predictions)
    labels = tuple(config.prompt.labels or ())
    metric, settings = Metric.of(config), _bootstrap_settings(config)
    compared = compare_best(rows, predictions, test.labels, len(labels), metric, **settings)
    return FewshotResult(
        path=str(path),
        backbone=config.model.label,
        run=None if adapter_run is None else str(adapter_run.path),
        task=config.prompt.task,
        labels=labels,
        source=config.data.source,
        data={split.name: split.summary for split in (train, test)},
        selection=config.fewshot.selection,
        repeats=config.fewshot.repeats,
        seed=config.seed,
        decode=config.eval.decode,
        confidence=config.eval.confidence,
        rows=tuple(rows),
        compared=tuple(compared),
        verdict=verdict(compared, len(test), config.eval.confidence, metric),
        draws=tuple(replace(r, predictions=(), sources="") for r in records if r.shots is not None),
        metric=metric,
        order=config.fewshot.order,
    )


def _bootstrap_settings(config: Config) -> dict[str, Any]:
    section = config.eval
    return {"bootstrap_samples": section.bootstrap_samples, "confidence": section.confidence, "seed": config.seed}


def _sources(train: Split, test: Split, run: Run | None) -> dict[str, str]:
    """Hash of what a measurement depends on, by model: the rows, and for the adapter its weights too."""
    rows = hashlib.sha256(f"{train.fingerprint} {test.fingerprint}".encode())
    adapter = rows.copy()
    if run is not None:
        for file in sorted(run.adapter.glob("*.safetensors")):
            adapter.update(file.read_bytes())
    return {**dict.fromkeys((BACKBONE, *BASELINES), rows.hexdigest()), ADAPTER: adapter.hexdigest()}


def _kept(folder: FewshotFolder, sources: Mapping[str, str]) -> dict[Job, DrawRecord]:
    """The measurements in the log that were made with the same rows and the same adapter; the last of each job."""
    lines = [row for row in folder.read_log() if row.get("sources") == sources.get(str(row.get("model")), "")]
    kept = [record_from(line, DrawRecord, folder.log_path, folder.mend) for line in lines]
    return {Job(record.model, record.shots, record.draw): record for record in kept}


def _shown_rows(train: Split, draw: Draw, shots: int) -> tuple[int, ...] | None:
    """Numbers of the training rows in the prompt, None where each test row has demonstrations of its own."""
    chosen_Rk = chosen_rows(draw, shots)
    return tuple(train.examples[i].row for i in chosen_Rk[0]) if len(chosen_Rk) == 1 else None


def _check_begun(folder: FewshotFolder, config: Config) -> None:
    """Refuses `--resume` where there is no study, or one with another config.

    The numbers of shots and draws may differ: measurements are added to those of the study.
    """
    if not folder.begun:
        raise RunError(
            f"--resume: there is no study in {folder.path}; leave --resume out to begin one, or give the flags of the"
            " study to continue, and --set name=NAME where it was renamed"
        )
    hint = "--resume needs the earlier values; --set name=NAME keeps both studies, --force deletes the earlier one"
    free = (*OUTPUT_KEYS, "data.calibration_share", "fewshot.shots", "fewshot.repeats")
    check_same_config(folder.config_path, config, free=free, hint=hint)


def folder_of(config: Config, run: Run | None) -> FewshotFolder:
    """The directory of the study of this config and this run's adapter; it may not exist yet."""
    return FewshotFolder(Path(config.output.folder) / fewshot_name(config, run))


def fewshot_name(config: Config, run: Run | None) -> str:
    """Name of the study's directory: `config.name`, or one made of the settings in which studies usually differ."""
    if config.name is not None:
        return config.name
    parts = ["fewshot", Path(config.model.label).name, Path(config.data.source).name, Path(config.prompt.task).stem]
    parts += [config.fewshot.selection, *(["generate"] if config.eval.decode == "generate" else [])]
    parts += ["nf4"] if config.quant.method == "nf4" else []
    return shortened("-".join([*parts, f"s{config.seed}", *(["with", run.name] if run is not None else [])]))
