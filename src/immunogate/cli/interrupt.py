"""Ctrl-C and SIGTERM that end a loop between two frames and never within one."""

from __future__ import annotations

import signal
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
