"""Variations of one face that need no label: position and shape, light, loss of detail, occlusion.

Faces are float32 grey levels, 0 to 255, (112, 112). Each function takes a strength from 0 (about nothing) to 1.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from immunogate.structs import CROP_SIZE, Floats

Draws = np.random.Generator

_SIDE = CROP_SIZE
_COLUMNS, _ROWS = (axis.astype(np.float32) for axis in np.meshgrid(np.arange(_SIDE), np.arange(_SIDE)))
_CENTRE = (_SIDE - 1) / 2


def varied(face: Floats, draw: Draws, strength: float, bend: float) -> Floats:
    """Another picture of the face: all of the below, each drawn anew; in 0 to 255.

    Args:
        face: (112, 112).
        draw: of this face.
        strength: of all.
        bend: deviation in pixels of the strongest bending, at strength 1.
    """
    face = moved(face, draw, strength, bend)
    for change, chance in ((lit, 0.8), (softened, 0.35), (grained, 0.4), (covered, 0.25), (compressed, 0.2)):
        if draw.random() < chance * strength:
            face = change(face, draw, strength)
    return np.clip(face, 0, 255)


def moved(face: Floats, draw: Draws, strength: float, bend: float) -> Floats:
    """Mirrored or not, shifted, scaled, stretched, turned and bent a little, what comes in being mirrored edges."""
    turn = math.radians(draw.normal(0, 5)) * strength
    size, stretch = np.exp(draw.normal(0, 0.06) * strength), np.exp(draw.normal(0, 0.03) * strength)
    flip = -1.0 if draw.random() < 0.5 else 1.0
    cos, sin = math.cos(turn) / size, math.sin(turn) / size
    x, y = _COLUMNS - _CENTRE, _ROWS - _CENTRE
    right, down = draw.normal(0, 2.0, 2) * strength
    shifts = _shifts(draw, bend * strength)
    columns = flip * stretch * (cos * x - sin * y) + right + _CENTRE + shifts[0]
    rows = (sin * x + cos * y) / stretch + down + _CENTRE + shifts[1]
    there = (columns.astype(np.float32), rows.astype(np.float32))
    return _floats(cv2.remap(face, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))


def _shifts(draw: Draws, most: float) -> Floats:
    """(2, 112, 112) smooth shifts in pixels: other proportions, which make another person."""
    cells = int(draw.integers(3, 6))
    deviation = draw.uniform(0, most)
    noise = draw.normal(0, deviation, (cells, cells, 2)).astype(np.float32)
    return np.moveaxis(_spread(noise), 2, 0)


def lit(face: Floats, draw: Draws, strength: float) -> Floats:
    """Another light: uneven over the face, another gamma, brightness and contrast."""
    cells = int(draw.integers(2, 5))
    noise = draw.normal(0, 0.25 * draw.random() * strength, (cells, cells)).astype(np.float32)
    uneven = np.exp(_spread(noise))
    gamma = np.exp(draw.normal(0, 0.25) * strength)
    unit = np.clip(face * uneven, 0, 255) / 255
    level = np.power(unit, np.float32(gamma)) * 255
    middle = level.mean()
    contrast = np.float32(np.exp(draw.normal(0, 0.22) * strength))
    return _floats((level - middle) * contrast + middle + draw.normal(0, 16) * strength)


def softened(face: Floats, draw: Draws, strength: float) -> Floats:
    """Out of focus, in motion, or seen from afar and enlarged."""
    kind = draw.integers(3)
    if kind == 0:
        return _floats(cv2.GaussianBlur(face, (0, 0), draw.uniform(0.4, 0.5 + 1.5 * strength)))
    if kind == 1:
        return _smeared(face, draw, strength)
    side = round(draw.uniform(_SIDE - 80 * strength, _SIDE))
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    way = int(draw.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    return _spread(small, way)


def _smeared(face: Floats, draw: Draws, strength: float) -> Floats:
    length = int(draw.integers(2, 3 + round(5 * strength)))
    angle = draw.uniform(0, math.pi)
    kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
    reach = (round(length / 2 * math.cos(angle)), round(length / 2 * math.sin(angle)))
    cv2.line(kernel, (length - reach[0], length - reach[1]), (length + reach[0], length + reach[1]), 1.0)
    return _floats(cv2.filter2D(face, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101))


def grained(face: Floats, draw: Draws, strength: float) -> Floats:
    """Noise, fine as a sensor's or coarse."""
    cells = int(draw.choice([_SIDE, _SIDE, _SIDE // 2, _SIDE // 4]))
    noise = draw.standard_normal((cells, cells), np.float32) * np.float32(draw.uniform(1, 3 + 9 * strength))
    return face + (noise if cells == _SIDE else _spread(noise, cv2.INTER_LINEAR))


def covered(face: Floats, draw: Draws, strength: float) -> Floats:
    """One to three rectangles of one grey, or of noise, somewhere."""
    face = face.copy()
    for _ in range(int(draw.integers(1, 4))):
        height, width = draw.integers(6, 10 + round(30 * strength), 2)
        top, left = draw.integers(0, _SIDE - height), draw.integers(0, _SIDE - width)
        noise = draw.normal(0, draw.choice([0.0, 30.0]), (height, width))
        face[top : top + height, left : left + width] = np.clip(draw.uniform(0, 255) + noise, 0, 255)
    return face


def compressed(face: Floats, draw: Draws, strength: float) -> Floats:
    """What JPEG leaves."""
    pixels = np.clip(face, 0, 255).astype(np.uint8)
    quality = int(draw.uniform(95 - 75 * strength, 96))
    _, code = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return _floats(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE))


def _spread(small: Any, way: int = cv2.INTER_CUBIC) -> Floats:
    """Anything small at the size of a face."""
    return _floats(cv2.resize(small, (_SIDE, _SIDE), interpolation=way))


def _floats(values: Any) -> Floats:
    return np.asarray(values, np.float32)
