"""`loraft check`: looks for what would ruin or distort a training before it begins; asks no hub, keeps no file."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import torch

from loraft.config.resolve import TASK_KEYS, resolve
from loraft.config.schema import Config, ModelConfig
from loraft.config.trackers import refuse_missing_trackers
from loraft.data.checks import Leaks, duplicates, leaks, near_repeats
from loraft.data.dataset import Split, training_splits, warn_of_notes
from loraft.data.examples import conflicting_texts, digest
from loraft.delivery.calibration import Calibration, calibrated
from loraft.delivery.check_prompt import AnswerTokens, ShownPrompt, answer_tokens, collisions, shown_prompt
from loraft.errors import ConfigError, LoraftError, Note, RunError, first_line, listed
from loraft.evaluation import advice, training_advice
from loraft.evaluation.enough_rows import key_of, more_rows, refuse_unmeasured
from loraft.hub import BACKBONE, asks_nothing
from loraft.models.backbone import without_weights
from loraft.models.encoder import Encoder
from loraft.models.load import build_encoder
from loraft.models.prompts import cut_share, warn_of_cuts
from loraft.models.source import is_gguf, on_this_machine
from loraft.runs.run import run_of
from loraft.training.dataset import prepare
from loraft.training.learning_rate import rate_for

Level = Literal["error", "warning", "note"]
COMMAND = "loraft check"
LIBRARIES = "torch|transformers|peft|trl|bitsandbytes|accelerate|datasets|huggingface_hub"  # whose warnings are not
SECONDS = 5.0  # of training, to measure its speed
MOST_LEAKED = 0.5  # of the rows that are measured on; above it a score tells what was learnt by heart
# Names of files, one of which a backbone's folder has.
TOKENIZER, WEIGHTS = ("tokenizer*", "vocab*", "*.model"), ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class Finding:
    """What was found: an error ruins the training, a warning distorts it or what it measures, a note informs."""

    level: Level
    text: str


@dataclass(frozen=True)
class SplitFound:
    """The rows of a split as the training uses them.

    Attributes:
        name, source: of the split.
        rows: their number.
        labels: rows of each label.
        repeated: rows whose sentence is that of an earlier row.
        nearly: sentences that are nearly those of an earlier row; None if not looked for.
        conflicting: rows whose sentence has another label in some split, too.
        shortened: rows whose sentence is shortened to fit; None if not counted.
        cut: share of all the sentences' tokens that is left out.
        longest: tokens of the longest prompt with its longest answer.
    """

    name: str
    source: str
    rows: int
    labels: dict[str, int]
    repeated: int
    nearly: int | None
    conflicting: int
    shortened: int | None = None
    cut: float | None = None
    longest: int | None = None


@dataclass(frozen=True)
class Rate:
    """The learning rate of the training, the usual one for the backbone's number of weights, and this number."""

    used: float
    usual: float
    weights: int


@dataclass(frozen=True)
class Checked:
    """All that was found; what could not be looked at is None or empty, and in `left_out`.

    Attributes:
        config: the resolved one, whole.
        differs: of the keys that differ from the preset, the value and the preset's.
        splits: train, validation and test.
        leaks: of each pair of splits; without examples.
        prompt: some training rows.
        answers: all answers.
        rate: the learning rate.
        speed: of the first steps.
        left_out: what was not looked at, and why.
        findings: errors first, then warnings, then notes.
    """

    config: dict[str, Any]
    differs: dict[str, tuple[Any, Any]]
    splits: tuple[SplitFound, ...]
    leaks: tuple[Leaks, ...]
    prompt: ShownPrompt | None
    answers: tuple[AnswerTokens, ...]
    rate: Rate | None
    speed: Calibration | None
    left_out: tuple[str, ...]
    findings: tuple[Finding, ...]

    def count(self, level: str) -> int:
        """The number of findings of a level."""
        return sum(one.level == level for one in self.findings)


class _Report:
    """Collects what is found while it is looked for."""

    def __init__(self) -> None:
        self.findings: dict[Finding, None] = {}  # each once
        self.left_out: list[str] = []

    def tell(self, level: Level, texts: Iterator[str] | Sequence[str]) -> None:
        self.findings |= dict.fromkeys(Finding(level, text) for text in texts)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What loraft warns of inside the block is a finding, and an error other than of the config as well."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", category=UserWarning)
            warnings.filterwarnings("ignore", module=LIBRARIES)
            try:
                yield
            except ConfigError:
                raise
            except LoraftError as error:
                self.tell("error", [str(error)])
            except torch.OutOfMemoryError as error:
                self.tell("error", [f"training: out of memory ({first_line(error)}); loraft plan says what fits"])
        for one in caught:
            self.tell("note" if issubclass(one.category, Note) else "warning", [str(one.message)])


def check(config: Config, *, speed: bool = True) -> Checked:
    """Looks at the config, at the rows that it trains and measures on, and at what the backbone makes of them.

    Args:
        config: of a training.
        speed: train some steps to measure their speed, where the backbone's weights are on this machine.

    Raises:
        ConfigError: the training would refuse the config.
        DataError: a split cannot be read.
    """
    refuse_missing_trackers(config)
    report = _Report()
    prompt, rate, measured, answers = None, None, None, tuple[AnswerTokens, ...]()
    with asks_nothing(COMMAND):
        splits = training_splits(config)
        with report.telling():
            refuse_unmeasured(config, splits["validation"])
            warn_of_notes(splits.values())
        try:
            run_of(config).check(force=False, resume=False)
        except RunError as error:  # no harm: the training refuses at once
            report.tell("warning", [str(error)])
        found, shared = _of_rows(config, splits, report)
        with report.telling():
            if _here(config.model, (BACKBONE.file,), "everything about the backbone", report):
                rate = _rate(config, report)
                if _here(config.model, TOKENIZER, "tokens, prompts, label words and speed", report):
                    encoder = build_encoder(config)
                    data = prepare(config, encoder, splits["train"], splits["validation"])  # warns of what is cut
                    warn_of_cuts(encoder.encode(splits["test"].texts), "test")
                    found = tuple(_with_tokens(one, encoder, splits[one.name]) for one in found)
                    report.tell("note", collisions(encoder))
                    prompt, answers = shown_prompt(encoder, data, texts=config.output.texts), answer_tokens(encoder)
                    if speed and _here(config.model, WEIGHTS, "rows a second", report):
                        measured = calibrated(config, encoder, data, SECONDS)
    for one in found:
        report.tell("error", advice.cut_away(config, one.cut or 0, one.name))
    levels = ("error", "warning", "note")
    return Checked(
        config=config.model_dump(),
        differs=_differs(config),
        splits=found,
        leaks=shared,
        prompt=prompt,
        answers=answers,
        rate=rate,
        speed=measured,
        left_out=tuple(report.left_out),
        findings=tuple(sorted(report.findings, key=lambda one: levels.index(one.level))),
    )


def _differs(config: Config) -> dict[str, tuple[Any, Any]]:
    """The keys whose values are not the preset's; of another task its name alone, not its texts."""
    own, preset = (dict(_leaves(one.model_dump())) for one in (config, resolve(preset=config.preset)))
    of_task = {f"prompt.{key}" for key in TASK_KEYS} if own["prompt.task"] != preset["prompt.task"] else set()
    keys = [key for key, value in own.items() if value != preset.get(key) and key not in of_task]
    return {key: (own[key], preset.get(key)) for key in keys}


def _leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _of_rows(
    config: Config, splits: Mapping[str, Split], report: _Report
) -> tuple[tuple[SplitFound, ...], tuple[Leaks, ...]]:
    """What is to be said about the rows without a tokenizer."""
    labels, several = config.prompt.labels or [], config.prompt.kind == "multilabel"
    has_NK = {
        name: split.label_sets(len(labels)) if several else split.labels[:, None] == np.arange(len(labels))
        for name, split in splits.items()
    }
    counts_K = {name: has.sum(axis=0) for name, has in has_NK.items()}
    conflicting = conflicting_texts(split.examples for split in splits.values())

    def near(one: int, other: int) -> bool:
        if too_many := one * other > advice.MOST_PAIRS:
            report.left_out.append(f"near-duplicates among {one * other:,} pairs of rows: loraft data looks for them")
        return not too_many

    found = []
    for name, split in splits.items():
        same, rows = duplicates(split), len(split)
        counts = dict(zip(labels, map(int, counts_K[name]), strict=True))
        nearly = near_repeats(split) if near(rows, rows // 2) else None
        conflicts = sum(digest(text) in conflicting for text in split.texts) if conflicting else 0
        found.append(SplitFound(name, split.source, rows, counts, same.same + same.other, nearly, conflicts))
        absent = [label for label, count in counts.items() if not count]
        if absent and name == "train":
            report.tell("error", [f"no training row has {listed(absent)}; add rows, or take it out of prompt.labels"])
        elif absent:
            report.tell("warning", [f"no {name} row has {listed(absent)}; {more_rows(config, split)}"])
    train, test = splits["train"], splits["test"]
    learnt = counts_K["train"] > 0
    report.tell("warning", advice.hard_to_learn([*np.array(labels)[learnt]], counts_K["train"][learnt]))
    rows_of = {label: test.examples.rows[has_N].tolist() for label, has_N in zip(labels, has_NK["test"].T, strict=True)}
    report.tell("warning", advice.rare(rows_of, more_rows(config, test)))
    if not several:
        origin = f"data.train_split and {key_of('test')} may have different origins"
        report.tell("warning", advice.shifts(labels, counts_K["train"], counts_K["test"], "of the test rows", origin))
    if any(one.conflicting for one in found):
        places = ", ".join(f"{one.conflicting:,} {one.name}" for one in found if one.conflicting)
        report.tell("warning", [f"rows whose sentence has another label elsewhere: {places}; data.drop_conflicts=true"
                                " trains without those of train"])  # fmt: skip
    pairs = []
    for left, right in combinations(splits.values(), 2):
        pair = replace(leaks(left, right, near=near(len(left), len(right))), examples=())
        pairs.append(pair)
        inside = pair.exact + (pair.near or 0)
        if inside and left is train:
            level: Level = "error" if inside > MOST_LEAKED * len(right) else "warning"
            report.tell(level, [f"{inside:,} of {len(right):,} {right.name} rows stand in train, the same or nearly;"
                                " data.drop_leaked=true trains without them"])  # fmt: skip
    return tuple(found), tuple(pairs)


def _here(section: ModelConfig, files: Sequence[str], parts: str, report: _Report) -> bool:
    """Whether one of these files of the backbone is on this machine; else its parts of the check are left out."""
    place = on_this_machine(section)
    found = place is not None and (is_gguf(place.name) or any(any(place.glob(file)) for file in files))
    if not found:
        report.left_out.append(f"{parts}: {section.label} has no {' or '.join(files)} on this machine")
    return found


def _rate(config: Config, report: _Report) -> Rate:
    weights = sum(parameter.numel() for parameter in without_weights(config.model).parameters())
    usual = rate_for(weights)
    used = usual if config.train.learning_rate is None else config.train.learning_rate
    # A training that is too fast diverges; one that is too slow shows in its curve.
    report.tell("error" if used > usual else "warning", training_advice.of_training([], config, 0, used, usual))
    return Rate(used, usual, weights)


def _with_tokens(found: SplitFound, encoder: Encoder, split: Split) -> SplitFound:
    prompts = encoder.encode(split.texts)
    longest = max(map(len, prompts.ids)) + encoder.longest_answer
    shortened = sum(prompt.cut > 0 for prompt in prompts)
    return replace(found, shortened=shortened, cut=cut_share(prompts), longest=longest)
