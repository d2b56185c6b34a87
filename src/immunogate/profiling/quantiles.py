"""Percentiles that are only told where there are samples enough for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from immunogate.profiling.recording import Times

QUANTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9}
"""By their names in the documents."""

DIGITS = 4


def least_samples(percent: float) -> int:
    """Samples from which a percentile is told: one of them lies beyond it on average. 1000 for 99.9."""
    return round(100 / (100 - percent)) if percent > 50 else 1


def quantiles(samples: Times) -> dict[str, Any]:
    """p50, p90, p99, p99_9 (None where there are too few samples), mean, max and n of (n,) milliseconds.

    Between two samples it is interpolated linearly; nothing is ever told beyond the largest.

    Raises:
        ValueError: there are no samples.
    """
    if len(samples) == 0:
        raise ValueError("samples: expected at least one, got none")
    values = np.percentile(samples, list(QUANTILES.values()))
    told = {
        name: round(float(value), DIGITS) if len(samples) >= least_samples(percent) else None
        for (name, percent), value in zip(QUANTILES.items(), values, strict=True)
    }
    return {
        **told,
        "mean": round(float(samples.mean()), DIGITS),
        "max": round(float(samples.max()), DIGITS),
        "n": len(samples),
    }


def jitter(samples: Times) -> float | None:
    """Mean absolute difference of one sample to the next, in milliseconds; None for fewer than two.

    The quantity that RFC 3550 (6.4.1) smooths, without the smoothing.
    """
    return round(float(np.abs(np.diff(samples)).mean()), DIGITS) if len(samples) > 1 else None


def spread_percent(values: list[float]) -> float | None:
    """Distance of the largest to the smallest, in percent of their mean; None for fewer than two."""
    if len(values) < 2 or sum(values) <= 0:
        return None
    return round(100 * (max(values) - min(values)) * len(values) / sum(values), 2)
