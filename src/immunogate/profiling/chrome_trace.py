"""Spans, faces and sensors as a Chrome trace, which Perfetto and chrome://tracing open.

Source: "Trace Event Format", Google, the JSON object form: complete events (X), flows (s, t, f), counters (C) and
metadata (M). Times are microseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from immunogate.profiling.recording import NO_FRAME, FrameRow, Reading, Recording, Span

PROCESS = 1
FLOW = ("decode", "detect", "purify", "recognise", "match", "decide")
"""The stages that a face's arrow goes through, those that there are; decoding may be on the camera's own thread."""


def chrome_trace(runs: Sequence[Recording], title: str) -> dict[str, Any]:
    """The document.

    Args:
        runs: one after the other on one axis of time.
        title: name of the process in the viewer.
    """
    threads = {ident: name for run in runs for ident, name in run.threads.items()}
    lanes = {ident: lane for lane, ident in enumerate(threads, 1)}
    moments = [one.start_ns for run in runs for one in run.spans] + [one.at_ns for run in runs for one in run.readings]
    begin = min(moments, default=0)
    events = [_named("process_name", 0, title)]
    events += [_named("thread_name", lanes[ident], name) for ident, name in threads.items()]
    faces = 0
    for run in runs:
        events += [_slice(one, lanes[one.thread], begin) for one in run.spans]
        events += [event for reading in run.readings for event in _counters(reading, begin)]
        stages = _stages_of_frames(run)
        for row in run.frames:
            for track in row.tracks:
                faces += 1
                events += _flow(faces, track, row, stages[row.number], lanes, begin)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _named(what: str, lane: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": PROCESS, "tid": lane, "args": {"name": name}}


def _slice(one: Span, lane: int, begin: int) -> dict[str, Any]:
    event = {
        "name": one.path.rpartition("/")[2],
        "cat": "stage",
        "ph": "X",
        "ts": (one.start_ns - begin) / 1e3,
        "dur": (one.end_ns - one.start_ns) / 1e3,
        "pid": PROCESS,
        "tid": lane,
    }
    return event if one.frame == NO_FRAME else {**event, "args": {"frame": one.frame, "stage": one.path}}


def _stages_of_frames(run: Recording) -> dict[int, dict[str, Span]]:
    found: dict[int, dict[str, Span]] = defaultdict(dict)
    for one in run.spans:
        if one.path in FLOW:
            found[one.frame][one.path] = one
    return found


def _flow(
    number: int, track: int, row: FrameRow, stages: dict[str, Span], lanes: dict[int, int], begin: int
) -> Iterator[dict[str, Any]]:
    """A face's way through one frame: each arrow begins and ends within the slice of a stage."""
    stops = [stages[name] for name in FLOW if name in stages]
    for place, stop in enumerate(stops):
        kind = "s" if place == 0 else "f" if place == len(stops) - 1 else "t"
        event = {
            "name": f"face {track}",
            "cat": "face",
            "ph": kind,
            "id": number,
            "ts": (stop.start_ns + (stop.end_ns - stop.start_ns) // 2 - begin) / 1e3,
            "pid": PROCESS,
            "tid": lanes[stop.thread],
            "args": {"frame": row.number, "face": track},
        }
        yield {**event, "bp": "e"} if kind == "f" else event


def _counters(reading: Reading, begin: int) -> Iterator[dict[str, Any]]:
    for name, value in reading.values.items():
        if value is not None:
            at = (reading.at_ns - begin) / 1e3
            yield {"name": name, "ph": "C", "ts": at, "pid": PROCESS, "tid": 0, "args": {"value": value}}
