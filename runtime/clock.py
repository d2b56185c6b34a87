"""Times the stages of one frame."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from immunogate.runtime.profile.spans import span


class StageClock:
    """Milliseconds spent in each named stage; a stage entered twice adds up. A profile hears of each stage as well."""

    def __init__(self) -> None:
        self.spent_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block, also where it raises."""
        start = time.perf_counter_ns()
        try:
            with span(name):
                yield
        finally:
            self.spent_ms[name] = self.spent_ms.get(name, 0.0) + (time.perf_counter_ns() - start) / 1e6

    def add(self, other: StageClock) -> None:
        """Count the stages of another clock as well."""
        for name, spent in other.spent_ms.items():
            self.spent_ms[name] = self.spent_ms.get(name, 0.0) + spent
