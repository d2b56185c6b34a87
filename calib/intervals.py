"""Confidence intervals of error rates."""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""Quantile of the normal distribution for two-sided 95 %."""


def wilson(errors: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of a rate (E. B. Wilson, JASA 1927).

    Args:
        errors: 0 .. trials.
        trials: at least 1.
        z: quantile of the normal distribution.

    Returns:
        Lower and upper end in [0, 1].

    Raises:
        ValueError: the counts are impossible.
    """
    if trials < 1 or not 0 <= errors <= trials:
        raise ValueError(f"expected 0 <= errors <= trials and trials >= 1, got {errors} of {trials}")
    rate, square = errors / trials, z * z
    centre = (rate + square / (2 * trials)) / (1 + square / trials)
    half = z / (1 + square / trials) * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)
