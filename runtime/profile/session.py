"""Streams a camera through a gate for a while, with a recorder listening or without."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from immunogate.profiling.recording import FrameRow, Recording
from immunogate.runtime.camera import Camera
from immunogate.runtime.pipeline import Gate
from immunogate.runtime.profile.recorder import Recorder
from immunogate.runtime.profile.sampler import Sampler
from immunogate.runtime.profile.spans import listening


@dataclass(frozen=True)
class Until:
    """When to stop: after so many seconds or so many frames, whichever is first.

    Attributes:
        seconds: at the most.
        frames: at the most; None for no limit.
    """

    seconds: float
    frames: int | None = None


Told = Callable[[FrameRow], None]


def _say_nothing(_: FrameRow) -> None:
    """Nobody wants to know."""


def stream(gate: Gate, camera: Camera, until: Until) -> Iterator[FrameRow]:
    """Process frames until the limit is reached or the source ends, and give what became of each.

    Raises:
        CameraError: the source fails.
    """
    count, stop_ns = 0, time.monotonic_ns() + round(until.seconds * 1e9)
    while count != until.frames:
        asked_ns = time.monotonic_ns()
        if asked_ns >= stop_ns:
            return
        frame = next(camera, None)
        if frame is None:
            return
        taken_ns = time.monotonic_ns()
        result = gate.process(frame)
        ended_ns = time.monotonic_ns()
        count += 1
        yield FrameRow(
            frame.index,
            asked_ns,
            frame.captured_ns,
            taken_ns,
            ended_ns,
            frame.skipped,
            len(result.faces),
            (frame.pixels.shape[0], frame.pixels.shape[1]),
            tuple(one.track for one in result.decisions),
            tuple(one.age_ms for one in result.decisions),
            tuple(one.outcome for one in result.decisions),
            tuple(one.reason for one in result.decisions),
        )


def record(
    gate: Gate,
    camera: Camera,
    until: Until,
    *,
    recorder: Recorder | None = None,
    sampler: Sampler | None = None,
    told: Told = _say_nothing,
) -> Recording:
    """One run.

    Args:
        gate: opened on this thread.
        camera: what it looks at; not closed.
        until: when to stop.
        recorder: who listens to the spans, a new one for each run; without, frames alone are timed.
        sampler: of the machine's sensors.
        told: of every frame, for progress; its time is that of nobody.

    Raises:
        CameraError: the source fails.
    """
    rows = []
    with ExitStack() as stack:
        if recorder is not None:
            stack.enter_context(listening(recorder))
        if sampler is not None:
            stack.enter_context(sampler)
        start_ns = time.monotonic_ns()
        for row in stream(gate, camera, until):
            rows.append(row)
            told(row)
    seconds = (rows[-1].ended_ns - start_ns) / 1e9 if rows else 0.0
    return Recording(
        recorder.spans() if recorder else [],
        rows,
        sampler.readings if sampler else [],
        recorder.threads if recorder else {},
        seconds,
    )
