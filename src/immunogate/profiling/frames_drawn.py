"""What runs look like: distribution, where frames at several percentiles spend their time, one frame, sensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from immunogate.pages.markup import Html
from immunogate.pages.page import figure
from immunogate.pages.svg import Point, Series, linear_axis, log_axis, plot
from immunogate.profiling.drawings import Bar, bars, wide_figure
from immunogate.profiling.recording import AGE, FRAME, OF_CAMERA, FrameRow, Recording, Span, Times

MOST_POINTS = 200
SHOWN_QUANTILES = (50, 90, 99, 100)
SENSORS = ("rss_mb", "cpu_percent", "others_percent", "gpu_memory_mb", "gpu_w", "board_w", "cpu_c", "gpu_c")
LABELS = {
    "rss_mb": "resident memory, MB", "cpu_percent": "this process, % of a processor",
    "others_percent": "other processes, % of a processor", "gpu_memory_mb": "GPU memory, MB", "gpu_w": "GPU, W",
    "board_w": "board, W", "cpu_c": "processor, degrees Celsius", "gpu_c": "GPU, degrees Celsius",
}  # fmt: skip


def distribution(runs: Sequence[Recording]) -> Html:
    """Share of decisions, and of frames, that took no longer than so many milliseconds, run by run."""
    shown = [
        Series(f"{words}, run {number}", _cumulative(run.stages[name]), 2 * place + number - 1, marked=False)
        for place, (name, words) in enumerate(((AGE, "capture to decision"), (FRAME, "work on a frame")))
        for number, run in enumerate(runs, 1)
        if name in run.stages and number <= 2
    ]
    values = [point.x for series in shown for point in series.points]
    if not values:
        return Html("")
    drawing = plot(
        "Cumulative distribution of latencies",
        log_axis("milliseconds", max(1e-3, min(values)), max(values)),
        linear_axis("share of all", 0, 1),
        shown,
    )
    return figure(drawing, "The further left and the steeper, the better; a long tail to the right is what "
                  "people at a door notice.", "Latency, cumulative")  # fmt: skip


def _cumulative(samples: Times) -> list[Point]:
    ordered = np.sort(samples)
    places = np.unique(np.linspace(0, len(ordered) - 1, MOST_POINTS).round().astype(int))
    return [Point(max(1e-3, float(ordered[at])), float((at + 1) / len(ordered))) for at in places]


def stacked_frames(runs: Sequence[Recording]) -> Html:
    """The stages of the frames that lie at some percentiles, one row each."""
    rows = {}
    frames = sorted(((run, row) for run in runs for row in run.frames), key=lambda pair: _work(pair[1]))
    for percent in SHOWN_QUANTILES:
        run, row = frames[round((len(frames) - 1) * percent / 100)]
        name = "slowest" if percent == 100 else "fastest" if percent == 0 else f"p{percent}"
        rows[f"{name}, frame {row.number}"] = _stacked(run, row)
    drawing = bars("Stages of frames at several percentiles", "milliseconds of work", rows)
    return wide_figure(drawing, "One frame in each row. A stage that grows from row to row makes slow frames slow.",
                  "Where frames spend their time")  # fmt: skip


def _work(row: FrameRow) -> int:
    return row.ended_ns - row.taken_ns


def _stacked(run: Recording, row: FrameRow) -> list[Bar]:
    shown, at = [], 0.0
    for look, one in enumerate(_stages_of(run, row)):
        shown.append(Bar(at, one.ms, one.path, look))
        at += one.ms
    return [*shown, Bar(at, max(0.0, _work(row) / 1e6 - at), "between stages", 9)]


def _stages_of(run: Recording, row: FrameRow) -> list[Span]:
    own = [one for one in run.spans if one.frame == row.number and "/" not in one.path and one.path not in OF_CAMERA]
    return sorted(own, key=lambda one: one.start_ns)


def slowest_frame(runs: Sequence[Recording]) -> Html:
    """A timeline of the frame whose decision was latest: each stage and its parts where they began."""
    run, row = max(
        ((run, row) for run in runs for row in run.frames), key=lambda pair: pair[1].ended_ns - pair[1].captured_ns
    )
    begin = min(
        [row.captured_ns] + [one.start_ns for one in run.spans if one.frame == row.number and one.path != "grab"]
    )
    looks: dict[str, int] = {}
    rows: dict[str, list[Bar]] = {"pick-up": [Bar((row.captured_ns - begin) / 1e6, _ms(row), "capture to work", 3)]}
    spans = [one for one in run.spans if one.frame == row.number and one.path != "grab"]
    for one in sorted(spans, key=lambda one: (one.start_ns, -one.end_ns)):
        stage, _, part = one.path.partition("/")
        look = looks.setdefault(stage, len(looks))
        name = f"{stage} (camera)" if stage in OF_CAMERA else one.path
        rows.setdefault(name, []).append(Bar((one.start_ns - begin) / 1e6, one.ms, part or stage, look))
    drawing = bars(f"Timeline of frame {row.number}", "milliseconds after its capture began", rows)
    caption = f"Frame {row.number}, the latest decision of all; what happens for each face has a bar for each."
    return wide_figure(drawing, caption, "The slowest frame")


def _ms(row: FrameRow) -> float:
    return (row.taken_ns - row.captured_ns) / 1e6


def sensors_drawn(runs: Sequence[Recording]) -> list[Html]:
    """A drawing over time of each sensor that told something."""
    return [drawing for name in SENSORS if (drawing := _sensor(runs, name)) is not None]


def _sensor(runs: Sequence[Recording], name: str) -> Html | None:
    series: list[Any] = []
    for number, run in enumerate(runs, 1):
        told = [(r.at_ns, value) for r in run.readings if (value := r.values.get(name)) is not None]
        if len(told) > 1:
            points = [Point((at - told[0][0]) / 1e9, value) for at, value in told]
            series.append(Series(f"run {number}", points, number - 1, marked=False))
    if not series:
        return None
    seconds = [point.x for one in series for point in one.points]
    values = [point.y for one in series for point in one.points]
    low = 0.0 if name.endswith("percent") else min(values)
    drawing = plot(
        f"{LABELS[name]} over time",
        linear_axis("seconds of the run", 0, max(seconds)),
        linear_axis(LABELS[name], low, max(max(values), low + 1)),
        series,
    )
    return figure(drawing, f"Lowest {min(values):.1f}, highest {max(values):.1f}.", LABELS[name])
