"""Records of a data source's statistics: splits, lengths, the longest rows, and all of them (`data.json`)."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from loraft.data.checks import Conflicts, Duplicates, Leaks, RowPlace
from loraft.display.tabled import Tabled
from loraft.runs.records import Flat, FolderResult

QUANTILES = (0.5, 0.9, 0.95, 0.99)
UP_TO = (5, 10, 15, 20, 30)  # words
_PLACE = ("split", "row", "text")


def quantile_name(quantile: float) -> str:
    """The key of a quantile, for example "95%"."""
    return f"{quantile:.0%}"


@dataclass(frozen=True)
class Lengths(Flat, quantiles=map(quantile_name, QUANTILES)):
    """Lengths of some rows, in words or tokens.

    In JSON the quantiles are on the same level as the other fields.

    Attributes:
        mean: of all rows.
        quantiles: for each of `QUANTILES`, by its name, the length that this share of the rows does not exceed.
        longest: the greatest length.
    """

    mean: float
    quantiles: dict[str, int]
    longest: int

    @classmethod
    def of(cls, lengths_N: npt.NDArray[np.int64]) -> Self:
        """Of N lengths; each quantile is a length that occurs, not an interpolated one."""
        ordered = np.sort(lengths_N)
        quantiles = {quantile_name(q): int(ordered[max(0, math.ceil(q * len(ordered)) - 1)]) for q in QUANTILES}
        return cls(float(lengths_N.mean()), quantiles, int(ordered[-1]))


def shares_up_to(words_N: npt.NDArray[np.int64]) -> dict[int, float]:
    """For each n of `UP_TO` the share of N rows that have at most n words."""
    return {n: float((words_N <= n).mean()) for n in UP_TO}


@dataclass(frozen=True)
class SplitStatistics:
    """One split: its name and source, the notes of reading, its rows, their share of all rows, and rows by label."""

    name: str
    source: str
    notes: dict[str, int]
    rows: int
    share: float
    labels: dict[str, int]


@dataclass(frozen=True)
class CrossTable:
    """Counts of two columns of the same rows: `counts[i][j]` rows have value `rows[i]` and label `columns[j]`."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class LongRow(Flat, place=_PLACE):
    """One of the rows with the most words. In JSON the fields of `place` are on the same level as the numbers."""

    words: int
    characters: int
    place: RowPlace


@dataclass(frozen=True)
class LongPrompt(Flat, place=_PLACE):
    """One of the rows with the most tokens. In JSON the fields of `place` are on the same level as the numbers.

    Attributes:
        tokens: of the sentence.
        prompt: tokens of the prompt with its longest answer, after shortening to `prompt.max_length`.
        place: the row.
    """

    tokens: int
    prompt: int
    place: RowPlace


@dataclass(frozen=True)
class TokenLengths:
    """Lengths in tokens.

    Attributes:
        tokenizer: name of the backbone whose tokenizer counts.
        max_length: `prompt.max_length`.
        shortened: number of sentences that are shortened to fit it.
        sentence: of the sentences.
        prompt: of the prompts with their longest answer, after shortening.
        longest: the rows with the most tokens.
        cut: share of all sentences' tokens that are left out by shortening.
    """

    tokenizer: str
    max_length: int
    shortened: int
    sentence: Lengths
    prompt: Lengths
    longest: tuple[LongPrompt, ...]
    cut: float = 0.0


@dataclass(frozen=True, repr=False)
class DatasetStatistics(Tabled, FolderResult):
    """The statistics of a data source, as in `data.json`.

    Attributes:
        path: the directory of `data.json` and the figures.
        source, task: as the config names them.
        labels: of the task, in id order.
        label_column: name of the column of labels.
        by: name of the second column; None without one.
        rows: number of rows of all splits.
        splits: each split.
        shares: the second column by the labels.
        lengths: lengths in words of all rows (key "all") and of the rows of each label.
        duplicates: by split.
        conflicts: sentences with several labels.
        near_threshold: Jaccard index above which two rows are nearly the same.
        leaks: of each pair of splits.
        longest: the rows with the most words.
        tokens: lengths in tokens; None where they were not measured.
        notes: sentences on what is not described, and why.
        drawn: the keys by which the splits are drawn; None for the source's own.
        words_up_to: by split and of all rows (key "all"), by n, the share of rows with at most n words between blanks;
            empty in files of before there was this field.
    """

    kind: Literal["data"] = field(default="data", kw_only=True)  # first in the file
    path: str
    source: str
    task: str
    labels: tuple[str, ...]
    label_column: str
    by: str | None
    rows: int
    splits: tuple[SplitStatistics, ...]
    shares: CrossTable
    lengths: dict[str, Lengths]
    duplicates: dict[str, Duplicates]
    conflicts: Conflicts
    near_threshold: float
    leaks: tuple[Leaks, ...]
    longest: tuple[LongRow, ...]
    tokens: TokenLengths | None
    notes: tuple[str, ...]
    drawn: str | None = None
    words_up_to: dict[str, dict[int, float]] = field(default_factory=dict)

    def _table(self) -> tuple[str, list[dict[str, Any]]]:
        rows = [
            {"split": one.name, "rows": one.rows, "share": one.share, "repeated": self.duplicates[one.name].same}
            | {f"rows_{label}": count for label, count in one.labels.items()}
            for one in self.splits
        ]
        return f"{self.source}, task {self.task}, {self.rows:,} rows", rows

    @model_validator(mode="before")
    @classmethod
    def _name_sides(cls, content: Any) -> Any:
        """Renames the rows of near pairs, which JSON has under the names of their splits, to `left` and `right`."""
        try:
            leaks = []
            for pair in content["leaks"]:
                sides = {pair["left"]: "left", pair["right"]: "right"}
                examples = [{sides.get(key, key): value for key, value in one.items()} for one in pair["examples"]]
                leaks.append({**pair, "examples": examples})
        except (KeyError, TypeError, AttributeError):  # a damaged file, which the fields' own checks describe better
            return content
        return {**content, "leaks": leaks}
