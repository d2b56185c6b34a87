"""Finds faces and their five landmarks with YuNet.

Source: Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023. The
network has one grid of anchors for each of the strides 8, 16 and 32; each cell gives a class and an object score, a
box relative to the cell and five points.
"""

from __future__ import annotations

import cv2
import numpy as np

from immunogate.manifest import DETECTOR_STRIDES
from immunogate.runtime.profile.spans import span
from immunogate.runtime.runners.base import Array, Runner
from immunogate.runtime.track import overlap_of_boxes
from immunogate.structs import Faces, Floats, Pixels

MULTIPLE = 32
"""Sides of the network's input are multiples of its coarsest stride."""


class Detector:
    """YuNet behind a letterbox.

    Args:
        runner: the network; input (1, 3, H, W) float32 BGR 0..255.
        longest_side: larger frames are shrunk to this many pixels; smaller ones stay as they are.
        least_score: confidence below which a face is not reported, in [0, 1].
        overlap: faces that overlap a stronger one by more (intersection over union) are dropped.
        most: faces reported at the most, the strongest first.
        blend: box and landmarks of a face are the mean, weighted by confidence, over all cells whose box overlaps it
            by at least this much; 1 takes the strongest cell alone, as OpenCV's FaceDetectorYN does. Single cells
            jitter.
    """

    def __init__(
        self,
        runner: Runner,
        longest_side: int = 640,
        least_score: float = 0.6,
        overlap: float = 0.3,
        most: int = 64,
        blend: float = 0.5,
    ) -> None:
        self._runner = runner
        self._longest_side = longest_side
        self._least_score = least_score
        self._overlap = overlap
        self._most = most
        self._blend = blend

    def detect(self, pixels: Pixels) -> Faces:
        """The faces of a (H, W, 3) uint8 BGR picture, strongest first, in its own pixels."""
        size = (pixels.shape[0], pixels.shape[1])
        with span("letterbox"):
            planes = letterbox(pixels, self._scale(size))
        with span("network"):
            outputs = self._runner.run(planes)
        with span("decode"):
            return self.decode(outputs, size)

    def sizes(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of a picture of this height and width once it is shrunk, and once that is padded."""
        scale = self._scale(size)
        shrunk = (_shrunk(size[0], scale), _shrunk(size[1], scale)) if scale < 1 else size
        return shrunk, (_padded(shrunk[0]), _padded(shrunk[1]))

    def decode(self, outputs: dict[str, Array], size: tuple[int, int]) -> Faces:
        """The faces of a picture of this height and width, strongest first, from what the network said of it."""
        scale, (height, width) = self._scale(size), self.sizes(size)[1]
        found = [
            self._decode(outputs, stride, -(-height // stride), -(-width // stride)) for stride in DETECTOR_STRIDES
        ]
        boxes, landmarks, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        kept = self._suppress(boxes, scores)
        if not kept:
            return Faces.none()
        weights = np.where(overlap_of_boxes(boxes[kept], boxes) >= self._blend, scores, 0)
        weights[np.arange(len(kept)), kept] = scores[kept]  # a cell overlaps itself, rounding or not
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        corners, points = (weights @ boxes).reshape(-1, 2, 2), np.tensordot(weights, landmarks, axes=1)
        shrunk = [_shrunk(side, scale) / side for side in size[::-1]]
        return Faces(_enlarged(corners, shrunk).reshape(-1, 4), _enlarged(points, shrunk), scores[kept])

    def close(self) -> None:
        """There is nothing to give back; on a GPU there is."""

    def _scale(self, size: tuple[int, int]) -> float:
        return min(1.0, self._longest_side / max(size))

    def _decode(self, outputs: dict[str, Array], stride: int, rows: int, columns: int) -> tuple[Floats, Floats, Floats]:
        product = outputs[f"cls_{stride}"][0, :, 0].clip(0, 1) * outputs[f"obj_{stride}"][0, :, 0].clip(0, 1)
        scores = np.sqrt(product)
        cells = np.flatnonzero(scores >= self._least_score)
        corner = np.stack([cells % columns, cells // columns], axis=-1).astype(np.float32)
        box = outputs[f"bbox_{stride}"][0, cells]
        centre = (corner + box[:, :2]) * stride
        half = np.exp(box[:, 2:].clip(-10, 10)) * stride / 2
        points = (corner[:, None] + outputs[f"kps_{stride}"][0, cells].reshape(-1, 5, 2)) * stride
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        whole = np.isfinite(boxes).all(axis=1) & np.isfinite(points).all(axis=(1, 2))
        return boxes[whole], points[whole], scores[cells][whole]

    def _suppress(self, boxes: Floats, scores: Floats) -> list[int]:
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        kept = cv2.dnn.NMSBoxes(sides.tolist(), scores.tolist(), self._least_score, self._overlap)
        return [int(i) for i in np.asarray(kept).ravel()[: self._most]]


def letterbox(pixels: Pixels, scale: float) -> Floats:
    """Shrink by ``scale`` and pad right and below with black to a multiple of 32: (1, 3, H, W) float32 BGR 0..255."""
    if scale < 1:
        height, width = (_shrunk(side, scale) for side in pixels.shape[:2])
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    height, width = pixels.shape[:2]
    planes = np.zeros((1, 3, _padded(height), _padded(width)), np.float32)
    planes[0, :, :height, :width] = pixels.transpose(2, 0, 1)
    return planes


def _shrunk(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def _padded(side: int) -> int:
    return -(-side // MULTIPLE) * MULTIPLE


def _enlarged(points: Floats, shrunk: list[float]) -> Floats:
    """(..., 2) x and y in a shrunk picture as x and y in the picture itself; pixel centres are whole numbers."""
    scale = np.array(shrunk, np.float32)
    return np.asarray((points + np.float32(0.5)) / scale - np.float32(0.5), np.float32)
