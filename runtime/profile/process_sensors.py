"""What Linux tells of this process and of the machine: memory, processor time, who else is at work.

Sources: proc(5), the manual page of /proc. Each sensor takes the root folder, so that tests can lay out its files.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

ROOT = Path("/")
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6
_TICKS = os.sysconf("SC_CLK_TCK")
IDLE, IO_WAIT, STEAL = 3, 4, 7
"""Columns of the first line of /proc/stat."""

COUNTED = 8
"""Its columns from user to steal; guests are contained in user."""


class ProcessSensor:
    """Memory and processor time of this process: ``rss_mb``, ``cpu_percent`` (100 is one processor).

    Args:
        root: where /proc lies.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._before = (time.monotonic(), time.process_time())

    def __call__(self) -> dict[str, float | None]:
        """Since the last call, where it is a rate; None where /proc does not tell.

        Raises:
            OSError: /proc can not be read.
        """
        now = (time.monotonic(), time.process_time())
        passed, used = (new - old for new, old in zip(now, self._before, strict=True))
        self._before = now
        statm = (self._root / "proc/self/statm").read_text(encoding="ascii").split()
        return {
            "rss_mb": round(int(statm[1]) * _PAGE_MB, 2),
            "cpu_percent": round(100 * used / passed, 1) if passed > 0.01 else None,
        }


class MachineSensor:
    """What all others do to this process, in percent of one processor: ``others_percent``, ``steal_percent``.

    Steal is time that a hypervisor gave to other machines.

    Args:
        root: where /proc lies.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._before = self._now()

    def __call__(self) -> dict[str, float | None]:
        """Since the last call.

        Raises:
            OSError: /proc can not be read.
        """
        now = self._now()
        passed, busy, stolen, own = (new - old for new, old in zip(now, self._before, strict=True))
        if passed < 0.01:
            return {"others_percent": None, "steal_percent": None}
        self._before = now
        return {
            "others_percent": round(100 * max(0.0, busy - own) / passed, 1),
            "steal_percent": round(100 * stolen / passed, 1),
        }

    def _now(self) -> tuple[float, float, float, float]:
        """Seconds: passed, all processors at work, stolen, this process at work."""
        line = (self._root / "proc/stat").read_text(encoding="ascii").partition("\n")[0].split()
        ticks = [int(word) for word in line[1 : 1 + COUNTED]]
        busy = sum(ticks) - ticks[IDLE] - ticks[IO_WAIT] - ticks[STEAL]
        return time.monotonic(), busy / _TICKS, ticks[STEAL] / _TICKS, time.process_time()


def peak_rss_mb(root: Path = ROOT) -> float | None:
    """Largest resident memory of this process so far in megabytes (1e6 bytes); None where /proc does not tell."""
    try:
        text = (root / "proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    return round(int(found[1]) * 1024 / 1e6, 1) if found else None


def forced_switches(root: Path = ROOT) -> int | None:
    """Times that this process lost a processor to somebody else so far; None where /proc does not tell."""
    total, told = 0, False
    for status in (root / "proc/self/task").glob("*/status"):
        try:
            text = status.read_text(encoding="utf-8")
        except OSError:  # that thread ended meanwhile
            continue
        found = re.search(r"^nonvoluntary_ctxt_switches:\s+(\d+)", text, re.MULTILINE)
        if found:
            total, told = total + int(found[1]), True
    return total if told else None
