"""What was seen of a gate at work: spans, frames, and what the machine's sensors told."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]

NO_FRAME = -1
FRAME, AGE, WAIT, PICK_UP = "frame", "age", "wait", "pick-up"
"""What is timed by frame beside the stages: all work on it; capture to decision; waiting for it; capture to its
work's beginning, decoding included."""

OF_CAMERA = ("grab", "decode")
"""Spans of the camera, on its own thread where it is a live one."""

NOT_WORK = (AGE, WAIT, PICK_UP, *OF_CAMERA)
"""What is no part of the work on a frame."""


class Span(NamedTuple):
    """One stretch of time.

    Attributes:
        path: name of the stage, after those of the stages it lies in, with slashes between.
        start_ns: of `time.monotonic_ns`.
        end_ns: likewise.
        thread: identifier of the thread.
        frame: index of the frame in its source; -1 where it is for none.
    """

    path: str
    start_ns: int
    end_ns: int
    thread: int
    frame: int

    @property
    def ms(self) -> float:
        """Its length in milliseconds."""
        return (self.end_ns - self.start_ns) / 1e6


class FrameRow(NamedTuple):
    """One frame that was worked on.

    Attributes:
        number: its index in the source, skipped ones counted.
        asked_ns: when the gate asked for it, of `time.monotonic_ns`.
        captured_ns: when the camera took it.
        taken_ns: when the gate had it.
        ended_ns: when the last of its faces was decided.
        skipped: frames lost before it.
        faces: found in it.
        size: its height and width in pixels.
        tracks: numbers of the faces that were decided in it.
        ages_ms: capture to decision, of each of them.
        outcomes: of each of them: allow, deny or alarm.
        reasons: of each of them.
    """

    number: int
    asked_ns: int
    captured_ns: int
    taken_ns: int
    ended_ns: int
    skipped: int
    faces: int
    size: tuple[int, int]
    tracks: tuple[int, ...] = ()
    ages_ms: tuple[float, ...] = ()
    outcomes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


class Reading(NamedTuple):
    """The machine's sensors at one moment; None for what this machine does not tell.

    Attributes:
        at_ns: of `time.monotonic_ns`.
        values: by name, the unit is its end: ``rss_mb``, ``gpu_w``, ``cpu_c`` for instance.
    """

    at_ns: int
    values: dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Recording:
    """One run.

    Attributes:
        spans: in the order in which they ended.
        frames: in their order.
        readings: of the sensors, in their order.
        threads: name of each thread by its identifier.
        seconds: from the first frame that was asked for to the last decision.
    """

    spans: list[Span]
    frames: list[FrameRow]
    readings: list[Reading] = field(default_factory=list)
    threads: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    @cached_property
    def stages(self) -> dict[str, Times]:
        """Milliseconds of each stage in each frame in which it occurred, and the four that are no stage; see `AGE`."""
        frames = {row.number for row in self.frames}
        summed: dict[str, dict[int, float]] = defaultdict(dict)
        for one in self.spans:
            if one.frame in frames:
                by_frame = summed[one.path]
                by_frame[one.frame] = by_frame.get(one.frame, 0.0) + one.ms
        rows: dict[str, list[float]] = {
            AGE: [age for row in self.frames for age in row.ages_ms],
            WAIT: [(row.taken_ns - row.asked_ns) / 1e6 for row in self.frames],
            PICK_UP: [(row.taken_ns - row.captured_ns) / 1e6 for row in self.frames],
            FRAME: [(row.ended_ns - row.taken_ns) / 1e6 for row in self.frames],
        }
        rows.update({path: list(summed[path].values()) for path in in_order(summed)})
        return {name: np.array(values) for name, values in rows.items() if values}


def in_order(paths: dict[str, dict[int, float]]) -> list[str]:
    """The camera, then stages in the order of the pipeline, each before its parts: spans end inside out."""
    ranks = {path: rank for rank, path in enumerate(dict.fromkeys((*OF_CAMERA, *paths)))}

    def place(path: str) -> tuple[int, ...]:
        parts = path.split("/")
        stages = ("/".join(parts[: depth + 1]) for depth in range(len(parts)))
        return tuple(ranks.get(stage, len(ranks)) for stage in stages)

    return sorted(paths, key=place)
