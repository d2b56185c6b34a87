"""Latencies of the stages as a Prometheus histogram: a gate that runs for months keeps a few numbers for each stage.

Source: Prometheus text exposition format, version 0.0.4. Buckets are cumulative, the last one is infinite.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from threading import Lock

from immunogate.runtime.pipeline import FrameResult

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Upper ends of the buckets in seconds; from a stage on a GPU to a decision that comes too late."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NAME = "immunogate_stage_seconds"
DECISION = "decision"
"""The stage that stands for capture to decision."""


class StageHistogram:
    """Counts of latencies by stage; may be filled by one thread while another reads.

    Args:
        bounds: upper ends of the buckets in seconds, ascending and finite; each holds its own end.

    Raises:
        ValueError: they do not ascend, or there are none.
    """

    def __init__(self, bounds: Sequence[float] = BOUNDS_S) -> None:
        rising = all(low < high for low, high in pairwise(bounds))
        if not bounds or not rising or not all(map(math.isfinite, bounds)):
            raise ValueError(f"bounds: expected finite numbers that ascend, got {tuple(bounds)}")
        self._bounds = tuple(bounds)
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._lock = Lock()

    def add(self, result: FrameResult) -> None:
        """Count the stages and decisions of one frame."""
        for stage, spent_ms in result.latency_ms.items():
            self.observe(stage, spent_ms / 1e3)
        for decision in result.decisions:
            self.observe(DECISION, decision.age_ms / 1e3)

    def observe(self, stage: str, seconds: float) -> None:
        """Count one latency; what is no finite number above or equal to 0, as from a broken clock, is left out."""
        if not (math.isfinite(seconds) and seconds >= 0):
            return
        with self._lock:
            counts = self._counts.setdefault(stage, [0] * (len(self._bounds) + 1))
            counts[bisect_left(self._bounds, seconds)] += 1
            self._sums[stage] = self._sums.get(stage, 0.0) + seconds

    def to_text(self) -> str:
        """All of it in the text exposition format."""
        with self._lock:
            held = {stage: (list(counts), self._sums[stage]) for stage, counts in self._counts.items()}
        lines = [
            f"# HELP {NAME} Time spent in each stage of a frame; decision: capture to decision.",
            f"# TYPE {NAME} histogram",
        ]
        for stage, (counts, total) in held.items():
            label, seen = _escaped(stage), 0
            for bound, count in zip((*map(_number, self._bounds), "+Inf"), counts, strict=True):
                seen += count
                lines.append(f'{NAME}_bucket{{stage="{label}",le="{bound}"}} {seen}')
            lines.append(f'{NAME}_sum{{stage="{label}"}} {_number(total)}')
            lines.append(f'{NAME}_count{{stage="{label}"}} {seen}')
        return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return repr(float(value))
