"""Aligned faces turned, shifted, scaled and mirrored a little: what a detector's landmarks vary by.

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


def jittered(faces: Tensor, seed: int, step: int, amount: float, rows: slice = slice(None), total: int = 0) -> Tensor:
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
