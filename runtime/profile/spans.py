"""Named spans of time inside the pipeline, which cost next to nothing while nobody listens.

The stages say `with span("network"):` around what they do. Only while a profile is taken is there a listener; else a
span is one look at a variable. Nothing that a gate decides depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Listener(Protocol):
    """Who is told of spans; calls come from any thread, begin and end of one span from the same."""

    def begin(self, name: str) -> None:
        """A span of this name begins on the calling thread, within the last one begun there."""

    def end(self, start_ns: int, end_ns: int) -> None:
        """The last span begun on the calling thread ends; both times are of `time.monotonic_ns`."""

    def frame(self, index: int) -> None:
        """What follows on the calling thread is for this frame of the source."""


class _Nothing:
    __slots__ = ()

    def __enter__(self) -> None:
        """Nobody listens."""

    def __exit__(self, *_: object) -> None:
        """Nobody listens."""


class _Span:
    __slots__ = ("_listener", "_name", "_start")

    def __init__(self, listener: Listener, name: str) -> None:
        self._listener = listener
        self._name = name
        self._start = 0

    def __enter__(self) -> None:
        self._listener.begin(self._name)
        self._start = time.monotonic_ns()

    def __exit__(self, *_: object) -> None:
        self._listener.end(self._start, time.monotonic_ns())


_NOTHING = _Nothing()
_listener: Listener | None = None


def span(name: str) -> _Nothing | _Span:
    """Time a block for whoever listens, also where it raises; spans within it belong to it.

    Args:
        name: one word or two, without a slash.
    """
    listener = _listener
    return _NOTHING if listener is None else _Span(listener, name)


def mark_frame(index: int) -> None:
    """Say which frame the calling thread works on from now on."""
    if _listener is not None:
        _listener.frame(index)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell a listener of every span that begins while the block runs, on all threads.

    Raises:
        ValueError: somebody listens already.
    """
    global _listener
    if _listener is not None:
        raise ValueError("spans: somebody listens already")
    _listener = listener
    try:
        yield
    finally:
        _listener = None
