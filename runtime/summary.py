"""Counts and latencies of a whole run."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from immunogate.runtime.pipeline import FrameResult

KEPT = 100_000
"""Samples kept for each stage; beyond that the oldest half is forgotten, so that months of running fit in memory."""


@dataclass
class Summary:
    """What a run did, for people (`to_text`) and scripts (`to_dict`).

    Attributes:
        runners: what ran each network, by its file.
        cameras: counts of each camera, by its name, where there are several.
    """

    frames: int = 0
    skipped: int = 0
    faces: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    people: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.perf_counter)
    runners: dict[str, str] = field(default_factory=dict)
    cameras: dict[str, dict[str, Any]] = field(default_factory=dict)
    _samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, result: FrameResult) -> None:
        """Count one frame."""
        self.frames += 1
        self.skipped += result.frame.skipped
        self.faces += len(result.faces)
        for decision in result.decisions:
            self.outcomes[decision.outcome] += 1
            self.reasons[decision.reason] += 1
            if decision.outcome == "allow" and decision.person:
                self.people[decision.person] += 1
            self._keep("age", decision.age_ms)
        for stage, spent in result.latency_ms.items():
            self._keep(stage, spent)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; latencies in milliseconds."""
        seconds = time.perf_counter() - self.started
        return {
            "frames": self.frames,
            "skipped": self.skipped,
            "faces": self.faces,
            "decisions": sum(self.outcomes.values()),
            "outcomes": dict(self.outcomes),
            "reasons": dict(self.reasons),
            "allowed": dict(self.people),
            "runners": self.runners,
            **({"cameras": self.cameras} if self.cameras else {}),
            "seconds": round(seconds, 3),
            "frames_per_second": round(self.frames / seconds, 2) if seconds > 0 else None,
            "latency_ms": {name: _percentiles(samples) for name, samples in self._samples.items()},
        }

    def to_text(self) -> str:
        """A few lines and a table."""
        data = self.to_dict()
        counts = ", ".join(f"{n} {name}" for name, n in sorted(self.outcomes.items())) or "none"
        allowed = ", ".join(f"{name} ({n})" for name, n in sorted(self.people.items())) or "nobody"
        lines = [
            f"{self.frames} frames in {data['seconds']:.1f} s ({data['frames_per_second']} frames/s), "
            f"{self.skipped} skipped, {self.faces} faces",
            f"decisions: {counts}; allowed: {allowed}",
            *([f"networks ran on: {runners_to_text(self.runners)}"] if self.runners else []),
            *(_camera_to_text(name, counts) for name, counts in self.cameras.items()),
            "",
            f"{'stage':<12}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}{'n':>8}",
        ]
        for name, row in data["latency_ms"].items():
            lines.append(f"{name:<12}{row['p50']:>10.2f}{row['p99']:>10.2f}{row['max']:>10.2f}{row['n']:>8}")
        return "\n".join(lines)

    def _keep(self, name: str, value: float) -> None:
        samples = self._samples.setdefault(name, [])
        samples.append(value)
        if len(samples) > KEPT:
            del samples[: KEPT // 2]


def runners_to_text(runners: dict[str, str]) -> str:
    """One word where one runner ran all, else which ran what."""
    if len(set(runners.values())) == 1:
        return next(iter(runners.values()))
    return ", ".join(f"{kind} ({name})" for name, kind in runners.items())


def _camera_to_text(name: str, counts: dict[str, Any]) -> str:
    outages = ", ".join(f"{count} {kind}" for kind, count in sorted(counts["outages"].items())) or "none"
    return f"{name}: {counts['frames']} frames, {counts['skipped']} skipped, outages: {outages}"


def _percentiles(samples: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(samples, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(max(samples), 3), "n": len(samples)}
