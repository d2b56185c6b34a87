"""Faces of several cameras that come within a short time, as one batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

WINDOW_S = 0.002
"""Seconds that a face waits for others at the most."""


class Batcher(Generic[Item]):
    """Gathers faces; any thread may put, one takes.

    A batch is due once it is full or its oldest face has waited for the window. Faces leave in the order in which they
    came, so each camera's stay in order.

    Args:
        largest: faces of a batch at the most.
        window_s: seconds that a face waits for others at the most.
        clock: seconds that never go back.

    Raises:
        ValueError: a size below 1 or a window below 0.
    """

    def __init__(self, largest: int, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic) -> None:
        if largest < 1 or not window_s >= 0:
            raise ValueError(f"expected largest of 1 or more and a window of 0 or more, got {largest} and {window_s}")
        self._largest, self._window_s, self._clock = largest, window_s, clock
        self._waiting: deque[tuple[float, Item]] = deque()
        self._lock = threading.Lock()

    def put(self, item: Item) -> None:
        """Add a face."""
        with self._lock:
            self._waiting.append((self._clock(), item))

    def take(self) -> list[Item]:
        """The batch that is due, the oldest first; empty where none is."""
        with self._lock:
            if self._due_in() != 0:
                return []
            return [self._waiting.popleft()[1] for _ in range(min(self._largest, len(self._waiting)))]

    def due_in(self) -> float | None:
        """Seconds until `take` gives a batch if nothing else comes; 0 where one is due, None where nobody waits."""
        with self._lock:
            return self._due_in()

    def __len__(self) -> int:
        return len(self._waiting)

    def _due_in(self) -> float | None:
        if not self._waiting:
            return None
        if len(self._waiting) >= self._largest:
            return 0.0
        return max(0.0, self._waiting[0][0] + self._window_s - self._clock())
