"""Cold starts of a gate, each in a process of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

from immunogate.bundle import Bundle
from immunogate.cli.common import progress
from immunogate.cli.profile_setup import Setup
from immunogate.errors import UsageError

LONGEST_S = 600.0


def cold_starts(bundle: Bundle, setup: Setup, count: int) -> dict[str, Any] | None:
    """Median, least and most of each part in milliseconds over so many starts; None for none.

    Files are mostly in the system's cache already: after a restart of the machine reading them takes longer.

    Raises:
        UsageError: the gate does not start, with its own words.
    """
    if count == 0:
        return None
    starts = [_start(bundle, setup) for _ in progress(range(count), "cold starts", count)]
    names = [name for name in starts[0] if all(name in start for start in starts)]
    rows = {name: _row([start[name] for start in starts]) for name in names}
    return {"n": count, "parts_ms": {**rows, "total": _row([sum(start[name] for name in names) for start in starts])}}


def _start(bundle: Bundle, setup: Setup) -> dict[str, float]:
    asked = {"bundle": str(bundle.folder), "setup": setup.to_dict(), "started_ns": time.monotonic_ns()}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "immunogate.cli.profile_cold"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            f"the gate did not start within {LONGEST_S:g} s", "Leave cold starts out: --starts 0"
        ) from error
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("immunogate: ")
        raise UsageError(f"the gate does not start in a process of its own: {words}", "Or leave it out: --starts 0")
    parts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return parts


def _row(values: list[float]) -> dict[str, float]:
    middle = statistics.median(values)
    return {"median": round(middle, 2), "min": round(min(values), 2), "max": round(max(values), 2)}
