"""Fair timing: blocks that alternate, pauses for other people's spinning threads, emptied caches, median and spread."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one function over several rounds: median, spread (10th and 90th percentile), least."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    min_ms: float
    rounds: int


SETTLE = 0.1
"""Seconds before each block of calls: idle BLAS and OpenMP threads spin for tens of milliseconds after their last
work, and would take a processor away from whatever is timed next."""


def compared(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    warmups: int = 2,
    blocks: int = 3,
    before_each: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time functions against each other.

    The rounds are cut into blocks and the blocks of all functions alternate, so that a machine that gets slower or
    busier meets all of them.

    Args:
        functions: by name.
        rounds: timed calls of each, at least; rounded up to whole blocks.
        warmups: calls before each block, not timed.
        blocks: how many.
        before_each: called before every call, not timed; an `Evictor` for instance.
    """
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(blocks):
        for name, function in functions.items():
            time.sleep(SETTLE)
            for turn in range(warmups + -(-rounds // blocks)):
                before_each()
                start = time.perf_counter_ns()
                function()
                if turn >= warmups:
                    spent[name].append((time.perf_counter_ns() - start) / 1e6)
    return {name: timing(samples) for name, samples in spent.items()}


class Evictor:
    """Empties the caches: every processor's share of threads reads 192 MiB that nobody else wants.

    In a gate, networks run between two faces and take the caches; a loop over one function would leave them to it
    and measure a cache where memory was meant.
    """

    def __init__(self) -> None:
        self._scratch = np.ones(192 << 18, np.float32)
        self._threads = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads, "evictor")

    def __call__(self) -> None:
        """Read it all, on every thread."""
        list(self._pool.map(lambda _: self._scratch.max(), range(self._threads)))


def timing(samples_ms: Sequence[float]) -> Timing:
    """Median and spread of at least one sample."""
    low, middle, high = (round(float(value), 4) for value in np.percentile(samples_ms, [10, 50, 90]))
    return Timing(middle, low, high, round(min(samples_ms), 4), len(samples_ms))
