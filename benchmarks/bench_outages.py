"""Cameras that go away 200 times at instants drawn from a seed: whether they come back, and what is left behind.

The cameras are processes of the tests' FAKE camera, which stalls, dies, sends garbage, fails and refuses; beside them
one never does, and the longest it was kept waiting is measured. Counts are promises; seconds depend on the machine.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import ROOT, Target, finish, guarded, parse, say
from environment import environment

sys.path.insert(0, str(ROOT / "tests" / "fakes"))
from outages import run_outages

SEEDS = (2, 3, 4, 5)
OUTAGES, CAMERAS = 200, 4


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse("bench_outages", __doc__, argv)
    before = environment()
    logging.getLogger("immunogate").setLevel(logging.ERROR)  # two warnings for each of 800 outages
    runs = []
    for seed in SEEDS[:1] if options.quick else SEEDS:
        say(f"seed {seed}")
        with tempfile.TemporaryDirectory() as folder:
            runs.append(run_outages(Path(folder), 12 if options.quick else OUTAGES, seed, CAMERAS))
    return finish("bench_outages", options, before, {"runs": runs}, targets(runs), table(runs))


def targets(runs: list[dict[str, Any]]) -> list[Target]:
    """What must be nought over all runs."""
    sums = {
        "frames torn or out of order": sum(run["frames_torn"] + run["frames_out_of_order"] for run in runs),
        "processes left behind": sum(run["left_behind"]["processes"] for run in runs),
        "shared memory left behind": sum(
            run["left_behind"]["names_in_dev_shm"] + run["left_behind"]["memory_still_mapped"] for run in runs
        ),
        "files and threads left open": sum(
            run["left_behind"]["open_files"] + run["left_behind"]["threads"] for run in runs
        ),
    }
    return [Target(what, "==", 0, count, "") for what, count in sums.items()]


def table(runs: list[dict[str, Any]]) -> str:
    """A line for each run."""
    lines = [f"{'seed':>5}{'outages':>9}{'seen':>6}{'frames':>8}{'healthy waited, s':>19}{'took, s':>9}"]
    for run in runs:
        seen = sum(run["outages_by_what_the_gate_saw"].values())
        lines.append(
            f"{run['seed']:>5}{run['outages_planned']:>9}{seen:>6}{run['frames']:>8}"
            f"{run['longest_gap_of_the_healthy_camera_s']:>19.3f}{run['seconds']:>9.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
