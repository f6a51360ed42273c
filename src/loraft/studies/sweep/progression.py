"""Parses lists of whole numbers with dots for the terms in between: `1,2,4,...,128`.

The dots stand for an arithmetic or a geometric progression. Where both fit, or neither, the list is refused and the
message shows what was tried: a sweep over the wrong ranks would cost hours.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from loraft.config.names import show
from loraft.errors import ConfigError

DOTS = "..."
MOST_TERMS = 1000  # a longer progression is a typing mistake


def expand_integers(text: str, where: str) -> list[int]:
    """The whole numbers in a text, with `...` for the terms of an arithmetic or geometric progression.

    Args:
        text: numbers separated by commas; at least two of them before the dots, at least one after.
        where: the flag or key, for the message.

    Raises:
        ConfigError: an item is no whole number, or given twice; or no progression fits the dots, or two do.
    """
    items = [item.strip() for item in text.replace("…", DOTS).split(",")]
    wrong = [item for item in items if item != DOTS and not re.fullmatch(r"[+-]?[0-9]{1,15}", item)]
    if wrong:
        got = show(wrong[0]) + (f" in {show(text)}" if len(items) > 1 else "")
        raise ConfigError(f"{where}: not a whole number (got {got}); of at most 15 digits, for example 1,2,4,...,128")
    if len(items) > MOST_TERMS:
        raise ConfigError(f"{where}: too many numbers (got {len(items):,}); at most {MOST_TERMS:,}")
    if DOTS in items:
        at = items.index(DOTS)
        if DOTS in items[at + 1 :] or at < 2 or at + 1 == len(items):
            raise ConfigError(
                f"{where}: the dots cannot be expanded (got {show(text)}); give at least two numbers before them, at "
                "least one after, and the dots only once: 1,2,4,...,128"
            )
        numbers = _progression([int(item) for item in items[:at]], [int(item) for item in items[at + 1 :]], text, where)
    else:
        numbers = [int(item) for item in items]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise ConfigError(f"{where}: the same number twice (got {twice[0]} in {show(text)}); give each once")
    return numbers


def _progression(head: list[int], tail: list[int], text: str, where: str) -> list[int]:
    """The one progression that begins with the numbers before the dots and ends with those after them."""
    a, b, last = head[0], head[1], tail[-1]
    tried = {"arithmetic": _terms(a, last, lambda x: x + (b - a), a != b)}
    # Fractions keep a ratio like 3/2 exact. If the last term is a whole number, then all terms before it are.
    tried["geometric"] = _terms(a, last, lambda x: x * Fraction(b, a), a != b and a > 0 and b > 0)
    fitting = {
        kind: terms
        for kind, terms in tried.items()
        if terms[: len(head)] == head
        and terms[-len(tail) :] == tail
        and len(head) + len(tail) <= len(terms) <= MOST_TERMS
    }
    shown = {kind: f"{kind} {_shown(terms)}" for kind, terms in tried.items() if terms}
    if len(fitting) == 2:
        raise ConfigError(
            f"{where}: two progressions fit the dots (got {show(text)}; tried {' or '.join(shown.values())}); give one "
            "more number before the dots"
        )
    if not fitting:
        raise ConfigError(
            f"{where}: no progression leads from the first numbers to the last (got {show(text)}; tried "
            f"{' and '.join(shown.values()) or 'none, as the first numbers are equal'}); list the numbers without dots"
        )
    (terms,) = fitting.values()
    return [int(term) for term in terms]


def _terms(first: int, last: int, step: Callable[[Fraction], Fraction], moves: bool) -> list[Fraction]:
    """The progression up to `last` or to the first term past it, at most MOST_TERMS + 1 terms; none without `moves`."""
    terms = [Fraction(first)] if moves else []
    while terms and len(terms) <= MOST_TERMS and terms[-1] != last:
        terms.append(step(terms[-1]))
        if (terms[-1] > last) == (terms[-1] > terms[-2]) and terms[-1] != last:
            break
    return terms


def _shown(terms: Sequence[Fraction]) -> str:
    words = [str(term) if term.denominator == 1 else f"{float(term):g}" for term in terms]
    words = words if len(words) <= 5 else [*words[:3], DOTS, words[-1]]
    return ", ".join(words) + (" and on" if len(terms) > MOST_TERMS else "")
