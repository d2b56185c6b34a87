"""Kills a writer of a record of decisions 200 times at random moments, and counts what it left behind.

No measure of speed: the counts, the seed and the environment are the result. With power the disk's own memory would
go too; that is not run here. ``--folder`` names the disk, otherwise it is that of the temporary folder.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from common import ROOT, Target, finish, guarded, parse
from environment import environment
from tqdm import tqdm

sys.path.insert(0, str(ROOT / "tools"))
from kill_writer import kill_again_and_again

KILLS, QUICK_KILLS = 200, 5
SEED = 20261123


def main(argv: Sequence[str] | None = None) -> int:
    """Kill, count and report."""
    options = parse("audit_kills", __doc__, argv)
    before = environment()
    kills = QUICK_KILLS if options.quick else KILLS
    measured, targets, lines = {}, [], []
    for name, pruning in (("writing", False), ("writing and pruning", True)):
        with tempfile.TemporaryDirectory() as folder:
            counts = kill_again_and_again(
                Path(folder) / "audit.db",
                kills,
                SEED,
                pruning=pruning,
                see_to=lambda lives, name=name: tqdm(lives, desc=name, disable=None, file=sys.stderr, leave=False),
            )
        measured[name] = {"seed": SEED, **asdict(counts)}
        targets.append(Target(f"{kills} kills while {name}: problems", "==", 0, len(counts.problems), "problems"))
        lines.append(f"{name}: {counts}")
    return finish("audit_kills", options, before, measured, targets, "\n".join(lines))


if __name__ == "__main__":
    sys.exit(guarded(main))
