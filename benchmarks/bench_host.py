"""Drawing, scoring and selecting clones by the host build, against plain NumPy; both on one thread.

One face, n = 1500 genes, the four best kept. Before anything is timed both have to give the same winners and masks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from common import Options, Target, finish, guarded, parse, say
from environment import environment
from timing import Timing, compared

from immunogate.kernels import clones, reference
from immunogate.kernels.host import HostKernels
from immunogate.kernels.host_build import host_library
from immunogate.kernels.reference import CloneKey, ScoreTerms
from immunogate.structs import PIXELS

COMPONENTS = 1500
KEEP = 4
COUNTS = (25, 100, 1000, 4096)
PROMISED = 1000
LIMIT_MS, LEAST_SPEED_UP = 1.5, 5.0
KEY = CloneKey(2024, np.array([7], np.uint32), np.array([1], np.uint32))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse("bench_host", __doc__, argv)
    before = environment()
    return finish("bench_host", options, before, *measure(options))


def measure(options: Options) -> tuple[dict[str, Any], list[Target], str]:
    """All numbers of the host build.

    Raises:
        HostBuildError: there is no compiler.
    """
    host = HostKernels(host_library())
    draw = np.random.default_rng(0)
    probabilities = draw.uniform(0, 1, (1, COMPONENTS)).astype(np.float32)
    spread = np.geomspace(40, 0.1, COMPONENTS)  # as eigenvalues fall
    coefficients = (draw.standard_normal((1, COMPONENTS)) * spread).astype(np.float32)
    weights = reference.gene_weights(probabilities, coefficients, ScoreTerms(), PIXELS)
    cases: dict[str, dict[str, Any]] = {}
    for count in COUNTS[:2] if options.quick else COUNTS:
        say(f"{count} clones")
        ways = {
            "host": partial(host.select_clones, probabilities, weights, count, KEEP, KEY),
            "numpy": partial(clones.select_clones, probabilities, weights, count, KEEP, KEY),
        }
        for ours, theirs in zip(ways["host"](), ways["numpy"](), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        times = compared(ways, 51)
        ratio = round(times["numpy"].median_ms / times["host"].median_ms, 1)
        cases[str(count)] = {**{name: asdict(found) for name, found in times.items()}, "speed_up": ratio}
    targets = []
    for count, found in cases.items():
        if int(count) == PROMISED:
            what = f"{count} clones by the host build"
            targets.append(Target(what, "<", LIMIT_MS, found["host"]["median_ms"], "ms"))
            targets.append(Target(f"{what}, times as fast as NumPy", ">=", LEAST_SPEED_UP, found["speed_up"], "x"))
    problem = {"genes": COMPONENTS, "faces": 1, "keep": KEEP, "threads": 1}
    return {"problem": problem, "clones": cases}, targets, table(cases)


def table(cases: dict[str, Any]) -> str:
    """A few lines for people."""
    lines = [f"{'clones':>7}{'host, ms':>10}{'p10..p90':>16}{'NumPy, ms':>11}{'times':>7}"]
    for count, found in cases.items():
        ours, other = Timing(**found["host"]), Timing(**found["numpy"])
        spread = f"{ours.p10_ms:.3f}..{ours.p90_ms:.3f}"
        lines.append(f"{count:>7}{ours.median_ms:>10.3f}{spread:>16}{other.median_ms:>11.2f}{found['speed_up']:>7.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
