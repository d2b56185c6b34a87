"""Pictures without a face: photos with their heads covered, pieces of photos, textures and gradients."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from immunogate.structs import Floats, Pixels
from immunogate.training.detector.draws import chance
from immunogate.training.detector.labels import LabelledPhotos
from immunogate.training.detector.photometry import smooth_field

MARGIN = 0.15
"""Share of a face's side that pieces keep away from its box: hair and ears are no background."""

TRIES = 8


def background(material: LabelledPhotos, size: int, generator: np.random.Generator) -> Pixels:
    """A square (size, size) uint8 without a face, of one kind or, often, pieced together."""
    kind = generator.random()
    if kind < 0.5:
        return _headless(material, size, generator)
    if kind < 0.75:
        return _mosaic(material, size, generator)
    if kind < 0.92:
        return piece(material, size, generator)
    return texture(size, generator)


def piece(material: LabelledPhotos, size: int, generator: np.random.Generator) -> Pixels:
    """A square piece of a photo beside all its faces, scaled, mirrored and turned; a texture where none is found."""
    chosen = int(generator.integers(len(material)))
    photo, faces = material.photos[chosen], material.faces[chosen]
    margins = MARGIN * (faces.boxes[:, 2:] - faces.boxes[:, :2])
    boxes = np.concatenate([faces.boxes[:, :2] - margins, faces.boxes[:, 2:] + margins], axis=1)
    for _ in range(TRIES):
        side = int(generator.integers(24, 120))
        if side >= min(photo.shape):
            continue
        top, left = (int(generator.integers(0, length - side)) for length in photo.shape)
        apart = (boxes[:, 0] > left + side) | (boxes[:, 2] < left) | (boxes[:, 1] > top + side) | (boxes[:, 3] < top)
        if apart.all():
            cut = np.rot90(photo[top : top + side, left : left + side], int(generator.integers(4)))
            method = cv2.INTER_LINEAR if side < size else cv2.INTER_AREA
            return np.asarray(cv2.resize(np.ascontiguousarray(cut), (size, size), interpolation=method), np.uint8)
    return texture(size, generator)


def texture(size: int, generator: np.random.Generator) -> Pixels:
    """Noise of one or several scales between two greys, or stripes; sometimes a plain grey."""
    low, high = sorted(generator.uniform(0, 255, 2))
    if chance(generator, 0.25):
        values = _stripes(size, generator)
    else:
        values = np.zeros((size, size), np.float32)
        for _ in range(int(generator.integers(0, 4))):
            cells = int(2 ** generator.uniform(1, 6))
            values += smooth_field((size, size), cells, generator) * np.float32(generator.random())
        values /= max(float(values.max()), 1e-6)
    return np.asarray((low + (high - low) * values).clip(0, 255), np.uint8)


def _stripes(size: int, generator: np.random.Generator) -> Floats:
    angle, period = generator.uniform(0, np.pi), 2 ** generator.uniform(2, 7)
    row, column = np.mgrid[:size, :size].astype(np.float32)
    waves = np.sin((row * np.float32(np.sin(angle)) + column * np.float32(np.cos(angle))) * np.float32(6.28 / period))
    return np.asarray((waves > 0) if chance(generator, 0.5) else (waves + 1) / 2, np.float32)


def _headless(material: LabelledPhotos, size: int, generator: np.random.Generator) -> Pixels:
    """A photo whose faces, and all that may be one, lie under pieces and textures: clothes, hands, signs, crowds."""
    chosen = int(generator.integers(len(material)))
    photo, faces = material.photos[chosen].copy(), material.faces[chosen]
    for box in faces.boxes:
        wide, high = (box[2:] - box[:2]) * generator.uniform(0.52, 0.65, 2)
        x, y = (box[:2] + box[2:]) / 2
        left, right = (int(np.clip(at, 0, photo.shape[1])) for at in (x - wide, x + wide))
        top, bottom = (int(np.clip(at, 0, photo.shape[0])) for at in (y - high, y + high))
        side = max(right - left, bottom - top, 8)
        cover = piece(material, side, generator) if chance(generator, 0.7) else texture(side, generator)
        photo[top:bottom, left:right] = cover[: bottom - top, : right - left]
    side = int(min(photo.shape) * generator.uniform(0.4, 1))
    top, left = (int(generator.integers(0, length - side + 1)) for length in photo.shape)
    cut = photo[top : top + side, left : left + side]
    cut = np.ascontiguousarray(cut[:, ::-1] if chance(generator, 0.5) else cut)
    method = cv2.INTER_LINEAR if side < size else cv2.INTER_AREA
    return np.asarray(cv2.resize(cut, (size, size), interpolation=method), np.uint8)


def _mosaic(material: LabelledPhotos, size: int, generator: np.random.Generator) -> Pixels:
    """Four to sixteen pieces and textures in a grid with random lines."""
    count = int(generator.integers(2, 5))
    canvas = np.empty((size, size), np.uint8)
    rows, columns = (
        np.concatenate([[0], np.sort(generator.integers(8, size - 8, count - 1)), [size]]) for _ in range(2)
    )
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            side = max(bottom - top, right - left, 8)
            make = piece(material, side, generator) if chance(generator, 0.8) else texture(side, generator)
            canvas[top:bottom, left:right] = make[: bottom - top, : right - left]
    return canvas
