"""The few-shot study: what demonstrations in the prompt reach, beside baselines and a tuned adapter.

One draw of demonstrations says little: the next may be ten points away. So every number of shots is measured with
several draws, on the same test rows, and reported with its spread.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from transformers import AutoConfig

from loraft import api, baselines, metrics
from loraft.backbone import resolve_name
from loraft.config import Config
from loraft.data import Split
from loraft.demonstrations import Draw, draws
from loraft.encoding import Encoder, Prompt
from loraft.errors import DataError, RunError
from loraft.machine import environment
from loraft.prompts import Task
from loraft.resolving import dump_yaml, load_resolved
from loraft.runs import Run, write_json, write_text
from loraft.spreads import ADAPTER, BACKBONE, BASELINE, summarise, verdict
from loraft.studies import FewshotStudy

UNCUT = 10**9  # a limit on tokens that no prompt reaches


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
    """One thing to measure: a model with so many demonstrations of one draw."""

    model: str
    shots: int
    draw: int


def fewshot(
    config: Config,
    *,
    run: Path | None = None,
    adapter_shots: bool = False,
    force: bool = False,
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Judges the backbone with k demonstrations in the prompt, several draws of each k, beside baselines.

    Args:
        config: its `fewshot` section says how many shots, draws, and how they are chosen.
        run: directory of a finished run; its adapter joins the table without demonstrations, as it was trained.
        adapter_shots: put the demonstrations before the adapter as well.
        force: delete an earlier study of that name.
        resume: go on with an interrupted study; draws that were measured are kept.
        quiet: draw no progress bar.

    Returns:
        `rows` of the table (see `summarise`), `draws` (metrics of each), `verdict`, and what was asked of what.

    Raises:
        DataError: a prompt does not fit the context, or the training rows are too few; before anything is measured.
        RunError: a study of that name is there, or the run is not finished or does not match.
    """
    section = config.fewshot
    train, test = api.load_data(config, "train"), api.load_data(config, "test")
    shots = sorted(set(section.shots))
    made = draws(train, test, most=shots[-1], repeats=section.repeats, selection=section.selection, seed=config.seed)
    tokens = check_context(config, train, test, made, shots)
    name = config.name or default_name(config) + (f"-with-{run.name}" if run is not None else "")
    FewshotStudy(Path(config.output) / name).check(force=force, resume=resume)
    encoder, model = api.build(config) if run is None else api.load_run(Run.open(run), config)
    study = FewshotStudy.create(Path(config.output), name, force=force, resume=resume)
    _begin(study, config)

    done = {
        Job(row["model"], row["shots"], row["draw"]): row for row in study.read_log() if row["run"] in (None, str(run))
    }
    jobs = list(plan(shots, section.repeats, adapter=run is not None, adapter_shots=adapter_shots))
    left = [job for job in jobs if job not in done]
    visible = not quiet and sys.stderr.isatty()
    for job in track(left, "draws", console=Console(stderr=True), disable=not visible):
        demonstrated = _demonstrations(train, encoder.task, made[job.draw], job.shots)
        bare = run is not None and job.model == BACKBONE
        with model.disable_adapter() if bare else nullcontext():
            numbers = _judge(model, encoder, test, config, demonstrated)
        chosen_Rk = made[job.draw].rows(job.shots)
        shared = len(chosen_Rk) == 1  # else every test row has its own, too many to list
        done[job] = {
            **vars(job),
            **numbers,
            "run": str(run) if job.model == ADAPTER else None,
            "train_rows": [train.examples[i].row for i in chosen_Rk[0]] if shared else None,
        }
        study.append_log(done[job])

    records = [done[job] for job in jobs]
    rows = [*_baselines(config, train, test), *summarise(records, tokens, config.eval.confidence)]
    result = {
        "kind": "fewshot",
        "path": str(study.path),
        "backbone": config.model.name,
        "run": None if run is None else str(run),
        "task": config.prompt.task,
        "labels": list(encoder.task.labels),
        "data": {
            split.name: {"source": split.source, "rows": len(split), "notes": split.notes} for split in (train, test)
        },
        "selection": section.selection,
        "repeats": section.repeats,
        "seed": config.seed,
        "decode": config.eval.decode,
        "confidence": config.eval.confidence,
        "rows": rows,
        "verdict": verdict(rows),
        "draws": records,
    }
    from loraft import studyplots

    studyplots.fewshot_curve(result, study.plots / "fewshot.png")
    study.finish(result)
    return result


def plan(shots: Sequence[int], repeats: int, *, adapter: bool, adapter_shots: bool) -> Iterator[Job]:
    """What is measured, in order: the adapter as it was trained, then every model with every k and draw."""
    if adapter:
        yield Job(ADAPTER, 0, 0)
    for model in (BACKBONE, ADAPTER) if adapter and adapter_shots else (BACKBONE,):
        for k in shots:
            for draw in range(repeats if k else 1):  # without demonstrations there is nothing to draw
                if (model, k) != (ADAPTER, 0):
                    yield Job(model, k, draw)


def check_context(
    config: Config, train: Split, test: Split, made: Sequence[Draw], shots: Sequence[int]
) -> dict[int, int]:
    """Length of the longest prompt and answer for each number of shots, in tokens. Loads no weights.

    Test sentences that are shortened even without demonstrations do not count; evaluation counts those.

    Raises:
        DataError: a demonstration pushes a prompt over the context.
    """
    uncut = config.prompt.model_copy(update={"max_length": UNCUT})
    ruler = api.build_encoder(config.model_copy(update={"prompt": uncut}))
    context = _context(config)
    limit = min(config.prompt.max_length, context)
    answer = max(map(len, ruler.completions_K))
    if config.eval.decode == "generate":
        answer = max(answer, config.eval.max_new_tokens)
    texts = test.texts
    plain_N = np.array([len(prompt.ids) for prompt in ruler.encode(texts)]) + answer
    longest = {}
    for k in shots:
        rows = [i for i in range(len(test)) if plain_N[i] <= limit]
        if config.fewshot.selection != "nearest":  # all rows bear the same: the longest sentences decide
            rows = sorted(rows, key=lambda i: -plain_N[i])[:3]
        lengths = [
            (len(ruler.encode([texts[i]], own)[0].ids) + answer, i)
            for draw in (made[:1] if config.fewshot.selection == "nearest" else made)
            for i, own in zip(rows, _of_rows(_demonstrations(train, ruler.task, draw, k), rows), strict=True)
        ]
        longest[k], row = max(lengths, default=(0, 0))
        if longest[k] > limit:
            smaller = [s for s in shots if s < k]
            raise DataError(_too_long(config, k, longest[k], test.examples[row].row, context, smaller))
    return longest


def default_name(config: Config) -> str:
    """Name of the study's folder: what people change between two studies."""
    parts = ["fewshot", Path(config.model.name).name, Path(config.data.source).name, Path(config.prompt.task).stem]
    parts += [config.fewshot.selection, *(["generate"] if config.eval.decode == "generate" else [])]
    parts += ["nf4"] if config.quant.method == "nf4" else []
    return "-".join([*parts, f"s{config.seed}"])


def _judge(
    model: Any, encoder: Encoder, test: Split, config: Config, demonstrated: list[tuple[tuple[str, str], ...]]
) -> dict[str, Any]:
    if len(demonstrated) == 1:
        return api.judge(model, encoder, test, config, demonstrated[0])[0]
    return api.judge(model, PerRowEncoder(encoder, demonstrated), test, config)[0]


def _demonstrations(train: Split, task: Task, draw: Draw, shots: int) -> list[tuple[tuple[str, str], ...]]:
    """Sentences and label words, one list for all test rows or one for each."""
    return [
        tuple((train.examples[i].text, task.label_words[int(train.labels[i])]) for i in rows_k)
        for rows_k in draw.rows(shots)
    ]


def _of_rows(demonstrated: list[Any], rows: Sequence[int]) -> list[Any]:
    return demonstrated * len(rows) if len(demonstrated) == 1 else [demonstrated[i] for i in rows]


def _too_long(config: Config, k: int, tokens: int, row: int, context: int, fitting: Sequence[int]) -> str:
    if tokens <= context:
        way = f"--set prompt.max_length={-(-tokens // 64) * 64 if -(-tokens // 64) * 64 <= context else tokens}"
    else:
        way = f"the backbone's context is {context}, choose another --model"
    fewer = f", or --shots {','.join(map(str, fitting))}" if fitting else ", or fewer --shots"
    return (
        f"fewshot.shots: the prompt with {k} shots takes {tokens} tokens for test row {row} (got"
        f" prompt.max_length={config.prompt.max_length}); {way}{fewer}"
    )


def _baselines(config: Config, train: Split, test: Split) -> list[dict[str, Any]]:
    made = {"majority label": baselines.majority, "TF-IDF + linear SVM": baselines.linear_svm}
    rows = []
    for name, predict in made.items():
        numbers = metrics.full(
            test.labels,
            None,
            predict(train, test),
            config.prompt.labels or [],
            bootstrap_samples=config.eval.bootstrap_samples,
            confidence=config.eval.confidence,
            seed=config.seed,
        )
        record = {**numbers, "model": BASELINE, "shots": 0, "seconds": 0.0}
        rows += [{**row, "name": name, "shots": None} for row in summarise([record], {}, config.eval.confidence)]
    return rows


def _context(config: Config) -> int:
    """Tokens that the backbone can attend to, as its config says; read without its weights."""
    hub = {"revision": config.model.revision, "cache_dir": config.model.cache_dir}
    given = {key: value for key, value in hub.items() if value is not None}
    architecture = AutoConfig.from_pretrained(resolve_name(config.model.name), **given).get_text_config()
    return int(getattr(architecture, "max_position_embeddings", None) or UNCUT)


def _begin(study: Run, config: Config) -> None:
    """Writes down what is going to be measured, or checks that it is what was measured before."""
    if study.config_path.exists():
        before, now = load_resolved(study.config_path).model_dump(), config.model_dump()
        changed = [key for key in now if now[key] != before[key]]
        if changed:
            raise RunError(
                f"{study.path}: --resume with another config (got a different {', '.join(changed)}); give the same, or"
                " --force starts again"
            )
    write_text(study.config_path, dump_yaml(config))
    write_json(study.environment_path, environment())
