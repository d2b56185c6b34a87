"""Aligned faces turned, shifted, scaled, mirrored and softened a little: what landmarks and lenses vary by.

An eigenbasis fits its own faces better than others, so that a purifier trained on them would take the remainder of
everybody else for an attack. Jittered faces leave a remainder like that of faces never seen.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader knows
from torch import Tensor

from immunogate.structs import CROP_SIZE
from immunogate.training.draws import normal, uniform

TURN, SCALE, SHIFT = 2.5, 0.025, 1.2
"""Standard deviations at jitter 1: degrees, natural logarithm of the scale, pixels in x and y."""

SHARPEST, SOFTEST, REACH = 0.4, 1.2, 3
"""Standard deviation in pixels of the blur of a softened face, and how many pixels it reaches to either side."""


def jittered(
    faces: Tensor, seed: int, step: int, amount: float, rows: slice | Tensor = slice(None), total: int = 0
) -> Tensor:
    """The faces, each changed in its own way and half of them mirrored.

    Args:
        faces: (b, D) float32 in [-1, 1].
        seed: of the run.
        step: whose draws to take.
        amount: 1 for the sizes above; 0 gives the faces as they are.
        rows: of the global batch that these faces are.
        total: faces of the global batch; all of these by default.

    Returns:
        (b, D), resampled bicubically and clamped to [-1, 1].
    """
    if amount == 0:
        return faces
    count = total or len(faces)
    draws = normal(seed, step, "jitter", count, 4)[rows].to(faces) * amount
    mirror = torch.where(uniform(seed, step, "mirror", count)[rows].to(faces) < 0.5, -1.0, 1.0)
    angle = draws[:, 0] * math.radians(TURN)
    scale = torch.exp(-draws[:, 1] * SCALE)
    shift = draws[:, 2:] * SHIFT * 2 / CROP_SIZE
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    matrix = torch.stack(
        [
            torch.stack([cosine * mirror, -sine, shift[:, 0]], dim=1),
            torch.stack([sine * mirror, cosine, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(matrix, [len(faces), 1, CROP_SIZE, CROP_SIZE], align_corners=False)
    planes = faces.reshape(-1, 1, CROP_SIZE, CROP_SIZE)
    moved = F.grid_sample(planes, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return moved.reshape(len(faces), -1).clamp(-1, 1)


def softened(faces: Tensor, seed: int, step: int, share: float, rows: slice = slice(None), total: int = 0) -> Tensor:
    """The faces, a share of them through a Gaussian blur of a drawn width; differentiable.

    Args:
        faces: (b, D).
        seed: of the run.
        step: whose draws to take.
        share: of the global batch's faces, each drawn by itself; 0 gives the faces as they are.
        rows: of the global batch that these faces are.
        total: faces of the global batch; all of these by default.
    """
    if share == 0:
        return faces
    draws = uniform(seed, step, "soften", total or len(faces), 2)[rows].to(faces)
    chosen = torch.nonzero(draws[:, 0] < share)[:, 0]
    if not len(chosen):
        return faces
    width = SHARPEST + (SOFTEST - SHARPEST) * draws[chosen, 1:]
    away = torch.arange(-REACH, REACH + 1, device=faces.device)
    kernel = torch.softmax(-0.5 * (away / width).square(), dim=1)
    planes = faces[chosen].reshape(1, len(chosen), CROP_SIZE, CROP_SIZE)
    planes = F.pad(planes, (REACH,) * 4, mode="replicate")
    planes = F.conv2d(planes, kernel[:, None, :, None], groups=len(chosen))
    planes = F.conv2d(planes, kernel[:, None, None, :], groups=len(chosen))
    return faces.index_copy(0, chosen, planes.reshape(len(chosen), -1))
