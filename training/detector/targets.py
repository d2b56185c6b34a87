"""Which cell answers for which face.

A face belongs to the grid whose cells fit its size, faces near a limit to both; of that grid the cells near its
middle are to find it. All of them see the whole face, and the gate averages over them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from immunogate.manifest import DETECTOR_STRIDES
from immunogate.structs import Floats
from immunogate.training.detector.geometry import sizes
from immunogate.training.detector.scenes import Scene

LIMITS = (0.0, 36.0, 128.0, np.inf)
"""Sides in pixels from which, and up to which, faces belong to the grids; at most nine cells wide."""

BOTH = 1.2
"""Factor by which the ranges of neighbouring grids reach over their limit."""

NEITHER = 1.35
"""Factor up to which the next grid may answer or not."""

INNER, OUTER = 0.22, 0.36
"""Distance of a cell from a face's middle, in sides, up to which it must answer, and beyond which it must not."""

NEAREST = 0.75
"""The same in cells: a small face has at least the cells that are nearest to its middle."""

FAR = 1e3
"""Distance added for faces that a cell may answer for but need not, so that it answers for one that it must."""


@dataclass(frozen=True, eq=False)
class Targets:
    """What the C cells of all grids of one scene should say; grids one after the other, cells row by row.

    Attributes:
        score: (C,) float32, 1 where a cell should answer, 0 where it should not.
        counted: (C,) float32, 0 where either is right.
        shared: (C,) float32, weight of the cell's box and points, which a cell that may answer has too; else 0.
        boxes: (C, 4) float32, left, top, right, bottom in pixels of the scene.
        points: (C, 10) float32, x and y of five points in pixels of the scene.
    """

    score: Floats
    counted: Floats
    shared: Floats
    boxes: Floats
    points: Floats


def cell_corners(size: int) -> tuple[Floats, Floats]:
    """Top left corners (C, 2) and strides (C,) of all cells of a scene of this side, in pixels."""
    corners, strides = [], []
    for stride in DETECTOR_STRIDES:
        count = size // stride
        rows, columns = np.divmod(np.arange(count * count), count)
        corners.append(np.stack([columns, rows], axis=1) * stride)
        strides.append(np.full(count * count, stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(strides).astype(np.float32)


def targets_of(scene: Scene, corners: Floats, strides: Floats) -> Targets:
    """The targets of a scene, for the cells that `cell_corners` gives."""
    count = len(corners)
    middles: Floats = corners + (strides[:, None] - 1) / np.float32(2)
    counted = np.ones(count, np.float32)
    for left, top, right, bottom in scene.ignored:
        x, y = middles.T
        counted[(x >= left) & (x <= right) & (y >= top) & (y <= bottom)] = 0
    if len(scene.boxes) == 0:
        empty = np.zeros((count, 14), np.float32)
        return Targets(empty[:, 0], counted, empty[:, 0], empty[:, :4], empty[:, 4:])
    away, must, may = _nearness(scene.boxes, middles, strides)
    nearest = np.where(must, away, np.where(may, away + FAR, np.inf)).argmin(axis=1)
    score, near = must.any(axis=1), may.any(axis=1)
    counted[near] = 0
    counted[score] = 1
    cells_of_face = np.maximum(np.bincount(nearest[near], minlength=len(scene.boxes)), 1)
    shared = np.asarray(np.where(near, 1 / np.sqrt(cells_of_face[nearest]), 0), np.float32)
    points = scene.points.reshape(-1, 10)
    return Targets(np.asarray(score, np.float32), counted, shared, scene.boxes[nearest], points[nearest])


def _nearness(
    boxes: Floats, middles: Floats, strides: Floats
) -> tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """For each cell and face (C, n): distance in sides, whether the cell must answer, whether it may."""
    side = sizes(boxes)[None]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    away = np.abs(middles[:, None] - centres[None]).max(axis=2)
    grid = np.searchsorted(DETECTOR_STRIDES, strides)
    low, high = np.array(LIMITS)[grid][:, None], np.array(LIMITS)[grid + 1][:, None]
    inner = away <= np.maximum(INNER * side, NEAREST * strides[:, None])
    outer = away <= np.maximum(OUTER * side, (NEAREST + 0.5) * strides[:, None])
    must = inner & (side > low / BOTH) & (side <= high * BOTH)
    may = outer & (side > low / NEITHER) & (side <= high * NEITHER)
    return (away / side).astype(np.float32), must, may
