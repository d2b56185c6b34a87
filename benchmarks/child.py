"""Runs a command and watches its memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import ROOT

WATCH = 0.01
"""Seconds between two looks at the child."""


@dataclass(frozen=True)
class Ran:
    """A command that ended well.

    Attributes:
        seconds: from start to end, the interpreter's start included.
        peak_mb: the kernel's own high-water mark of resident memory (VmHWM) in 10^6 bytes. It never falls, so what
            was read last misses no peak but one in the last hundredth of a second. ru_maxrss is no substitute: a
            child begins with its parent's.
        stdout: what it printed.
        stderr: what it said.
    """

    seconds: float
    peak_mb: float
    stdout: str
    stderr: str


def python(*words: object) -> Ran:
    """Run this Python with these words, in the project's folder; see `command`."""
    return command([sys.executable, *map(str, words)])


def command(words: Sequence[str]) -> Ran:
    """Run a command to its end.

    Raises:
        RuntimeError: it ended with another status than 0; holds the last of what it said.
    """
    peak = 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(words, stdout=out, stderr=err, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"})
        while process.poll() is None:
            peak = max(peak, _high_water(process.pid))
            time.sleep(WATCH)
        seconds = time.perf_counter() - start
        out.seek(0)
        err.seek(0)
        ran = Ran(round(seconds, 3), round(peak * 1024 / 1e6, 1), out.read(), err.read())
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {ran.stderr[-2000:]}")
    return ran


def _high_water(pid: int) -> int:
    """VmHWM in KiB; 0 once the process has let go of its memory."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
