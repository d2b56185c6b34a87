"""Drawing, scoring and selecting clones in plain NumPy, against reconstructing every clone.

One face, n = 1500 genes. Ours: `clones.mutate_score`, `reference.select`, and `clones.mutate` once more for the
winners alone, since a counter-based generator draws any clone again. The other way draws the same clones and
rebuilds the picture of each to know its residual: K masks of n genes times the basis.
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
from immunogate.kernels.reference import CloneKey, Indices, ScoreTerms
from immunogate.structs import PIXELS, Floats, Masks

COMPONENTS = 1500
KEEP = 4
COUNTS = (25, 100, 1000, 4096)
PROMISED = 1000
LIMIT_MS = 30.0
KEY = CloneKey(2024, np.array([7], np.uint32), np.array([1], np.uint32))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse("bench_clones", __doc__, argv)
    before = environment()
    return finish("bench_clones", options, before, *measure(options))


def measure(options: Options) -> tuple[dict[str, Any], list[Target], str]:
    """All numbers of clones."""
    draw = np.random.default_rng(0)
    basis = draw.standard_normal((COMPONENTS, PIXELS), np.float32) / np.float32(PIXELS**0.5)
    probabilities = draw.uniform(0, 1, (1, COMPONENTS)).astype(np.float32)
    spread = np.geomspace(40, 0.1, COMPONENTS)  # as eigenvalues fall
    coefficients = (draw.standard_normal((1, COMPONENTS)) * spread).astype(np.float32)
    weights = reference.gene_weights(probabilities, coefficients, ScoreTerms(), PIXELS)
    agree(probabilities, weights)
    cases: dict[str, dict[str, Any]] = {}
    for count in COUNTS[:2] if options.quick else COUNTS:
        say(f"{count} clones")
        ours = compared({"select": partial(selected, probabilities, weights, count)}, 31)
        theirs = compared({"rebuild": partial(rebuilt, probabilities, coefficients, basis, count)}, 5, 1, 1)
        found, other = ours["select"], theirs["rebuild"]
        times = round(other.median_ms / found.median_ms, 1)
        cases[str(count)] = {"ours": asdict(found), "every_clone_rebuilt": asdict(other), "speed_up": times}
    targets = [
        Target(f"{count} clones drawn, scored, selected", "<", LIMIT_MS, found["ours"]["median_ms"], "ms")
        for count, found in cases.items()
        if int(count) == PROMISED
    ]
    measured = {"problem": {"genes": COMPONENTS, "pixels": PIXELS, "faces": 1, "keep": KEEP}, "clones": cases}
    return measured, targets, table(cases)


def selected(probabilities: Floats, weights: Indices, count: int) -> tuple[Indices, Masks]:
    """The winners and their masks."""
    scores = clones.mutate_score(probabilities, weights, count, KEY)
    winners = reference.select(scores, KEEP)
    return winners, clones.mutate(probabilities, winners, KEY)


def rebuilt(probabilities: Floats, coefficients: Floats, basis: Floats, count: int) -> Floats:
    """(K,) mean squares of what each clone leaves out, from its picture."""
    masks = clones.mutate(probabilities, np.arange(count)[None], KEY)[0]
    chosen = reference.unpack(masks, COMPONENTS).astype(np.float32)
    pictures = (chosen * coefficients) @ basis
    pictures -= coefficients @ basis
    squares: Floats = np.einsum("ij,ij->i", pictures, pictures) / np.float32(PIXELS)
    return squares


def agree(probabilities: Floats, weights: Indices) -> None:
    """Before anything is timed: the same clones win as in the definition.

    Raises:
        AssertionError: they do not.
    """
    winners, masks = selected(probabilities, weights, COUNTS[0])
    defined = reference.mutate(probabilities, np.arange(COUNTS[0])[None], KEY)
    expected = reference.select(reference.score(defined, weights), KEEP)
    np.testing.assert_array_equal(winners, expected)
    np.testing.assert_array_equal(masks, defined[:, expected[0]])


def table(cases: dict[str, Any]) -> str:
    """A few lines for people."""
    lines = [f"{'clones':>7}{'ms':>10}{'p10..p90':>16}{'every clone rebuilt, ms':>25}{'times':>8}"]
    for count, found in cases.items():
        ours, other = Timing(**found["ours"]), Timing(**found["every_clone_rebuilt"])
        spread = f"{ours.p10_ms:.1f}..{ours.p90_ms:.1f}"
        lines.append(f"{count:>7}{ours.median_ms:>10.2f}{spread:>16}{other.median_ms:>25.1f}{found['speed_up']:>8.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
