"""Pictures of several people for a profile: the demo's two portraits, side by side, swaying a little."""

from __future__ import annotations

import math

import cv2
import numpy as np

from immunogate.demo.portraits import Portrait, enrolled_person, stranger
from immunogate.structs import Floats, Pixels

LOOP = 16
"""Pictures in the loop; the last leads back to the first."""

GREY = 118
EYES_OF_TILE = 0.17
"""Distance between the eyes, of the smaller side of the part of the picture that a face has to itself."""


def scene(faces: int, width: int = 640, height: int = 480) -> list[Pixels]:
    """A loop of (height, width, 3) uint8 BGR pictures with so many faces, the same ones every time.

    Raises:
        MissingExtraError: scikit-image or matplotlib, which bring the portraits, is not installed.
    """
    people = [enrolled_person(), stranger()]
    return [_picture(people, faces, width, height, turn) for turn in range(LOOP)]


def _picture(people: list[Portrait], faces: int, width: int, height: int, turn: int) -> Pixels:
    canvas = np.full((height, width, 3), GREY, np.uint8)
    columns = math.ceil(math.sqrt(faces * width / height)) if faces else 1
    rows = math.ceil(faces / columns)
    for face in range(faces):
        tile_width, tile_height = width // columns, height // rows
        left, top = face % columns * tile_width, face // columns * tile_height
        part = canvas[top : top + tile_height, left : left + tile_width]
        phase = 2 * math.pi * (turn / LOOP + face / 5)
        part[:] = _tile(people[face % len(people)], tile_width, tile_height, phase, mirrored=face // 2 % 2 == 1)
    return canvas


def _tile(person: Portrait, width: int, height: int, phase: float, *, mirrored: bool) -> Pixels:
    """One face about its tile's middle, two percent of the tile to and fro."""
    landmarks: Floats = person.landmarks
    middle = landmarks[:3].mean(axis=0)
    scale = EYES_OF_TILE * min(width, height) / float(np.hypot(*(landmarks[1] - landmarks[0])))
    across = -scale if mirrored else scale
    sway = 0.02 * min(width, height)
    x, y = width / 2 + sway * math.sin(phase), height / 2 + sway * math.cos(phase)
    matrix = np.array([[across, 0, x - across * middle[0]], [0, scale, y - scale * middle[1]]])
    drawn = cv2.warpAffine(
        person.pixels, matrix, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(drawn, np.uint8)
