"""Reads the machine's sensors from time to time, on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

from immunogate.profiling.recording import Reading

_log = logging.getLogger(__name__)

Sensor = Callable[[], dict[str, float | None]]
"""What one sensor tells now, by name; None for what it does not tell."""

PERIOD_S = 0.1


class Sampler:
    """Reads sensors while its block runs; once at its beginning and once at its end at the least.

    Args:
        sensors: what to read; a sensor that raises OSError tells nothing that time.
        period: seconds between two readings.

    Attributes:
        readings: so far, in their order.
    """

    def __init__(self, sensors: list[Sensor], period: float = PERIOD_S) -> None:
        self.readings: list[Reading] = []
        self._sensors = sensors
        self._period = period
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Sampler:
        self._ended.clear()
        self._read()
        self._thread = threading.Thread(target=self._run, name="sensors", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._read()

    def _run(self) -> None:
        while not self._ended.wait(self._period):
            self._read()

    def _read(self) -> None:
        values: dict[str, float | None] = {}
        for sensor in self._sensors:
            try:
                values.update(sensor())
            except OSError:  # a file of the kernel's that is gone or does not answer
                _log.debug("a sensor does not answer", exc_info=True)
        self.readings.append(Reading(time.monotonic_ns(), values))
