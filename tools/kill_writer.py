"""Kills a writer of a record of decisions, again and again at random moments, and looks at what it left behind.

The writer does what a gate does with each frame's decisions (`Settlement.settle`), as fast as it can, and prunes now
and then where that is asked for. Its relay and whoever hears of a decision write to files of their own. After each
kill: the chain is whole, everything that was set off or heard of is in the record, and nothing in it is lost.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from immunogate.errors import ImmunogateError
from immunogate.runtime.audit.log import AuditLog
from immunogate.runtime.audit.reading import AuditReader
from immunogate.runtime.audit.retention import Limits, prune
from immunogate.runtime.audit.settle import Settlement
from immunogate.runtime.audit.verify import verify
from immunogate.runtime.pipeline import FrameResult, Look
from immunogate.runtime.track import Track
from immunogate.structs import Decision, Faces, Frame

MOST_HEARD, LONGEST_MORE_S, PATIENCE_S = 8, 0.03, 2.0
"""A writer is killed after it was heard of up to so many times, or after so long, and a random moment more."""

NO_BOX = np.zeros(4, np.float32)
DAY_S = 86_400.0


@dataclass
class Counts:
    """What was found after all kills."""

    kills: int = 0
    killed_before_the_first_record: int = 0
    decisions: int = 0
    heard_of: int = 0
    set_off: int = 0
    recorded_and_not_heard_of: int = 0
    pruned: int = 0
    problems: list[str] = field(default_factory=list)


def frame_of(number: int, decision_id: str, outcome: Any = "allow") -> FrameResult:
    """A frame with one made-up decision."""
    pixels = np.zeros((2, 2, 3), np.uint8)
    frame = Frame(pixels, number, time.monotonic_ns(), time.time(), number / 25, "test://door")
    decision = Decision(
        decision_id, frame.camera, number, 1, "2026-11-23T08:00:00.000Z", "2026-11-23T08:00:00.010Z", 10.0, outcome,
        "match", "ann", 0.9, 0.9, 0.4, 0.01, 3, (0, 0, 9, 9), {"mode": "fixed"}, "ab" * 32,
    )  # fmt: skip
    look = Look(Track(1, NO_BOX, NO_BOX, 0.0), NO_BOX)
    return FrameResult(frame, Faces.none(), [], [look], [decision], {})


class NotingRelay:
    """Writes down what it was set off for; what the system has taken over survives the writer's end."""

    name = "noting"

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def __call__(self, decision: Decision) -> None:
        """Note it."""
        os.write(self._file, decision.decision_id.encode() + b"\n")


def write_without_end(path: Path, life: int, pruning: bool) -> None:
    """What the writer does until it is killed."""
    heard = os.open(path.with_suffix(".heard"), os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    with AuditLog(path) as audit:
        settlement = Settlement(audit, audit.context({"life": life}), 60_000.0, NotingRelay(path.with_suffix(".door")))
        settlement.begin()
        for number in range(10**9):
            outcome = "allow" if number % 2 else "deny"
            held = settlement.settle(frame_of(number, f"{life:04d}-{number:06d}", outcome)).decisions[0]
            os.write(heard, held.decision_id.encode() + b"\n")
            if pruning and number % 7 == 6:
                prune(audit, Limits(days=1), time.time() + 2 * DAY_S)


def kill_again_and_again(path: Path, kills: int, seed: int, *, pruning: bool = False, see_to: Any = iter) -> Counts:
    """Let a writer live for a random while, kill it, look; all on one file.

    Args:
        path: of the record; there must be none.
        kills: how many.
        seed: of the lengths of the lives.
        pruning: the writer prunes everything now and then.
        see_to: goes through the lives, for a progress bar.
    """
    draw, counts = random.Random(seed), Counts()
    for life in see_to(range(kills)):
        writer = os.fork()
        if writer == 0:
            try:
                write_without_end(path, life, pruning)
            finally:
                os._exit(3)
        _wait(path, draw.randint(0, MOST_HEARD))
        time.sleep(draw.uniform(0, LONGEST_MORE_S))
        os.kill(writer, signal.SIGKILL)
        _, status = os.waitpid(writer, 0)
        counts.kills += 1
        if os.WTERMSIG(status) != signal.SIGKILL:
            counts.problems.append(f"life {life}: the writer ended by itself with status {status}")
        _look(path, life, counts)
    return counts


def _wait(path: Path, more: int) -> None:
    """Until the writer was heard of so many times more."""
    heard = path.with_suffix(".heard")
    before, deadline = len(_lines(heard)), time.monotonic() + PATIENCE_S
    while len(_lines(heard)) < before + more and time.monotonic() < deadline:
        time.sleep(0.002)


def _look(path: Path, life: int, counts: Counts) -> None:
    heard, door = (_lines(path.with_suffix(ending)) for ending in (".heard", ".door"))
    try:
        reader = AuditReader(path)
    except ImmunogateError as error:  # a new file is no record until its tables are there, which is one transaction
        if heard or door or counts.decisions:
            counts.problems.append(f"life {life}: {error}")
        counts.killed_before_the_first_record += 1
        return
    with reader:
        found = verify(reader)
        recorded = [record.data() for record, _ in reader.rows()]
    allowed = {one["decision"]["decision_id"]: one["decision"]["outcome"] for one in recorded if "decision" in one}
    pruned = sum(one.get("records", 0) for one in recorded)
    counts.decisions, counts.heard_of, counts.set_off = len(allowed), len(heard), len(door)
    counts.pruned = found.anchor
    problems = [found.problem] if found.problem else []
    if not found.anchor:
        problems += [f"{name} was heard of and is not recorded" for name in heard if name not in allowed]
        problems += [f"{name} was set off and is no recorded allow" for name in door if allowed.get(name) != "allow"]
        counts.recorded_and_not_heard_of = len(set(allowed) - set(heard))
        if counts.recorded_and_not_heard_of > counts.kills:
            problems.append("more decisions were in flight than writers were killed")
    elif not pruned:
        problems.append("records are gone and nothing tells of it")
    counts.problems += [f"life {life}: {problem}" for problem in problems]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def main() -> int:
    """For trying out: ``python tools/kill_writer.py FILE KILLS SEED``."""
    counts = kill_again_and_again(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    print(counts)
    return 1 if counts.problems else 0


if __name__ == "__main__":
    sys.exit(main())
