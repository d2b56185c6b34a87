"""How far ``immunogate evaluate`` is, with the time left, and where it runs."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

PACKAGES = ("numpy", "onnxruntime", "opencv-python-headless", "torch", "adversarial-robustness-toolbox")
FORMAT = "{l_bar}{bar}| {elapsed}, at most {remaining} left"


class Bar:
    """One bar over all parts on stderr, where that is a terminal; see `Progress` in calib.robustness.evaluation.

    Costs are the most that a part can take: attacks end as soon as they have won, and the bar then jumps.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._before = self._cost = 0.0

    def plan(self, cost: float) -> None:
        """See `Progress`."""
        from tqdm import tqdm

        self._bar = tqdm(total=cost, disable=None, file=sys.stderr, leave=False, bar_format=FORMAT)

    def begin(self, what: str, cost: float) -> None:
        """See `Progress`."""
        self._before += self._cost
        self._cost = cost
        self._show(0.0)
        if self._bar is not None:
            self._bar.set_description(what)

    def share(self, done: float) -> None:
        """See `Progress`."""
        self._show(done)

    def _show(self, done: float) -> None:
        if self._bar is not None:
            self._bar.update(self._before + done * self._cost - self._bar.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def environment() -> dict[str, str]:
    """CPU, system and versions, in words."""
    found = {
        "cpu": _cpu() or platform.processor() or platform.machine(),
        "cores usable": str(len(os.sched_getaffinity(0))),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    return found | {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
