"""Recorded sources: every frame once, as fast as it is asked for, or at the pace of the camera that took it."""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

from immunogate.errors import CameraError, InputError
from immunogate.runtime.camera.pixels import as_bgr
from immunogate.runtime.camera.source import Camera
from immunogate.runtime.profile.spans import mark_frame, span
from immunogate.structs import Frame, Pixels

_log = logging.getLogger(__name__)


class Reel(Protocol):
    """A finite or endless row of pictures that is wound forward, one at a time."""

    def advance(self) -> bool:
        """Wind on to the next picture; False at the end."""

    def picture(self) -> Pixels:
        """The picture wound to, as decoded."""

    def close(self) -> None:
        """Let go of the file."""


class RecordedCamera(Camera):
    """A reel of pictures, read as a camera.

    Args:
        name: the source's name without credentials.
        reel: the pictures.
        fps: frames per second of the recording; frame i belongs to second i / fps.
        expected_frames: pictures the reel announces, None where it does not.
        realtime: hand out each frame not before its time, counted from the first call, and skip those whose time
            has passed when a newer one is due. Otherwise nothing waits and nothing is skipped.
    """

    def __init__(
        self, name: str, reel: Reel, fps: float, expected_frames: int | None, *, realtime: bool = False
    ) -> None:
        super().__init__(name, expected_frames)
        self.fps = fps
        self._reel = reel
        self._realtime = realtime
        self._next_index = 0
        self._started: float | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()

    def __next__(self) -> Frame:
        target = self._await_due() if self._realtime else self._next_index
        # The lock keeps close() from releasing the reel under a decoder at work.
        with self._lock:
            if self._closed.is_set():
                raise StopIteration
            return self._wind_to(target)

    def close(self) -> None:
        """Let go of the file; a consumer waiting for its next frame ends at once."""
        self._closed.set()
        with self._lock:
            self._reel.close()

    def _await_due(self) -> int:
        """Wait until a frame is due and give the index of the newest that is."""
        now = time.monotonic()
        if self._started is None:
            self._started = now
        due = int((now - self._started) * self.fps + 1e-6)
        if self.expected_frames is not None:
            due = min(due, self.expected_frames - 1)  # the last picture stays in front of the lens
        target = max(self._next_index, due)
        self._closed.wait(max(0.0, self._started + target / self.fps - now))
        return target

    def _wind_to(self, target: int) -> Frame:
        first = self._next_index
        while self._next_index <= target:
            if not self._reel.advance():
                self._finish(self._next_index - first)
                raise StopIteration
            self._next_index += 1
        self.skipped += target - first
        captured_ns, captured_wall = time.monotonic_ns(), time.time()
        return Frame(
            pixels=self._pixels(),
            index=target,
            captured_ns=captured_ns,
            captured_wall=captured_wall,
            media_time=target / self.fps,
            camera=self.name,
            skipped=target - first,
        )

    def _pixels(self) -> Pixels:
        mark_frame(self._next_index - 1)
        try:
            with span("decode"):
                return as_bgr(self._reel.picture(), f"{self.name}, frame {self._next_index - 1}")
        except InputError as error:
            raise CameraError(error.what, error.mend) from error

    def _finish(self, passed_over: int) -> None:
        self.skipped += passed_over
        self._closed.set()
        self._reel.close()
        if self._next_index == 0:
            raise CameraError(
                f"{self.name} has no frame that can be decoded",
                "Check that it was copied whole and plays elsewhere",
            )
        announced = self.expected_frames
        if announced is not None and self._next_index + len(self.unreadable) < announced:
            _log.warning(
                "%s ended after %d of %d announced frames: it is cut off or damaged",
                self.name,
                self._next_index,
                announced,
            )
