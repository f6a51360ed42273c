"""The few-shot study: what demonstrations in the prompt reach, beside baselines and a tuned adapter.

One draw of demonstrations says little: the next may be ten points away. So every number of shots is measured with
several draws, on the same test rows, and reported with its spread.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from loraft.config.schema import Config, FewshotConfig
from loraft.config.yaml_io import dump_yaml
from loraft.data.dataset import Split, load_data
from loraft.evaluation import baselines, classification_report
from loraft.evaluation.evaluate import judge
from loraft.models.adapter import MOVING_INITS
from loraft.models.encoder import Encoder, Prompt
from loraft.models.load import build, load_run
from loraft.runs.environment import environment
from loraft.runs.files import write_json, write_text
from loraft.runs.folders import FewshotStudy
from loraft.runs.run import Run
from loraft.studies.fewshot.context import check_context, chosen_rows, demonstrations_of
from loraft.studies.fewshot.demonstrations import Draw, draws
from loraft.studies.fewshot.summary import ADAPTER, BACKBONE, compare_best, name_of, summarise, verdict

BASELINES = {"majority label": baselines.majority, "TF-IDF + linear SVM": baselines.linear_svm}
Tell = Callable[[str], None]


class PerRowEncoder(Encoder):
    """An encoder that puts each test row's own demonstrations into its prompt."""

    def __init__(self, encoder: Encoder, demonstrations_N: Sequence[Sequence[tuple[str, str]]]) -> None:
        vars(self).update(vars(encoder))
        self._demonstrations_N = demonstrations_N

    def encode(self, texts: Sequence[str], demonstrations: Sequence[tuple[str, str]] = ()) -> list[Prompt]:
        """Returns one prompt a text; the texts are those that the demonstrations were made for, in their order."""
        encode = super().encode
        return [encode([text], own)[0] for text, own in zip(texts, self._demonstrations_N, strict=True)]


@dataclass(frozen=True)
class Job:
    """One thing to measure: a baseline (`shots` None), or a model with so many demonstrations of one draw."""

    model: str
    shots: int | None
    draw: int


def fewshot(
    config: Config,
    *,
    run: Path | None = None,
    adapter_shots: bool = False,
    force: bool = False,
    resume: bool = False,
    quiet: bool = False,
    tell: Tell = lambda message: None,
) -> dict[str, Any]:
    """Judges the backbone with k demonstrations in the prompt, several draws of each k, beside baselines.

    The prompt without demonstrations is always measured too, once: what k of them add is read against it.

    Args:
        config: its `fewshot` section says how many shots, draws, and how they are chosen.
        run: directory of a finished run; its adapter joins the table without demonstrations, as it was trained.
        adapter_shots: put the demonstrations before the adapter as well.
        force: delete an earlier study of that name.
        resume: go on with a study; draws that were measured are kept, also where shots or draws were added since.
        quiet: draw no progress bar.
        tell: takes what the user should know meanwhile, a line each.

    Returns:
        `rows` of the table (see `summarise`), `draws` (metrics of each), `compared` (see `compare_best`), `verdict`,
        and what was asked of what.

    Raises:
        DataError: a prompt does not fit the context, or the training rows are too few; before anything is measured.
        RunError: a study of that name is there, or the run is not finished or does not match.
    """
    section, shots = config.fewshot, sorted({0, *config.fewshot.shots})
    name = fewshot_name(config, run)
    begun = FewshotStudy(Path(config.output) / name)
    if resume:
        begun.check_begun(config)
    begun.check(force=force, resume=resume)
    train, test = load_data(config, "train"), load_data(config, "test")
    made = draws(train, test, most=shots[-1], repeats=section.repeats, selection=section.selection, seed=config.seed)
    tokens = check_context(config, train, test, made, shots)
    jobs = list(plan(section, shots, adapter=run is not None, adapter_shots=adapter_shots))
    sources = _sources(train, test, run)
    done = {job: row for job, row in _kept(begun, sources).items() if job in jobs} if resume else {}
    left = [job for job in jobs if job not in done]
    if resume:
        tell(f"{len(done)} of {len(jobs)} measurements are there")
    if any(job.shots is not None for job in left):  # else nothing is left to ask a model
        encoder, model = build(config) if run is None else load_run(Run.open(run), config)
        moved = run is not None and config.lora.init_lora_weights in MOVING_INITS
        backbone = build(config)[1] if moved else model  # without its adapter, the moved one is another backbone
    study = FewshotStudy.create(Path(config.output), name, force=force, resume=resume)
    if not study.finished:  # a finished one keeps its config until the new results are there
        write_text(study.config_path, dump_yaml(config))
    write_json(study.environment_path, environment())

    visible = not quiet and sys.stderr.isatty()
    try:
        for job in track(left, "draws", console=Console(stderr=True), disable=not visible):
            if job.shots is None:
                measured = _baseline(job.model, config, train, test)
            else:
                demonstrated = demonstrations_of(train, encoder.task, made[job.draw], job.shots)
                bare = job.model == BACKBONE
                with model.disable_adapter() if bare and run is not None else nullcontext():
                    measured = _judge(backbone if bare else model, encoder, test, config, demonstrated)
            done[job] = {**vars(job), **measured, **_shown(train, made[job.draw], job), "sources": sources[job.model]}
            study.append_log(done[job])
    except KeyboardInterrupt:
        tell(f"interrupted: {len(done)} of {len(jobs)} measurements are kept; {study.how_to_resume} goes on")
        raise
    except Exception:
        if not done:
            study.give_back()
        raise

    records = [done[job] for job in jobs]
    result = {
        "kind": "fewshot",
        "path": str(study.path),
        "backbone": config.model.name,
        "run": None if run is None else str(run),
        "task": config.prompt.task,
        "labels": config.prompt.labels,
        "source": config.data.source,
        "data": {
            split.name: {"source": split.source, "rows": len(split), "notes": split.notes} for split in (train, test)
        },
        "selection": section.selection,
        "repeats": section.repeats,
        "seed": config.seed,
        "decode": config.eval.decode,
        "confidence": config.eval.confidence,
        **_conclude(records, tokens, config, test),
        "draws": [_without_answers(record) for record in records if record["shots"] is not None],
    }
    from loraft.studies.fewshot import figures

    figures.fewshot_curve(result, study.plots / "fewshot.png")
    write_text(study.config_path, dump_yaml(config))
    study.finish(result)
    return result


def plan(section: FewshotConfig, shots: Sequence[int], *, adapter: bool, adapter_shots: bool) -> Iterator[Job]:
    """What is measured, in order: baselines, the adapter as it was trained, then every model with every k and draw."""
    for name in BASELINES:
        yield Job(name, None, 0)
    if adapter:
        yield Job(ADAPTER, 0, 0)
    certain = 1 if section.selection == "nearest" else 0  # so many demonstrations leave nothing to draw
    for model in (BACKBONE, ADAPTER) if adapter and adapter_shots else (BACKBONE,):
        for k in shots:
            for draw in range(section.repeats if k > certain else 1):
                if (model, k) != (ADAPTER, 0):
                    yield Job(model, k, draw)


def _judge(
    model: Any, encoder: Encoder, test: Split, config: Config, demonstrated: list[tuple[tuple[str, str], ...]]
) -> dict[str, Any]:
    if len(demonstrated) == 1:
        numbers, rows = judge(model, encoder, test, config, demonstrated[0])
    else:
        numbers, rows = judge(model, PerRowEncoder(encoder, demonstrated), test, config)
    ids = {label: k for k, label in enumerate(encoder.task.labels)}
    return {**numbers, "predictions": [ids.get(row["predicted"], -1) for row in rows]}


def _baseline(name: str, config: Config, train: Split, test: Split) -> dict[str, Any]:
    started = time.perf_counter()
    predictions_N = BASELINES[name](train, test)
    numbers = classification_report.full(
        test.labels, None, predictions_N, config.prompt.labels or [], **_settings(config)
    )
    return {**numbers, "predictions": predictions_N, "seconds": round(time.perf_counter() - started, 3)}


def _conclude(
    records: Sequence[Mapping[str, Any]], tokens: Mapping[int, int], config: Config, test: Split
) -> dict[str, Any]:
    """The table's rows, and what they say."""
    rows = summarise(records, tokens, config.eval.confidence)
    answers: dict[str, list[Any]] = {}
    for record in records:
        answers.setdefault(name_of(record["model"], record["shots"]), []).append(record["predictions"])
    compared = compare_best(rows, answers, test.labels, len(config.prompt.labels or []), **_settings(config))
    return {"rows": rows, "compared": compared, "verdict": verdict(compared, len(test), config.eval.confidence)}


def _settings(config: Config) -> dict[str, Any]:
    section = config.eval
    return {"bootstrap_samples": section.bootstrap_samples, "confidence": section.confidence, "seed": config.seed}


def _sources(train: Split, test: Split, run: Path | None) -> dict[str, str]:
    """What a measurement of each model was made from: it counts for no other rows and no other adapter."""
    rows = hashlib.sha256(f"{train.fingerprint} {test.fingerprint}".encode())
    adapter = rows.copy()
    if run is not None:
        for file in sorted(Run(run).adapter.glob("*.safetensors")):
            adapter.update(file.read_bytes())
    return {**dict.fromkeys((BACKBONE, *BASELINES), rows.hexdigest()), ADAPTER: adapter.hexdigest()}


def _kept(study: Run, sources: Mapping[str, str]) -> dict[Job, dict[str, Any]]:
    """The measurements in the log that were made from the same rows and adapter; the last of each."""
    return {
        Job(row["model"], row["shots"], row["draw"]): row
        for row in study.read_log()
        if row.get("model") in sources and row.get("sources") == sources[row["model"]]
    }


def _shown(train: Split, draw: Draw, job: Job) -> dict[str, Any]:
    """The rows of the training data that stand in the prompt, None where every test row has its own."""
    if job.shots is None:
        return {}
    chosen_Rk = chosen_rows(draw, job.shots)
    return {"train_rows": [train.examples[i].row for i in chosen_Rk[0]] if len(chosen_Rk) == 1 else None}


def _without_answers(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("predictions", "sources")}


def fewshot_name(config: Config, run: Path | None) -> str:
    """The study's folder inside `output`: the name given, or what people change between two studies."""
    if config.name is not None:
        return config.name
    parts = ["fewshot", Path(config.model.name).name, Path(config.data.source).name, Path(config.prompt.task).stem]
    parts += [config.fewshot.selection, *(["generate"] if config.eval.decode == "generate" else [])]
    parts += ["nf4"] if config.quant.method == "nf4" else []
    return "-".join([*parts, f"s{config.seed}", *(["with", run.name] if run is not None else [])])
