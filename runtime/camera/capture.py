"""OpenCV's captures: which back ends are built in, opening with options, and no chatter on stderr."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any, Protocol

import cv2

_SILENT = 0
_FFMPEG_QUIET = "-8"  # AV_LOG_QUIET


class Capture(Protocol):
    """The part of `cv2.VideoCapture` that the cameras use."""

    def grab(self) -> bool:
        """Take the next frame; False where there is none."""

    def retrieve(self) -> tuple[bool, Any]:
        """Whether the frame taken could be decoded, and its pixels."""

    def release(self) -> None:
        """Let go of the source."""


@functools.cache
def quieten() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr, once; every failure is told by an error or a log line.

    Whoever sets OPENCV_LOG_LEVEL or OPENCV_FFMPEG_LOGLEVEL keeps their word. libpng and libjpeg write on their
    own and can not be silenced from here.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _FFMPEG_QUIET)
    if "OPENCV_LOG_LEVEL" not in os.environ:
        # OpenCV 4 has the function at the top, OpenCV 5 in a module of its own.
        owner: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
        owner.setLogLevel(_SILENT)


def has_backend(backend: int) -> bool:
    """Whether this OpenCV can use a back end such as `cv2.CAP_GSTREAMER`."""
    return bool(cv2.videoio_registry.hasBackend(backend))


def open_capture(target: str, backend: int, options: Sequence[int] = ()) -> cv2.VideoCapture | None:
    """Open a source with OpenCV, or None where it can not be opened.

    Args:
        target: path, address or pipeline.
        backend: one of `cv2.CAP_*`.
        options: pairs of property and value that must be known before opening.
    """
    quieten()
    try:
        capture = cv2.VideoCapture(target, backend, list(options))
    except cv2.error:
        return None
    if capture.isOpened():
        return capture
    capture.release()
    return None
