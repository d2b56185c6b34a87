"""Boxes and points under mirroring and affine maps. Coordinates as in `immunogate.structs`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.structs import Floats

Matrix = npt.NDArray[np.float64]
"""(2, 3): x to A x + b."""

MIRRORED = (1, 0, 2, 4, 3)
"""Which point takes each place in a mirror image: the eye on the left is the one that was on the right."""


def mirrored_points(points: Floats, width: int) -> Floats:
    """(..., 5, 2) in a picture of this width, in its mirror image."""
    turned: Floats = points[..., MIRRORED, :].copy()
    turned[..., 0] = width - 1 - turned[..., 0]
    return turned


def mirrored_boxes(boxes: Floats, width: int) -> Floats:
    """(n, 4) in a picture of this width, in its mirror image."""
    turned: Floats = boxes.copy()
    turned[:, [0, 2]] = width - 1 - boxes[:, [2, 0]]
    return turned


def moved_points(points: npt.NDArray[Any], matrix: Matrix) -> Floats:
    """(..., 2) under an affine map."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)


def moved_boxes(boxes: Floats, matrix: Matrix) -> Floats:
    """(n, 4) under an affine map: the box around the mapped ellipse that touched the sides before.

    A turned box would grow with the angle, a head does not.
    """
    centres = moved_points((boxes[:, :2] + boxes[:, 2:]) / 2, matrix)
    halves = (boxes[:, 2:] - boxes[:, :2]) / 2
    extents = np.sqrt(halves.astype(np.float64) ** 2 @ (matrix[:, :2] ** 2).T)
    return np.concatenate([centres - extents, centres + extents], axis=1).astype(np.float32)


def sizes(boxes: Floats) -> Floats:
    """(n,) side of the square of equal area."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(0)
    return np.asarray(np.sqrt(sides[:, 0] * sides[:, 1]), np.float32)


def overlap(first: Floats, second: Floats) -> Floats:
    """Intersection over union of (m, 4) and (n, 4) boxes: (m, n) in [0, 1]."""
    corners = np.minimum(first[:, None, 2:], second[None, :, 2:]) - np.maximum(first[:, None, :2], second[None, :, :2])
    common = corners.clip(0).prod(axis=-1)
    union = sizes(first)[:, None] ** 2 + sizes(second)[None] ** 2 - common
    return np.asarray(common / np.maximum(union, np.float32(1e-9)), np.float32)
