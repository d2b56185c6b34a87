"""Drawn frames without any camera: cartoon faces that wander over a gradient, the same ones every time.

They are for testing the plumbing. A face detector may or may not find a face in them, and no recogniser was
trained on drawings: nothing that is measured on them says anything about people.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from immunogate.errors import UsageError
from immunogate.runtime.camera.address import Address
from immunogate.runtime.camera.pixels import PIXEL_LIMIT
from immunogate.runtime.camera.recorded import RecordedCamera
from immunogate.structs import Pixels

_SKIN, _DARK, _WHITE, _LIPS = (150, 180, 225), (40, 40, 50), (245, 245, 245), (90, 80, 190)


class DrawnReel:
    """Frames drawn one after the other.

    Args:
        width, height: size of a frame in pixels.
        frames: how many there are; 0 for no end.
        faces: cartoon faces in each.
    """

    def __init__(self, width: int, height: int, frames: int, faces: int) -> None:
        self._size = (width, height)
        self._frames = frames
        self._faces = faces
        self._index = -1

    def advance(self) -> bool:
        """Go on to the next frame; nothing is drawn before it is asked for."""
        self._index += 1
        return not self._frames or self._index < self._frames

    def picture(self) -> Pixels:
        """The frame, (H, W, 3) uint8 BGR; the same for the same options and index."""
        width, height = self._size
        canvas = _gradient(width, height, self._index)
        for face in range(self._faces):
            phase = self._index / 20 + face * 2.4
            radius = max(4, height // (5 + self._faces))
            centre = (
                round(width * (0.5 + 0.3 * math.sin(phase))),
                round(height * (0.5 + 0.2 * math.cos(0.7 * phase))),
            )
            _draw_face(canvas, centre, radius)
        return canvas

    def close(self) -> None:
        """Nothing is held."""


def open_synthetic(address: Address, *, realtime: bool, fps: float | None) -> RecordedCamera:
    """Open ``synthetic://?width=640&height=480&frames=100&fps=25&faces=1``, shown with its defaults.

    ``frames=0`` never ends. ``fps`` given here wins over the address.

    Raises:
        UsageError: an option is unknown or out of range.
    """
    address.expect_options("width", "height", "frames", "fps", "faces")
    width, height = address.integer("width", 640, 16, 16_384), address.integer("height", 480, 16, 16_384)
    if width * height > PIXEL_LIMIT:
        raise UsageError(f"{address.name}: {width} x {height} is more than the limit of {PIXEL_LIMIT:,} pixels")
    frames = address.integer("frames", 100, 0, 10**9 - 1)
    reel = DrawnReel(width, height, frames, address.integer("faces", 1, 0, 16))
    rate = fps or float(address.integer("fps", 25, 1, 1000))
    return RecordedCamera(address.name, reel, rate, frames or None, realtime=realtime)


def _gradient(width: int, height: int, index: int) -> Pixels:
    across = (np.arange(width) * 96 // width + index) % 192
    down = np.arange(height) * 63 // height
    grey = (across[None, :] + down[:, None]).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _draw_face(canvas: Pixels, centre: tuple[int, int], radius: int) -> None:
    x, y = centre
    thin = max(1, radius // 20)
    cv2.ellipse(canvas, (x, y), (radius * 3 // 4, radius), 0, 0, 360, _SKIN, -1, cv2.LINE_AA)
    cv2.ellipse(canvas, (x, y - radius // 3), (radius * 3 // 4, radius * 2 // 3), 0, 180, 360, _DARK, -1)
    for side in (-1, 1):
        eye = (x + side * radius * 3 // 10, y - radius // 8)
        cv2.ellipse(canvas, eye, (radius // 6, radius // 10), 0, 0, 360, _WHITE, -1, cv2.LINE_AA)
        cv2.circle(canvas, eye, max(1, radius // 14), _DARK, -1, cv2.LINE_AA)
    cv2.line(canvas, (x, y - radius // 10), (x + radius // 12, y + radius // 4), _DARK, thin, cv2.LINE_AA)
    cv2.ellipse(canvas, (x, y + radius // 2), (radius // 4, radius // 10), 0, 0, 180, _LIPS, -1, cv2.LINE_AA)
