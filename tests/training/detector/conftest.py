"""Synthetic photos: a bright oval with two dark eyes stands for a face, so that labels can be held against pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from immunogate.training.detector.labels import LabelledPhotos, PhotoFaces

SIDE, FACE = 120, (40.0, 30.0, 80.0, 82.0)
POINTS = ((50, 48), (70, 48), (60, 58), (52, 68), (68, 68))


def drawn_photo(seed: int = 0, left: int = 0, down: int = 0) -> Any:
    """(120, 120) grey 60 with a face of 220 whose eyes are 10; moved by some pixels."""
    photo = np.full((SIDE, SIDE), 60, np.uint8)
    middle = (60 + left, 56 + down)
    cv2.ellipse(photo, middle, (20, 26), 0, 0, 360, 220, -1)
    for x, y in POINTS[:2]:
        cv2.circle(photo, (x + left, y + down), 3, 10, -1)
    noise = np.random.default_rng(seed).integers(0, 8, photo.shape)
    return (photo + noise).astype(np.uint8)


def faces_of_it(left: int = 0, down: int = 0, sure: bool = True) -> PhotoFaces:
    """The label of `drawn_photo`."""
    from immunogate.training.detector.geometry import mirrored_points

    shift = np.array([left, down], np.float32)
    points = np.array(POINTS, np.float32) + shift
    box = np.array(FACE, np.float32) + np.tile(shift, 2)
    return PhotoFaces(box[None], np.stack([points, mirrored_points(points, SIDE)])[None], np.array([sure]))


@pytest.fixture(scope="session")
def material() -> LabelledPhotos:
    moves = [(0, 0), (-20, 10), (15, -4), (8, 20)]
    return LabelledPhotos([drawn_photo(i, *move) for i, move in enumerate(moves)], [faces_of_it(*m) for m in moves])
