"""Runs in figures: stages, throughput, what the machine did meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from immunogate.profiling.quantiles import jitter, quantiles, spread_percent
from immunogate.profiling.recording import AGE, FRAME, Recording, Times

MOST_SAMPLES = 1000
"""Of one stage in one run that a document carries, for later comparisons; evenly spread over the run."""


def stage_names(runs: Sequence[Recording]) -> list[str]:
    """All that was timed in any run, in the order of the pipeline."""
    return list(dict.fromkeys(name for run in runs for name in run.stages))


def summed_stages(runs: Sequence[Recording]) -> dict[str, dict[str, Any]]:
    """Percentiles of each stage over the samples of all runs, and how far the runs' medians are apart."""
    rows = {}
    for name in stage_names(runs):
        parts = [run.stages[name] for run in runs if name in run.stages]
        medians = [float(np.median(part)) for part in parts]
        rows[name] = {**quantiles(np.concatenate(parts)), "spread_percent": spread_percent(medians)}
    return rows


def samples_of(runs: Sequence[Recording]) -> dict[str, list[list[float]]]:
    """Samples of each stage in each run, in milliseconds, thinned."""
    return {name: [_thinned(run.stages.get(name, np.zeros(0))) for run in runs] for name in stage_names(runs)}


def run_to_dict(run: Recording) -> dict[str, Any]:
    """Counts and rates of one run."""
    ages = run.stages.get(AGE, np.zeros(0))
    busy = run.stages.get(FRAME, np.zeros(0))
    taken = np.array([row.taken_ns for row in run.frames], np.float64) / 1e6
    decisions = sum(len(row.tracks) for row in run.frames)
    return {
        "seconds": round(run.seconds, 3),
        "frames": len(run.frames),
        "skipped": sum(row.skipped for row in run.frames[1:]),
        "faces": sum(row.faces for row in run.frames),
        "decisions": decisions,
        "outcomes": dict(Counter(outcome for row in run.frames for outcome in row.outcomes)),
        "reasons": dict(Counter(reason for row in run.frames for reason in row.reasons)),
        "frames_per_second": _rate(len(run.frames), run.seconds),
        "decisions_per_second": _rate(decisions, run.seconds),
        "capacity_frames_per_second": _rate(1000.0, float(busy.mean())) if len(busy) else None,
        "jitter_ms": jitter(ages),
        "interval_ms": quantiles(np.diff(taken)) if len(taken) > 1 else None,
    }


def readings_to_dict(runs: Sequence[Recording]) -> dict[str, dict[str, float] | None]:
    """Mean, least and most of every sensor over all runs; None where it never told anything."""
    names = dict.fromkeys(name for run in runs for reading in run.readings for name in reading.values)
    return {name: _range([r.values.get(name) for run in runs for r in run.readings]) for name in names}


def share_of_frame(stages: dict[str, dict[str, Any]], name: str) -> float:
    """Which part of all work on frames a stage takes, 0 to 1; more than 1 only for what waits."""
    whole, part = stages.get(FRAME), stages.get(name)
    if not whole or not part or not whole["mean"]:
        return 0.0
    return float(part["mean"] * part["n"] / (whole["mean"] * whole["n"]))


def _thinned(samples: Times) -> list[float]:
    if len(samples) > MOST_SAMPLES:
        samples = samples[np.linspace(0, len(samples) - 1, MOST_SAMPLES).round().astype(int)]
    return [round(float(value), 4) for value in samples]


def _rate(count: float, seconds: float) -> float | None:
    return round(count / seconds, 2) if seconds > 0 else None


def _range(values: list[float | None]) -> dict[str, float] | None:
    told = [value for value in values if value is not None]
    if not told:
        return None
    return {"mean": round(sum(told) / len(told), 3), "min": min(told), "max": max(told)}
