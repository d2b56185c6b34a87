"""Attacks where the camera is: pixels of the RGB frame change, before detection and alignment.

The five-point warp is differentiable here, and rounds where the gate's own rounds (the gradient goes straight
through), so that a frame's perturbation is optimised through warp, purification and recognition. The landmarks stay
those of the clean frame while the attack is made; a replay through the gate detects them anew on the attacked frame,
and only what the replay says counts.

A frame is a row (3 H W) of blue, green and red planes in [-1, 1]: `search`, balls and patches work on it as on faces.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader knows
from torch import Tensor

from immunogate.networks.attacks.target import Attackable
from immunogate.networks.relaxed import with_gradient
from immunogate.structs import CROP_SIZE, Pixels

GREY = (0.114, 0.587, 0.299)
"""Shares of blue, green and red; source: ITU-R BT.601, as OpenCV's BGR2GRAY."""


def points_from_frames(frames: Pixels) -> Tensor:
    """(B, H, W, 3) uint8 BGR frames as (B, 3 H W) float32 points in [-1, 1]."""
    planes = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
    return planes.reshape(len(frames), -1).float() / 127.5 - 1


def frames_from_points(points: Tensor, height: int, width: int) -> Pixels:
    """(B, 3 H W) points as (B, H, W, 3) uint8 BGR frames, rounded.

    Where the bound is a whole number of grey levels, rounding keeps the frame within it.
    """
    levels = ((points.detach().cpu().reshape(-1, 3, height, width) + 1) * 127.5).round().clamp(0, 255)
    return np.ascontiguousarray(levels.to(torch.uint8).numpy().transpose(0, 2, 3, 1))


class Warp:
    """From frames to aligned grey faces, as `immunogate.runtime.align.align`.

    Args:
        crops: for each sample the (2, 3) matrix from frame to a crop ``shrink`` times as large as 112, and shrink: what
            `immunogate.runtime.align.similarity_to_large_crop` gives.
        height: of the frames in pixels, the same for all.
        width: likewise.

    Raises:
        ValueError: a matrix can not be inverted.
    """

    def __init__(self, crops: Sequence[tuple[npt.NDArray[np.float64], int]], height: int, width: int) -> None:
        self._height, self._width = height, width
        self._grids = [_grid(matrix, shrink, height, width) for matrix, shrink in crops]
        self._shrinks = [shrink for _, shrink in crops]

    def __call__(self, points: Tensor, rows: Tensor) -> Tensor:
        """(b, 3 H W) frames of the samples (b,) to (b, D) faces in [-1, 1]."""
        planes = (points.reshape(-1, 3, self._height, self._width) + 1) * 127.5
        return torch.cat([self._one(planes[place : place + 1], int(row)) for place, row in enumerate(rows)])

    def _one(self, plane: Tensor, row: int) -> Tensor:
        grid, shrink = self._grids[row].to(plane), self._shrinks[row]
        warped = _rounded(F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=True))
        blue, green, red = warped.unbind(dim=1)
        grey = _rounded(GREY[0] * blue + GREY[1] * green + GREY[2] * red)[:, None]
        if shrink > 1:
            # OpenCV averages 2x2 in whole numbers, halves upwards; other sizes round halves to even.
            halves = 1e-3 if shrink == 2 else 0.0
            mean = F.avg_pool2d(grey, shrink)
            grey = with_gradient((mean.detach() + halves).round(), mean)
        return grey.reshape(1, CROP_SIZE * CROP_SIZE) / 127.5 - 1


class FrameGate:
    """A gate that is shown frames, see `target.Attackable`.

    Args:
        faces: the gate behind the warp.
        warp: of the same samples.
    """

    def __init__(self, faces: Attackable, warp: Warp) -> None:
        self._faces, self._warp = faces, warp

    def __call__(self, points: Tensor, rows: Tensor, draw: int) -> Tensor:
        """(b, 3 H W) frames to (b, E) embeddings."""
        return self._faces(self._warp(points, rows), rows, draw)


def _grid(matrix: npt.NDArray[np.float64], shrink: int, height: int, width: int) -> Tensor:
    """(1, S, S, 2) where each pixel of the large crop lies in the frame, as grid_sample wants it."""
    linear = matrix[:, :2]
    if abs(np.linalg.det(linear)) < 1e-12:
        raise ValueError("Warp: expected matrices that can be inverted")
    side = CROP_SIZE * shrink
    down, right = np.mgrid[:side, :side].astype(np.float64)
    there = np.stack([right - matrix[0, 2], down - matrix[1, 2]], axis=-1) @ np.linalg.inv(linear).T
    scale = np.array([max(width - 1, 1), max(height - 1, 1)])
    return torch.from_numpy(2 * there / scale - 1)[None]


def _rounded(levels: Tensor) -> Tensor:
    """Whole grey levels, the gradient as if nothing were rounded."""
    return with_gradient(levels.detach().round(), levels)
