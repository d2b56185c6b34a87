"""Copies of aligned faces as the next frame might show them: a little turned, moved, scaled, lit and noisy.

Photos are no video. A limit for the disagreement of consecutive frames that was measured on such copies covers what
landmarks, sensor and light vary by from one frame to the next, and not what a turning head does.
"""

from __future__ import annotations

import numpy as np

from immunogate.structs import CROP_SIZE, Pixels

TURN, SCALE, SHIFT = 2.5, 0.025, 1.2
"""Standard deviations: degrees, natural logarithm of the scale, pixels in x and y."""

GAIN, OFFSET, NOISE = 0.08, 6.0, 2.0
"""Standard deviations: natural logarithm of the contrast, grey levels of the brightness, and of each pixel."""


def jittered(images: Pixels, seed: int = 0) -> Pixels:
    """(N, 112, 112) uint8 grey faces, each changed in its own way, drawn with the seed; bilinear, edges continued.

    A face's draws depend on the seed and its place among the faces alone.
    """
    return np.stack([_moved(image, np.random.default_rng((seed, row))) for row, image in enumerate(images)])


def _moved(image: Pixels, draw: np.random.Generator) -> Pixels:
    turn, scale, right, down, gain, offset = draw.normal(size=6)
    angle, factor = np.radians(TURN * turn), np.exp(SCALE * scale)
    middle = (CROP_SIZE - 1) / 2
    y, x = np.mgrid[:CROP_SIZE, :CROP_SIZE] - middle
    across = factor * (np.cos(angle) * x - np.sin(angle) * y) + middle + SHIFT * right
    along = factor * (np.sin(angle) * x + np.cos(angle) * y) + middle + SHIFT * down
    across, along = across.clip(0, CROP_SIZE - 1), along.clip(0, CROP_SIZE - 1)
    left, top = across.astype(np.intp).clip(0, CROP_SIZE - 2), along.astype(np.intp).clip(0, CROP_SIZE - 2)
    u, v = across - left, along - top
    grey = image.astype(np.float64)
    upper = grey[top, left] * (1 - u) + grey[top, left + 1] * u
    lower = grey[top + 1, left] * (1 - u) + grey[top + 1, left + 1] * u
    seen = upper * (1 - v) + lower * v
    lit = (seen - seen.mean()) * np.exp(GAIN * gain) + seen.mean() + OFFSET * offset
    noisy = lit + draw.normal(scale=NOISE, size=lit.shape)
    picture: Pixels = np.rint(noisy).clip(0, 255).astype(np.uint8)
    return picture
