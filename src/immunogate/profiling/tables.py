"""Every frame as rows: CSV, and the times that ``trtexec --exportTimes`` writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from immunogate.profiling.recording import FRAME, PICK_UP, WAIT, Recording

COLUMNS = ("run", "frame", "stage", "start_ms", "ms")


def frames_csv(runs: Sequence[Recording]) -> str:
    """A row for every frame and stage: run from 1, frame, stage, its first start in the run, milliseconds in all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, run in enumerate(runs, 1):
        writer.writerows((number, *row) for row in _rows(run))
    return text.getvalue()


def _rows(run: Recording) -> Iterator[tuple[int, str, float, float]]:
    begin = run.frames[0].asked_ns if run.frames else 0
    spent: dict[tuple[int, str], tuple[int, float]] = {}
    for one in run.spans:
        start, before = spent.get((one.frame, one.path), (one.start_ns, 0.0))
        spent[one.frame, one.path] = (min(start, one.start_ns), before + one.ms)
    by_frame: dict[int, list[tuple[str, int, float]]] = {}
    for (frame, path), (start, ms) in spent.items():
        by_frame.setdefault(frame, []).append((path, start, ms))
    for row in run.frames:
        whole = [
            (WAIT, row.asked_ns, (row.taken_ns - row.asked_ns) / 1e6),
            (PICK_UP, row.captured_ns, (row.taken_ns - row.captured_ns) / 1e6),
            (FRAME, row.taken_ns, (row.ended_ns - row.taken_ns) / 1e6),
        ]
        for path, start, ms in whole + sorted(by_frame.get(row.number, []), key=lambda part: part[1]):
            yield row.number, path, round((start - begin) / 1e6, 4), round(ms, 4)


def trtexec_times(runs: Sequence[Recording]) -> list[dict[str, Any]]:
    """One entry a frame, with the keys of ``trtexec --exportTimes`` (TensorRT 10, sampleReporting.cpp).

    A frame is a query. Its input (H2D) is capture to the beginning of its work, its compute is everything from
    detection to matching, its output (D2H) is the writing of decisions; enqueueing ends where computing does, since
    the host waits.
    """
    entries = []
    for run in runs:
        begin = run.frames[0].captured_ns if run.frames else 0
        decided = {one.frame: one.start_ns for one in run.spans if one.path == "decide"}
        for row in run.frames:
            output = decided.get(row.number, row.ended_ns)
            entries.append(
                _times(*((at - begin) / 1e6 for at in (row.captured_ns, row.taken_ns, output, row.ended_ns)))
            )
    return entries


def _times(captured: float, taken: float, output: float, ended: float) -> dict[str, float]:
    entry = {
        "startEnqMs": taken,
        "endEnqMs": output,
        "startH2dMs": captured,
        "endH2dMs": taken,
        "startComputeMs": taken,
        "endComputeMs": output,
        "startD2hMs": output,
        "endD2hMs": ended,
        "h2dMs": taken - captured,
        "computeMs": output - taken,
        "d2hMs": ended - output,
        "latencyMs": ended - captured,
    }
    return {name: round(value, 6) for name, value in entry.items()}
