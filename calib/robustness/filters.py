"""Simple defences to compare with: JPEG, blur and fewer grey levels, as pictures and with a gradient.

Going forward the torch forms give exactly what the picture forms give. Backward the gradient goes straight through
what is rounded (Athalye, Carlini, Wagner, ICML 2018); the blur, which is linear, has its own.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader knows
from torch import Tensor

from immunogate.calib.robustness.pixels import crops_of, faces_of
from immunogate.networks.relaxed import with_gradient
from immunogate.structs import CROP_SIZE, Pixels

JPEG_QUALITY = 75
BLUR_SIGMA, BLUR_SIDE = 1.0, 7
KEPT_BITS = 4

PictureFilter = Callable[[Pixels], Pixels]
"""(B, 112, 112) uint8 to the same."""


def jpeg(crops: Pixels) -> Pixels:
    """Written as JPEG of quality 75 and read again."""
    return np.stack([_through_jpeg(crop) for crop in crops])


def blur(crops: Pixels) -> Pixels:
    """A Gaussian blur of one pixel, rounded to whole grey levels."""
    return np.stack([cv2.GaussianBlur(crop, (BLUR_SIDE, BLUR_SIDE), BLUR_SIGMA) for crop in crops]).astype(np.uint8)


def bits(crops: Pixels) -> Pixels:
    """The upper 4 of 8 bits, spread over the whole range."""
    most = (1 << KEPT_BITS) - 1
    return np.rint(np.rint(crops.astype(np.float32) / 255 * most) / most * 255).astype(np.uint8)


FILTERS: dict[str, tuple[str, PictureFilter]] = {
    "jpeg": (f"JPEG, quality {JPEG_QUALITY}", jpeg),
    "blur": (f"Gaussian blur, sigma {BLUR_SIGMA:g} pixel", blur),
    "bits": (f"{KEPT_BITS} bits a pixel", bits),
}


def filtered(key: str, points: Tensor) -> Tensor:
    """(b, D) faces in [-1, 1] through a filter, with a gradient."""
    pictures = FILTERS[key][1](crops_of(points.detach()))
    exact = torch.from_numpy(faces_of(pictures)).to(points)
    return with_gradient(exact, _blurred(points) if key == "blur" else points)


def _blurred(points: Tensor) -> Tensor:
    line = torch.from_numpy(cv2.getGaussianKernel(BLUR_SIDE, BLUR_SIGMA)).to(points).flatten()
    planes = points.reshape(-1, 1, CROP_SIZE, CROP_SIZE)
    padded = F.pad(planes, [BLUR_SIDE // 2] * 4, mode="reflect")
    return F.conv2d(padded, (line[:, None] * line[None])[None, None]).reshape(points.shape)


def _through_jpeg(crop: Pixels) -> Pixels:
    written, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert written  # only memory could keep it from it
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)
