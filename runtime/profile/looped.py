"""A camera without a lens: a loop of drawn pictures at a camera's pace, for profiles.

Frames are made in this process when they are asked for: the way from a camera's worker is no part of such a profile.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from immunogate.errors import UsageError
from immunogate.runtime.camera import Camera
from immunogate.runtime.camera.recorded import RecordedCamera
from immunogate.structs import Pixels

UNPACED = 25.0
"""Frames a second of media time where frames come as fast as they are asked for."""

FASTEST = 1000.0


class LoopedReel:
    """The pictures over and over, one for each call.

    Args:
        pictures: (H, W, 3) uint8 BGR each, one at the least.
    """

    def __init__(self, pictures: Sequence[Pixels]) -> None:
        self._pictures = pictures
        self._index = -1

    def advance(self) -> bool:
        """Go on to the next one; there always is one."""
        self._index += 1
        return True

    def picture(self) -> Pixels:
        """A copy, as a decoder gives its own memory."""
        return np.array(self._pictures[self._index % len(self._pictures)])

    def close(self) -> None:
        """Nothing is held."""


def looped_camera(name: str, pictures: Sequence[Pixels], rate: float) -> Camera:
    """A camera over a loop of pictures.

    Args:
        name: of the source.
        pictures: (H, W, 3) uint8 BGR each, one at the least.
        rate: frames a second, newest frame first as from any live camera; 0 for each as soon as it is asked for.

    Raises:
        UsageError: a rate below 0 or above 1000.
    """
    if not 0 <= rate <= FASTEST:
        raise UsageError(f"--rate must be in 0 .. {FASTEST:g} frames a second, got {rate:g}")
    return RecordedCamera(name, LoopedReel(pictures), rate or UNPACED, None, realtime=rate > 0)
