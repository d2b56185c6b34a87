"""Between faces in [-1, 1] and the whole grey levels that a deployed gate is given."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import torch
from torch import Tensor

from immunogate.faces_file import faces_from_pixels
from immunogate.networks.attacks.signs import from_levels
from immunogate.structs import CROP_SIZE, Floats, Pixels

SLACK = 1e-3
"""Grey levels by which float arithmetic may miss a bound."""


def faces_of(crops: Pixels) -> Floats:
    """(B, 112, 112) uint8 to (B, D) float32 in [-1, 1]."""
    return faces_from_pixels(crops)


def crops_of(points: Tensor | Floats) -> Pixels:
    """(B, D) in [-1, 1] to (B, 112, 112) uint8, rounded."""
    values = points.detach().cpu().numpy() if isinstance(points, Tensor) else points
    levels = np.rint((values + 1) * 127.5).clip(0, 255)
    return np.asarray(levels.reshape(-1, CROP_SIZE, CROP_SIZE), np.uint8)


def crops_within(points: Tensor, clean: Tensor, levels: float | None) -> Pixels:
    """(B, D) found points as (B, 112, 112) whole grey levels no further than ``levels`` from the clean ones."""
    near = crops_of(points)
    if levels is None:
        return near
    centre = (clean.cpu().numpy().reshape(near.shape) + 1) * 127.5
    low, high = np.ceil(centre - levels - SLACK), np.floor(centre + levels + SLACK)
    return np.asarray(np.clip(near, low.clip(0, 255), high.clip(0, 255)), np.uint8)


def bound(levels: float) -> float:
    """Grey levels as eps on [-1, 1]."""
    return from_levels(levels)


def tensor_of(crops: Pixels) -> Tensor:
    """(B, 112, 112) uint8 to a (B, D) tensor in [-1, 1]."""
    return torch.from_numpy(faces_of(crops))


def png(picture: Pixels) -> str:
    """A (112, 112) uint8 picture as PNG in base64."""
    written, data = cv2.imencode(".png", picture)
    assert written  # only memory could keep it from it
    return base64.b64encode(data.tobytes()).decode("ascii")
