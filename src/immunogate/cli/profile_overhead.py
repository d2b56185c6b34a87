"""What listening itself costs: the same frames with a listener and without, by turns, in one process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from immunogate.cli.common import progress
from immunogate.profiling.bootstrap import interval, resampled_medians
from immunogate.runtime.pipeline import Gate
from immunogate.runtime.profile.recorder import Recorder
from immunogate.runtime.profile.spans import listening, span
from immunogate.structs import Frame

MOST_ROUNDS = 400
SPANS_TIMED = 20_000


def overhead(gate: Gate, frames: Sequence[Frame], seconds: float, rounds: int = MOST_ROUNDS) -> dict[str, Any] | None:
    """Percent of a frame's time, with its 99 % interval; None where there are no frames.

    Every frame is processed with and without a listener, one right after the other, and the first of the two by turns:
    what slows the machine meets both. Processor time is compared as well, which others who use the machine hardly
    touch, and spans are counted and timed alone, which finds what noise hides.

    Args:
        gate: that looks at every face in every frame.
        frames: to go over, again and again.
        seconds: to spend.
        rounds: at the most.
    """
    ratios: dict[str, list[float]] = {"": [], "cpu_": []}
    plain_ms, spans = [], 0
    stop = time.monotonic() + seconds
    for turn in progress(range(rounds), "what listening costs", rounds):
        if not frames or (time.monotonic() > stop and turn > 1):
            break
        picture, spent = frames[turn % len(frames)], {}
        for listens in (False, True) if turn % 2 else (True, False):
            recorder = Recorder()
            spent[listens] = _timed(gate, picture, recorder if listens else None)
            spans += len(recorder.rows)
        for place, values in enumerate(ratios.values()):
            values.append(spent[True][place] / spent[False][place])
        plain_ms.append(spent[False][0])
    if not plain_ms:
        return None
    each_us, count = span_cost_us(), len(plain_ms)
    found: dict[str, Any] = {"frames": count}
    for name, values in ratios.items():
        low, high = interval(resampled_medians([np.array(values)], 1))
        found[f"{name}percent"] = _percent(float(np.median(values)))
        found[f"{name}interval_percent"] = [_percent(low), _percent(high)]
    return {
        **found,
        "spans_per_frame": round(spans / count, 1),
        "span_us": round(each_us, 3),
        "counted_percent": round(100 * spans / count * each_us / 1e3 / float(np.median(plain_ms)), 4),
    }


def span_cost_us() -> float:
    """Microseconds of one span with a listener."""
    with listening(Recorder()):
        start = time.perf_counter()
        for _ in range(SPANS_TIMED):
            with span("a span"):
                pass
        return (time.perf_counter() - start) / SPANS_TIMED * 1e6


def _timed(gate: Gate, picture: Frame, recorder: Recorder | None) -> tuple[float, float]:
    """Milliseconds of one frame: passed, and of processor time on all of this process's threads."""
    frame = replace(picture, captured_ns=time.monotonic_ns(), captured_wall=time.time())
    with listening(recorder) if recorder else nullcontext():
        start, worked = time.perf_counter_ns(), time.process_time_ns()
        gate.process(frame)
        return (time.perf_counter_ns() - start) / 1e6, (time.process_time_ns() - worked) / 1e6


def _percent(ratio: float) -> float:
    return round(100 * (ratio - 1), 3)
