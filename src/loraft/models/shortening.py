"""Shorten texts that do not fit a prompt: which part is cut out, and how a limit is shared between several texts.

A text is cut between units: whole words, or characters as a reader sees them. Such a character may be several code
points, as a flag or a family of emoji is, and several tokens; it is kept whole or left out.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial

import regex

MARK = " … "  # stands where the middle of a text was cut out
FEWEST = 8  # tokens of a demonstration that is shortened; with fewer it shows nothing


def characters(text: str) -> list[str]:
    """Returns the characters of a text as a reader sees them: extended grapheme clusters."""
    return [str(found) for found in regex.findall(r"\X", text)]


def words(text: str) -> list[str]:
    """Returns the words of a text, each with the space around it."""
    return re.findall(r"\s*\S+\s*", text)


def kept(units: Sequence[str], count: int, truncation: str) -> str:
    """Returns a text of which `count` units are left, without space at the cut.

    Args:
        units: whose concatenation is the whole text.
        count: units to keep.
        truncation: the part that is cut out: `tail`, `head`, or `middle`, where `MARK` stands in its place and the
            start keeps one unit more than the end if `count` is odd.
    """
    if count == 0 or truncation == "tail":
        return "".join(units[:count]).rstrip()
    if truncation == "head":
        return "".join(units[-count:]).lstrip()
    end = count // 2
    return ("".join(units[: count - end]).rstrip() + MARK + "".join(units[len(units) - end :]).lstrip()).strip()


def most(high: int, expected: int, fits: Callable[[int], bool]) -> int:
    """Returns the largest count up to `high` that fits, by bisection; 0 always does.

    Args:
        high: no larger count is asked for.
        expected: about the result. First twice as much is tried, so that of a long text few characters are encoded.
        fits: whether a count fits; more than one that does not fit do not either.
    """
    low, twice = 0, 2 * max(1, expected)
    if twice < high and not fits(twice):
        high = twice - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def shared(
    texts: Sequence[str], available: int, tokens: Callable[[str], int], truncation: str
) -> tuple[list[str], int]:
    """Returns texts that take at most `available` tokens together, and the limit to which the longer ones were cut.

    They are cut by whole words; a single word that is too long, by characters. Something of each text is left.

    Args:
        texts: the whole texts.
        available: tokens for all of them.
        tokens: counts those of a text.
        truncation: as in `kept`.
    """
    lengths = [tokens(text) for text in texts]
    limit = _limit(lengths, available)
    return [
        _cut(text, limit, tokens, truncation) if length > limit else text
        for text, length in zip(texts, lengths, strict=True)
    ], limit


def _limit(lengths: Sequence[int], available: int) -> int:
    """The largest limit with which texts fit: what short texts do not use is shared by the longer ones."""
    left, limit = available, max(FEWEST, *lengths)
    for shorter, length in enumerate(sorted(lengths)):
        longer = len(lengths) - shorter
        if length * longer > left:
            return left // longer
        left -= length
    return limit


def _cut(text: str, limit: int, tokens: Callable[[str], int], truncation: str) -> str:
    count, units = 0, words(text)
    for units in (words(text), characters(text)):
        fits = partial(_fits, units, limit=limit, tokens=tokens, truncation=truncation)
        count = most(len(units), limit, fits)
        if count:
            break
    return kept(units, max(1, count), truncation)


def _fits(units: Sequence[str], count: int, *, limit: int, tokens: Callable[[str], int], truncation: str) -> bool:
    return tokens(kept(units, count, truncation)) <= limit
