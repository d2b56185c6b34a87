"""How far a build is: TensorRT tells of phases within phases, a person wants one number."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Show = Callable[[float, str], None]
"""Takes the share that is done, 0 to 1, and the name of the innermost phase."""


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Progress:
    """The phases of one build; any thread of TensorRT may report.

    Args:
        show: called after every step, from TensorRT's threads.
    """

    def __init__(self, show: Show | None = None) -> None:
        self._show = show
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}
        self._furthest = 0.0
        self.cancelled = False

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str, number: int) -> bool:
        """A step of it is done; whether the build shall go on."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = number + 1
            share = self.share()
            if self._show is not None and not self.cancelled:
                self._show(share, name)
        return not self.cancelled

    def finish(self, name: str) -> None:
        """A phase ends, maybe before its last step."""
        with self._lock:
            self._phases.pop(name, None)

    def share(self) -> float:
        """How much is done, from 0 to 1: that of the outermost phase, and within its step that of the next one in it.

        It never falls: TensorRT begins phases anew.
        """
        share, scale, parent = 0.0, 1.0, None
        while (found := self._inside(parent)) is not None:
            name, phase = found
            share += scale * min(phase.done / phase.steps, 1.0)
            scale, parent = scale / phase.steps, name
        self._furthest = max(self._furthest, min(share, 1.0))
        return self._furthest

    def _inside(self, parent: str | None) -> tuple[str, _Phase] | None:
        inside = [(name, phase) for name, phase in self._phases.items() if phase.parent == parent and name != parent]
        return inside[-1] if inside else None


def make_monitor(trt: Any, progress: Progress) -> Any:
    """TensorRT's own kind of listener, which passes everything on to ``progress``.

    Args:
        trt: the library.
        progress: what listens; it has to live as long as the build.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()
