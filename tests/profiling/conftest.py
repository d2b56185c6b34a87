"""Recordings written by hand: a camera's thread, a gate's thread, two faces."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from immunogate.profiling.recording import FrameRow, Reading, Recording, Span

CAMERA, GATE = 11, 22
Build = Callable[..., Recording]


@pytest.fixture
def build() -> Build:
    """Make a run of frames 40 ms apart: ``build(frames=10, slower=1.0)``; every stage takes its usual time."""

    def make(frames: int = 10, slower: float = 1.0, faces: int = 2) -> Recording:
        spans, rows = [], []
        for index in range(frames):
            captured = 1_000_000_000 + index * 40_000_000
            spans.append(Span("decode", captured, captured + 500_000, CAMERA, index))
            now = captured + 600_000
            for path, us in (("detect", 3000), ("purify", 2000), ("recognise", 5000), ("match", 100), ("decide", 50)):
                end = now + round(us * 1000 * slower) + index % 7 * 1000
                if path == "detect":
                    spans.append(Span("detect/network", now + 1000, end - 1000, GATE, index))
                spans.append(Span(path, now, end, GATE, index))
                now = end
            age = (now - captured) / 1e6
            rows.append(
                FrameRow(index, captured - 30_000_000, captured, captured + 600_000, now, 0, faces, (480, 640),
                         (1, 2), (age, age), ("deny", "deny"), ("no_match", "no_match"))
            )  # fmt: skip
        readings = [Reading(990_000_000 + i * 100_000_000, {"rss_mb": 200.0 + i, "gpu_w": None}) for i in range(4)]
        return Recording(spans, rows, readings, {CAMERA: "camera", GATE: "MainThread"}, frames * 0.04)

    return make
