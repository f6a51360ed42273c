"""Why this label: what leaving out each word of a sentence does to the log-odds of a label.

The log-odds of a label are log p / (1 - p), in nats, with p its probability. A word's effect is the log-odds with the
whole sentence minus those with the sentence without that word: positive if the word speaks for the label. This is
occlusion, or leave-one-out (Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks"; Li, Monroe
and Jurafsky 2016, "Understanding Neural Networks through Representation Erasure"). It measures the model on other
sentences, and says nothing about causes.

Shapes: N sentences, K labels.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.data.records import Example
from loraft.display.tabled import Tabled, TabledList
from loraft.errors import DataError
from loraft.models.shortening import characters
from loraft.models.suitability import WITHOUT_SPACES

MOST = 100  # parts of a sentence that are left out, one at a time; with more words each part is several words
LONGEST = 100_000  # characters of a sentence: each is held once for every part
TOP = 3  # words that `strongest` names

Span = tuple[int, int]  # where a part of a sentence begins and ends


@dataclass(frozen=True)
class WordEffect:
    """One word of a sentence, or several in a row, and its effect.

    Attributes:
        text: as it stands in the sentence.
        start, end: its place there, in characters (code points).
        effect: by how many nats the log-odds of the label fall without it; negative where they rise.
    """

    text: str
    start: int
    end: int
    effect: float


@dataclass(frozen=True, repr=False)
class Explanation(Tabled):
    """What each word of a sentence does to one label.

    Attributes:
        row: number of the sentence in its input, from 1.
        text: the sentence.
        label: the label that is explained.
        probability: of that label, in [0, 1].
        log_odds: of that label with the whole sentence, in nats.
        words: in the order of the sentence.
        predicted: the labels that are predicted for it; none in files of earlier versions.
    """

    row: int
    text: str
    label: str
    probability: float
    log_odds: float
    words: tuple[WordEffect, ...]
    predicted: tuple[str, ...] = ()

    def _table(self) -> tuple[str, list[dict[str, Any]]]:
        rows = [{"word": one.text, "effect": one.effect, "start": one.start, "end": one.end} for one in self.words]
        return f"{self.label} {self.probability:.3f}; effect in nats: {self.text}", rows


class ExplanationList(TabledList[Explanation]):
    """A list of explanations, as `Classifier.explain` returns it. Its table has a row for each word of each."""

    columns = ("row", "label", "word", "effect", "start", "end")

    def _table(self) -> tuple[str, list[dict[str, Any]]]:
        rows = [{"row": one.row, "label": one.label, **word} for one in self for word in one._table()[1]]
        return f"{len(self):,} {'explanation' if len(self) == 1 else 'explanations'}; effect in nats", rows


@dataclass(frozen=True)
class Explanations:
    """Explanations of a run's most confident mistakes, as a file keeps them."""

    mistakes: tuple[Explanation, ...]


def word_spans(text: str) -> list[Span]:
    """Returns the words of a sentence.

    A word is what stands between spaces (in Vietnamese a syllable), with the punctuation that touches it; punctuation
    between spaces is a word of its own. In scripts without spaces each character is one, with its combining marks.
    """
    spans: list[Span] = []
    for found in re.finditer(r"\S+", text):
        start, goes_on = found.start(), False  # whether the next character belongs to the same word
        for character in characters(found[0]):
            end = start + len(character)
            spaced = not unicodedata.name(character[0], "").startswith(WITHOUT_SPACES)
            if spaced and goes_on:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
            start, goes_on = end, spaced
    return spans


def parts(text: str) -> list[Span]:
    """Returns the parts that are left out one at a time: words, or with more than `MOST` of them groups of words.

    Groups hold the same number of words in a row, the last one perhaps fewer.
    """
    spans = word_spans(text)
    size = -(-len(spans) // MOST) or 1
    return [(spans[i][0], spans[min(i + size, len(spans)) - 1][1]) for i in range(0, len(spans), size)]


def without(text: str, span: Span) -> str:
    """Returns the sentence without a part; of the spaces around it those after it go, too."""
    before, after = text[: span[0]], text[span[1] :]
    return (before + (after.lstrip() if before[-1:].isspace() else after)).strip()


def variants(row: Example) -> list[Example]:
    """Returns the sentence, and then the sentence without each of its `parts`; of one word an empty sentence is left.

    Raises:
        DataError: it is longer than `LONGEST`.
    """
    if len(row.text) > LONGEST:
        raise DataError(
            f"row {row.row}: too long to explain (got {len(row.text):,} characters); up to {LONGEST:,} are allowed"
        )
    return [row, *(replace(row, text=without(row.text, span)) for span in parts(row.text))]


def log_odds(log_probs_NK: npt.ArrayLike, k: int, *, several: bool) -> npt.NDArray[np.float64]:
    """Returns the log-odds of label k for N sentences, in nats.

    Args:
        log_probs_NK: the labels' scores as in `engine.scorer.score`; with `several`, (N, 2 K) as in
            `multilabel.probabilities`.
        k: id of the label.
        several: whether a row may have several labels; each is then measured against its own "no".
    """
    scores = np.asarray(log_probs_NK, dtype=np.float64)
    if several:
        return np.asarray(scores[:, k] - scores[:, scores.shape[1] // 2 + k])
    return np.asarray(scores[:, k] - np.logaddexp.reduce(np.delete(scores, k, axis=1), axis=1))


def explanation(
    row: Example,
    label: str,
    probability: float,
    log_odds_N: Sequence[float] | npt.NDArray[np.float64],
    predicted: tuple[str, ...],
) -> Explanation:
    """Returns the explanation of a label.

    Args:
        row: the sentence.
        label: of K.
        probability: of that label for the sentence.
        log_odds_N: of that label for each of `variants(row)`.
        predicted: the labels that are predicted for the sentence.
    """
    whole, *left = map(float, log_odds_N)
    words = [
        WordEffect(row.text[start:end], start, end, whole - without_it)
        for (start, end), without_it in zip(parts(row.text), left, strict=True)
    ]
    return Explanation(row.row, row.text, label, probability, whole, tuple(words), predicted)


def strongest(found: Explanation, most: int = TOP) -> str:
    """Returns the words that speak most for the label, with their effects in nats; "-" where none does."""
    words = sorted((word for word in found.words if signed(word.effect)[0] == "+"), key=lambda word: -word.effect)
    return ", ".join(f"{' '.join(word.text.split())} {signed(word.effect)}" for word in words[:most]) or "-"


def signed(effect: float) -> str:
    """Returns an effect with its sign and two decimals; one that rounds to zero has no sign."""
    text = f"{effect:+.2f}"
    return text if float(text) else "0.00"
