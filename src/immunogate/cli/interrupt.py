"""Ctrl-C and SIGTERM that end a loop between two frames and never within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """While its block runs, SIGINT and SIGTERM ask for an end; a second one ends at once.

    Outside of `shielded` the request is raised as KeyboardInterrupt, so that waiting for a camera ends too; inside
    it only sets `requested`.
    """

    def __init__(self) -> None:
        self.requested = False
        self._shielded = False

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take the signals for the length of the block, then give them back; swallow the interrupt asked for."""
        before = {number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        except KeyboardInterrupt:
            self.requested = True
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Finish the block before the request is heard."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self._shielded and not self.requested:
            self.requested = True
            return
        raise KeyboardInterrupt


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """While its block runs, SIGTERM ends it as Ctrl-C does, so that what was half written is cleared away."""
    if threading.current_thread() is not threading.main_thread():  # signals can only be taken there
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
