"""Shares of rows: given ones, Wilson's interval of one, Tango's of the difference of two on the same rows."""

import math
from numbers import Real

from loraft.config.names import show
from loraft.errors import ConfigError

LEAST = 1e-6  # that a promise may leave out: less takes more rows than anyone has
Interval = tuple[float, float]


def given(name: str, value: object, least: float = LEAST) -> float:
    """Returns a share that was given as `name`, as a float of Python's.

    Raises:
        ConfigError: it is no number from `least` to 1 - `least`.
    """
    if not (isinstance(value, Real) and least <= float(value) <= 1 - least):  # NaN, too
        raise ConfigError(f"{name}: is no number from {least:g} to {1 - least:g} (got {show(value)}); give a fraction")
    return float(value)


def percent(fraction: float) -> str:
    """A confidence in percent with all its digits, so that 0.999 does not read 100%."""
    return f"{100 * fraction:.12g}%"


def wilson(right: int, total: int, confidence: float) -> Interval:
    """Wilson's score interval of a share: it contains the share, and has a width also at 0 and 1.

    Source:
        Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    from scipy.special import ndtri

    share, z = right / total, float(ndtri((1 + confidence) / 2))
    middle = share + z**2 / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    # At 0 and 1 the bound is the share itself; rounding must not move it to the other side.
    return min((middle - half) / (1 + z**2 / total), share), max((middle + half) / (1 + z**2 / total), share)


def tango(own: int, other: int, total: int, confidence: float) -> Interval:
    """Tango's score interval of the difference of two shares on the same rows: it has a width also where none differs.

    The bounds are the differences that the score test of matched pairs does not reject, found by bisection.

    Args:
        own: rows that only the first model has right.
        other: rows that only the second model has right.
        total: number of rows.
        confidence: coverage of the interval, in (0, 1).

    Source:
        Tango 1998, "Equivalence Test and Confidence Interval for the Difference in Proportions for the Paired-sample
        Design"; recommended by Fagerland, Lydersen and Laake 2014, "Recommended Tests and Confidence Intervals for
        Paired Binomial Proportions".
    """
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))

    def holds(gap: float) -> bool:
        # The likeliest share of rows that only the second model has right, if `gap` is the true difference.
        linear = (2 * total - own + other) * gap - own - other
        share = (math.sqrt(max(0.0, linear**2 + 8 * total * other * gap * (1 - gap))) - linear) / (4 * total)
        return (own - other - total * gap) ** 2 <= z**2 * total * (2 * share + gap * (1 - gap))

    bounds = []
    for outside in (-1.0, 1.0):
        inside = (own - other) / total
        for _ in range(50):  # halvings, down to the precision of floats
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if holds(middle) else (inside, middle)
        bounds.append(inside)
    return bounds[0], bounds[1]
