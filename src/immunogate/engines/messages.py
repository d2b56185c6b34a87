"""What TensorRT says, kept for errors and passed on to the log. The library itself is handed in."""

from __future__ import annotations

import logging
import threading
from typing import Any

log = logging.getLogger(__name__)

MOST_KEPT = 200
"""Messages kept, the newest; a build can say thousands."""

_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,
    "VERBOSE": logging.DEBUG,
}
_SHOWN = ("INTERNAL_ERROR", "ERROR", "WARNING")


class Messages:
    """Warnings and errors of TensorRT since they were last taken; any of its threads may add one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[tuple[str, str]] = []

    def add(self, severity: str, text: str) -> None:
        """Keep and log a message.

        Args:
            severity: TensorRT's own word for it.
            text: of the message.
        """
        # Warnings that matter are told by whoever takes them; in the log they would stand twice.
        log.log(min(_LEVELS.get(severity, logging.DEBUG), logging.INFO), "TensorRT %s: %s", severity.lower(), text)
        if severity in _SHOWN:
            with self._lock:
                self._kept = [*self._kept[1 - MOST_KEPT :], (severity, text)]

    def take(self) -> list[tuple[str, str]]:
        """Severity and text of what was kept, oldest first; it is forgotten."""
        with self._lock:
            kept, self._kept = self._kept, []
        return kept

    def take_errors(self) -> str:
        """The errors among them in one line, or the warnings where there are none."""
        kept = self.take()
        errors = [text for severity, text in kept if severity != "WARNING"] or [text for _, text in kept]
        return "; ".join(" ".join(text.split()) for text in errors) or "it gives no reason"


def make_logger(trt: Any, messages: Messages) -> Any:
    """A logger for the library that adds to ``messages``; it has to live as long as what it was given to.

    Args:
        trt: the library, or one with the same names.
        messages: where everything goes.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            messages.add(severity.name, msg)

    return Logger()
