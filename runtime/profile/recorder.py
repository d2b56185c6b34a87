"""Writes spans down, and shows them to NVIDIA's tools where NVTX is installed."""

from __future__ import annotations

import importlib
import threading
from typing import Any

from immunogate.profiling.recording import NO_FRAME, Span


class _OfThread(threading.local):
    """What one thread is at."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.frame = NO_FRAME
        self.ident = threading.get_ident()


class Recorder:
    """A listener that keeps everything; see `immunogate.runtime.profile.spans`.

    Args:
        nvtx: the module `nvtx`, which shows every span in Nsight; None leaves that out. See `nvtx_module`.

    Attributes:
        rows: (path, start_ns, end_ns, thread, frame) of each span, in the order in which they ended.
        threads: name of each thread that had a span, by its identifier.
    """

    def __init__(self, nvtx: Any = None) -> None:
        self.rows: list[tuple[str, int, int, int, int]] = []
        self.threads: dict[int, str] = {}
        self._mine = _OfThread()
        self._nvtx = nvtx

    def begin(self, name: str) -> None:
        """A span begins, within the last one begun on this thread."""
        paths = self._mine.paths
        paths.append(f"{paths[-1]}/{name}" if paths else name)
        if self._nvtx is not None:
            self._nvtx.push_range(name, domain="immunogate")

    def end(self, start_ns: int, end_ns: int) -> None:
        """The last span begun on this thread ends."""
        mine = self._mine
        self.rows.append((mine.paths.pop(), start_ns, end_ns, mine.ident, mine.frame))
        if mine.ident not in self.threads:
            self.threads[mine.ident] = threading.current_thread().name
        if self._nvtx is not None:
            self._nvtx.pop_range(domain="immunogate")

    def frame(self, index: int) -> None:
        """What follows on this thread is for this frame."""
        self._mine.frame = index

    def spans(self) -> list[Span]:
        """All that ended."""
        return [Span(*row) for row in self.rows]


def nvtx_module() -> Any:
    """The module `nvtx` where it is installed, else None."""
    try:
        return importlib.import_module("nvtx")
    except ImportError:
        return None
