"""Turns a face into the 112x112 crop that purifier and recogniser were trained on."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from immunogate.structs import CROP_SIZE, Floats, Pixels

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
"""(5, 2) where the landmarks of a frontal face lie in the crop; source: ArcFace, Deng et al., CVPR 2019."""

MOST_SHRINK = 8
GLANCE = 14
"""Side of a thumbnail in pixels."""


@dataclass(frozen=True)
class Quality:
    """What can be said of a face without recognising it.

    Attributes:
        eye_distance: pixels of the frame between the eyes.
        yaw: how far the nose lies off the middle between the eyes, in eye distances; 0 is frontal, about 0.5 a profile.
        sharpness: variance of the Laplacian of the grey crop, in squared grey levels of 0..255.
    """

    eye_distance: float
    yaw: float
    sharpness: float


def similarity_to_template(landmarks: Floats) -> npt.NDArray[np.float64]:
    """The (2, 3) matrix of the similarity that brings (5, 2) landmarks nearest to the template in least squares.

    Points are read as complex numbers; a similarity without reflection is z -> a z + b, and the best a is the
    quotient of two inner products (the closed form of Umeyama, PAMI 1991, in the plane).

    Raises:
        ValueError: the landmarks coincide or are not finite.
    """
    wanted = "landmarks: expected five finite points that do not coincide"
    if not np.isfinite(landmarks).all():
        raise ValueError(wanted)
    source = landmarks[:, 0].astype(np.float64) + 1j * landmarks[:, 1]
    target = TEMPLATE[:, 0].astype(np.float64) + 1j * TEMPLATE[:, 1]
    centred = source - source.mean()
    spread = np.vdot(centred, centred).real
    if spread < 1e-6:
        raise ValueError(wanted)
    a = np.vdot(centred, target - target.mean()) / spread
    if abs(a) < 1e-30:  # so far apart, or so unlike a face, that no crop has a size
        raise ValueError(wanted)
    b = target.mean() - a * source.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def similarity_to_large_crop(landmarks: Floats) -> tuple[npt.NDArray[np.float64], int]:
    """The (2, 3) matrix from a picture to a crop that is a whole number of times as large as needed, and that number.

    Raises:
        ValueError: as `similarity_to_template`.
    """
    matrix = similarity_to_template(landmarks)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    shrink = int(np.clip(1 / scale, 1, MOST_SHRINK))
    # Pixel centres are whole numbers: growing the crop by s maps u to s u + (s - 1) / 2.
    matrix = matrix * shrink
    matrix[:, 2] += (shrink - 1) / 2
    return matrix, shrink


def align(pixels: Pixels, landmarks: Floats) -> Pixels:
    """The 112x112 uint8 grey crop of one face.

    Where the face is more than twice as large as the crop, a larger crop is warped and then averaged down, so that
    fine texture does not alias.

    Args:
        pixels: (H, W, 3) uint8 BGR.
        landmarks: (5, 2) float32 in pixels of the picture.

    Raises:
        ValueError: as `similarity_to_template`.
    """
    matrix, shrink = similarity_to_large_crop(landmarks)
    size = CROP_SIZE * shrink
    crop = cv2.cvtColor(cv2.warpAffine(pixels, matrix, (size, size), flags=cv2.INTER_LINEAR), cv2.COLOR_BGR2GRAY)
    if shrink > 1:
        crop = cv2.resize(crop, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(crop, np.uint8)


def as_picture(face: Floats) -> Pixels:
    """(12544,) in [-1, 1] to a (112, 112) uint8 grey picture; what lies outside is clipped."""
    levels = np.rint((face.reshape(CROP_SIZE, CROP_SIZE) + 1) * 127.5)
    picture: Pixels = levels.clip(0, 255).astype(np.uint8)
    return picture


def thumbnail(crop: Pixels, mean: Floats) -> Floats:
    """What a face looks like at a glance: (196,) float32 of unit length, for telling two faces apart cheaply.

    The crop less the mean face, at 14x14: without the mean all aligned faces look alike.

    Args:
        crop: (112, 112) uint8 grey.
        mean: (12544,) float32 mean face in [-1, 1].
    """
    difference = crop.astype(np.float32) - (mean.reshape(CROP_SIZE, CROP_SIZE) + 1) * np.float32(127.5)
    small = cv2.resize(difference, (GLANCE, GLANCE), interpolation=cv2.INTER_AREA).ravel()
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6), np.float32)


def quality(landmarks: Floats, crop: Pixels) -> Quality:
    """Quality of a face from its (5, 2) landmarks and its crop."""
    left, right, nose = landmarks[:3].astype(np.float64)
    across = right - left
    distance = float(np.hypot(*across))
    along = float(np.dot(nose - (left + right) / 2, across)) / max(distance**2, 1e-6)
    return Quality(distance, abs(along), float(cv2.Laplacian(crop, cv2.CV_64F).var()))
