"""Intervals of medians by resampling.

Frames that follow each other are alike, and so are frames of one run. So runs are drawn first, and of each drawn run
whole blocks of frames (the circular block bootstrap: Politis and Romano, "A circular block-resampling procedure for
stationary data", 1992). Samples drawn one by one would give intervals that are too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from immunogate.profiling.recording import Times

DRAWS = 1000
LEVEL = 0.99
"""Of the intervals: a comparison looks at twenty stages, and each may be wrong."""


def resampled_medians(runs: Sequence[Times], seed: int, draws: int = DRAWS) -> Times:
    """(draws,) medians of as many resamplings.

    Args:
        runs: samples of each run, (n,) in the order in which they were taken; empty ones are left out.
        seed: of the generator.
        draws: how many.

    Raises:
        ValueError: there are no samples at all.
    """
    held = [run for run in runs if len(run)]
    if not held:
        raise ValueError("runs: expected at least one sample, got none")
    generator = np.random.default_rng(seed)
    length = max(len(run) for run in held)
    lengths = np.array([len(run) for run in held])
    padded = np.stack([np.resize(run, length) for run in held])
    chosen = generator.integers(0, len(held), (draws, len(held)))
    block = max(1, round(length ** (1 / 3)))
    starts = generator.random((draws, len(held), -(-length // block))) * lengths[chosen][:, :, None]
    places = (starts.astype(np.int64)[..., None] + np.arange(block)).reshape(draws, len(held), -1)[..., :length]
    drawn = padded[chosen[:, :, None], places % lengths[chosen][:, :, None]]
    medians: Times = np.median(drawn.reshape(draws, -1), axis=1)
    return medians


def interval(values: Times, level: float = LEVEL) -> tuple[float, float]:
    """The middle part of resampled values that holds this share of them."""
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def ratio_interval(before: Sequence[Times], after: Sequence[Times], seed: int = 1) -> tuple[float, float, float]:
    """How many times as long the median is after as before, and its 99 % interval.

    Args:
        before: samples of each run.
        after: likewise.
        seed: of the generators.

    Raises:
        ValueError: one has no samples, or a median of zero.
    """
    first, second = resampled_medians(before, seed), resampled_medians(after, seed + 1)
    if not first.min() > 0:
        raise ValueError("before: expected medians above 0")
    low, high = interval(second / first)
    ratio = float(np.median(np.concatenate(after)) / np.median(np.concatenate(before)))
    return ratio, low, high
