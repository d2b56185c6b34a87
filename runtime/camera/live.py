"""Live sources: a thread keeps the newest frame, and brings a camera back that has stalled or broken off."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import cv2

from immunogate.errors import CameraError, ImmunogateError, InputError
from immunogate.runtime.camera.capture import Capture
from immunogate.runtime.camera.pixels import as_bgr
from immunogate.runtime.camera.source import Camera
from immunogate.runtime.profile.spans import mark_frame, span
from immunogate.structs import Frame

_log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
JOIN_S = 3.0
"""Longest that `LiveCamera.close` waits for a read under way; a thread left behind ends at its read time-out."""


class LiveCamera(Camera):
    """A source that goes on whether or not anybody looks.

    A daemon thread takes every frame and keeps the newest; the consumer gets that one, once, and the number of those
    it missed. Where the source ends, stalls past its read time-out or breaks off, it is closed and opened again:
    after 0.5 s, then twice as long each time up to 30 s, from 0.5 s again once a frame has come. The consumer just
    waits meanwhile. `Frame.media_time` counts on this machine's monotonic clock from the first frame.

    Args:
        name: the source's name without credentials.
        connect: opens the source; raises an `ImmunogateError` where it can not.
        first_delay: seconds before the first attempt to reopen.
        longest_delay: seconds that the delay grows to.

    Attributes:
        reopened: times that the source had to be opened again, and was.

    Raises:
        ImmunogateError: the first connection fails, from ``connect``.
    """

    is_live = True

    def __init__(
        self,
        name: str,
        connect: Callable[[], Capture],
        *,
        first_delay: float = FIRST_DELAY_S,
        longest_delay: float = LONGEST_DELAY_S,
    ) -> None:
        super().__init__(name)
        self.reopened = 0
        self._connect = connect
        self._delays = (first_delay, longest_delay)
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._failure: Exception | None = None
        self._taken = 0  # frames taken from the source: the index of the next one
        self._handed = 0  # index after the last one handed out
        self._first_ns = 0
        self._thread = threading.Thread(target=self._run, args=(connect(),), name=f"camera {name}", daemon=True)
        self._thread.start()

    def __next__(self) -> Frame:
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._failure or self._closed.is_set())
            if self._closed.is_set():
                raise StopIteration
            if self._failure is not None:
                raise self._failure
            frame = self._newest
            if frame is None:  # unreachable after the wait; said for the type checker
                raise StopIteration
            self._newest = None
            self._handed = frame.index + 1
            self.skipped += frame.skipped
            return frame

    def close(self) -> None:
        """Stop the thread and let go of the source; ends a wait for a frame or for reopening at once."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            _log.info("%s: a read is under way; it is left to run into its time-out", self.name)

    def _run(self, capture: Capture | None) -> None:
        try:
            self._keep_alive(capture)
        except Exception as error:  # the consumer must hear of it, or it would wait for ever
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _keep_alive(self, capture: Capture | None) -> None:
        first_delay, longest_delay = self._delays
        delay = first_delay
        while True:
            if capture is not None:
                before = self._taken
                self._drain(capture)
                delay = first_delay if self._taken > before else delay
            if self._closed.is_set():
                return
            _log.warning("%s gives no frames; opening it again in %.1f s", self.name, delay)
            if self._closed.wait(delay):
                return
            delay = min(2 * delay, longest_delay)
            capture = self._reopen()

    def _reopen(self) -> Capture | None:
        try:
            capture = self._connect()
        except ImmunogateError as error:
            _log.warning("%s", error.what)
            return None
        self.reopened += 1
        _log.warning("%s is open again", self.name)
        return capture

    def _drain(self, capture: Capture) -> None:
        """Take frames until the source gives none or the camera is closed."""
        try:
            while not self._closed.is_set() and self._grab(capture):
                captured_ns, captured_wall = time.monotonic_ns(), time.time()
                with span("decode"):
                    decoded, picture = capture.retrieve()
                if not decoded:
                    return
                self._put(picture, captured_ns, captured_wall)
        except cv2.error as error:
            _log.warning("%s: %s", self.name, error.err)
        finally:
            capture.release()

    def _grab(self, capture: Capture) -> bool:
        mark_frame(self._taken)
        with span("grab"):
            return capture.grab()

    def _put(self, picture: Any, captured_ns: int, captured_wall: float) -> None:
        index, self._taken = self._taken, self._taken + 1
        self._first_ns = self._first_ns or captured_ns
        try:
            pixels = as_bgr(picture, f"{self.name}, frame {index}")
        except InputError as error:
            raise CameraError(error.what, error.mend) from error
        with self._changed:
            self._newest = Frame(
                pixels=pixels,
                index=index,
                captured_ns=captured_ns,
                captured_wall=captured_wall,
                media_time=(captured_ns - self._first_ns) / 1e9,
                camera=self.name,
                skipped=index - self._handed,
            )
            self._changed.notify_all()
