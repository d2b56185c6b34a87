"""Files as cameras: a video or GIF, a folder of pictures in natural order, a single picture."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from immunogate.errors import CameraError, ImmunogateError, InputError, UsageError
from immunogate.runtime.camera.capture import has_backend, open_capture
from immunogate.runtime.camera.headers import SUFFIXES, gif_is_cut_off, picture_kind
from immunogate.runtime.camera.pixels import expect_modest, read_picture
from immunogate.runtime.camera.recorded import RecordedCamera
from immunogate.structs import Pixels

_log = logging.getLogger(__name__)

DEFAULT_FPS = 25.0
"""Frames per second of a folder, a picture, or a video that states no usable rate."""

_NO_PICTURE: Pixels = np.zeros((0, 0, 3), np.uint8)


class VideoReel:
    """The frames of a video or GIF, through OpenCV."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture

    def advance(self) -> bool:
        """Decode on to the next frame; False at the end or where the file breaks off."""
        return bool(self._capture.grab())

    def picture(self) -> Pixels:
        """The frame as OpenCV gives it; without pixels where the decoder has none."""
        found, picture = self._capture.retrieve()
        return np.asarray(picture) if found else _NO_PICTURE

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


class PictureReel:
    """Picture files one after the other.

    Args:
        paths: the files, in order.
        unreadable: where the files that can not be decoded are put down; None to raise instead.
    """

    def __init__(self, paths: Sequence[Path], unreadable: list[Path] | None) -> None:
        self._paths = iter(paths)
        self._unreadable = unreadable
        self._picture = _NO_PICTURE

    def advance(self) -> bool:
        """Decode the next file that can be decoded; False where none is left."""
        return any(self._read(path) for path in self._paths)

    def picture(self) -> Pixels:
        """The picture decoded last."""
        return self._picture

    def close(self) -> None:
        """Nothing is held open between two pictures."""

    def _read(self, path: Path) -> bool:
        try:
            self._picture = read_picture(path)
        except ImmunogateError as error:
            if self._unreadable is None:
                raise
            self._unreadable.append(path)
            _log.warning("skipped a picture: %s", error)
            return False
        return True


def open_path(path: Path, name: str, *, realtime: bool, fps: float | None) -> RecordedCamera:
    """A file or folder of this machine as a camera.

    Args:
        path: a video, a GIF, a picture (told by content), or a folder of pictures (told by `SUFFIXES`).
        name: the camera's name.
        realtime: pace it as a camera would.
        fps: frames per second in place of the file's own.

    Raises:
        UsageError: the path is not there or can not be read.
        InputError: the folder has no picture file.
        CameraError: the file is not a video that OpenCV can decode, or its frames are too large.
    """
    try:
        if path.is_dir():
            return _open_folder(path, name, realtime, fps)
        with path.open("rb") as stream:
            head = stream.read(16)
            stream.seek(-min(16, stream.seek(0, os.SEEK_END)), os.SEEK_END)
            tail = stream.read(16)
    except OSError as error:
        raise UsageError(f"{name} can not be read: {error.strerror}", "Check the path") from error
    if picture_kind(head):
        return RecordedCamera(name, PictureReel([path], None), fps or DEFAULT_FPS, 1, realtime=realtime)
    if gif_is_cut_off(head, tail):
        _log.warning("%s is cut off: it does not end as a GIF does; what there is of it is read", name)
    return _open_video(path, name, realtime, fps)


def natural_key(path: Path) -> tuple[list[str | int], str]:
    """Sorts names as people do: numbers by value, letters without case; the exact name settles ties."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name


def _open_folder(folder: Path, name: str, realtime: bool, fps: float | None) -> RecordedCamera:
    paths = sorted(
        (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()),
        key=natural_key,
    )
    if not paths:
        raise InputError(f"{name} holds no picture", f"Put in files that end in {', '.join(sorted(SUFFIXES))}")
    unreadable: list[Path] = []
    camera = RecordedCamera(name, PictureReel(paths, unreadable), fps or DEFAULT_FPS, len(paths), realtime=realtime)
    camera.unreadable = unreadable
    return camera


def _open_video(path: Path, name: str, realtime: bool, fps: float | None) -> RecordedCamera:
    backend = cv2.CAP_FFMPEG if has_backend(cv2.CAP_FFMPEG) else cv2.CAP_ANY
    # An absolute path, because FFmpeg would take "concat:a.mp4" for a protocol and not for a file.
    capture = open_capture(str(path.resolve()), backend)
    if capture is None:
        raise CameraError(
            f"{name} is no video or picture that can be decoded, or is cut off",
            "Check that it plays elsewhere",
        )
    try:
        expect_modest(int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), name)
    except InputError as error:
        capture.release()
        raise CameraError(error.what, error.mend) from error
    announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    rate = fps or _own_rate(capture, name)
    return RecordedCamera(name, VideoReel(capture), rate, announced if announced > 0 else None, realtime=realtime)


def _own_rate(capture: cv2.VideoCapture, name: str) -> float:
    # An average: for a GIF with delays of 80 and 90 ms OpenCV 4 says 12 and OpenCV 5 says 12.5.
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    if math.isfinite(rate) and 0 < rate <= 1000:
        return rate
    _log.warning("%s states no usable frame rate (%s); %g frames/s are assumed", name, rate, DEFAULT_FPS)
    return DEFAULT_FPS
