"""``immunogate train basis``: 1500 eigenfaces of all 3,889 development faces, as a command of its own."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from assets import ALIGNED, data
from child import python
from common import Target, finish, guarded, parse, say
from environment import environment

COMPONENTS = 1500
QUICK_COMPONENTS = 40
MOST_SECONDS = 180.0
MOST_MB = 6000.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse("bench_basis", __doc__, argv)
    before = environment()
    components = QUICK_COMPONENTS if options.quick else COMPONENTS
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", "basis", data() / ALIGNED, "--components", components, "--no-picture", "--json"]
        for number in range(1 if options.quick else 3):
            say(f"fit {number + 1}")
            runs.append(python("-m", "immunogate", *words, "--out", Path(folder) / "basis.npz"))
    report = json.loads(runs[0].stdout)
    seconds = [run.seconds for run in runs]
    measured = {
        "faces": report["faces"],
        "components": report["components"],
        "explained": report["explained"],
        "orthonormality_error": report["orthonormality_error"],
        "seconds": seconds,
        "median_seconds": statistics.median(seconds),
        "peak_mb": [run.peak_mb for run in runs],
    }
    targets = [
        Target("train basis, 1500 of 3,889 faces", "<", MOST_SECONDS, measured["median_seconds"], "s"),
        Target("train basis, peak memory", "<", MOST_MB, max(measured["peak_mb"]), "MB"),
    ]
    table = f"{components} eigenfaces of {report['faces']} faces: {seconds} s, at most {max(measured['peak_mb'])} MB"
    return finish("bench_basis", options, before, measured, [] if options.quick else targets, table)


if __name__ == "__main__":
    sys.exit(guarded(main))
