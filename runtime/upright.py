"""A second, closer look at a face before it is recognised: is the head tilted?

YuNet saw few tilted heads in training: on a head tilted by 40 degrees its landmarks stay almost upright, the crop
comes out tilted, and to a recogniser all tilted crops are alike. Its confidence knows better: turned views of the
face are detected once more, and the landmarks of the most confident view are taken. On a clip of two people with
tilted heads the lowest similarity of the man with his enrolled self went from 0.09 to 0.56, the highest of the two
with each other from 0.91 to 0.34; upright photos keep the view that is not turned and neither gain nor lose more than
the noise of 434 pairs (`benchmarks/bench_alignment.py`).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from immunogate.runtime.align import similarity_to_template
from immunogate.runtime.detect import Detector
from immunogate.structs import CROP_SIZE, Floats, Pixels

ANGLES = (0, -30, 30)
"""Degrees by which views are turned; the first wins a tie."""

VIEW = 192
"""Side of a view in pixels; a face of 112 pixels becomes one of half of it."""

CENTRE = (56.0, 70.0)
"""Point of the crop, between nose and mouth, that views are turned about."""


def upright(detector: Detector, pixels: Pixels, landmarks: Floats) -> Floats:
    """Better landmarks of one face; the same where no view finds it again.

    Args:
        detector: that found the face.
        pixels: (H, W, 3) uint8 BGR.
        landmarks: (5, 2) float32 in pixels of the picture.

    Raises:
        ValueError: the landmarks coincide or are not finite.
    """
    to_crop = similarity_to_template(landmarks)
    best, confidence = landmarks, 0.0
    for angle in ANGLES:
        to_view = _view_matrix(to_crop, angle)
        view = cv2.warpAffine(pixels, to_view, (VIEW, VIEW), borderMode=cv2.BORDER_REPLICATE)
        faces = detector.detect(np.asarray(view, np.uint8))
        if len(faces) == 0:
            continue
        nearest = int(np.abs((faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 - VIEW / 2).sum(axis=1).argmin())
        if faces.scores[nearest] > confidence:
            confidence = float(faces.scores[nearest])
            back = cv2.invertAffineTransform(to_view)
            best = (faces.landmarks[nearest] @ back[:, :2].T + back[:, 2]).astype(np.float32)
    return best


def _view_matrix(to_crop: npt.NDArray[np.float64], angle: float) -> npt.NDArray[np.float64]:
    """(2, 3) from the picture to a view: to the crop, centred, scaled and turned."""
    scale = VIEW / 2 / CROP_SIZE
    cosine, sine = scale * np.cos(np.deg2rad(angle)), scale * np.sin(np.deg2rad(angle))
    turn = np.array([[cosine, -sine], [sine, cosine]])
    linear = turn @ to_crop[:, :2]
    shift = turn @ (to_crop[:, 2] - np.array(CENTRE)) + VIEW / 2
    return np.column_stack([linear, shift])
