"""What light, lens, sensor and file format do to a grey picture."""

from __future__ import annotations

import cv2
import numpy as np

from immunogate.structs import Floats, Pixels
from immunogate.training.detector.draws import chance


def seen_by_a_camera(picture: Pixels, generator: np.random.Generator, strength: float = 1.0) -> Pixels:
    """A grey picture (H, W) uint8 as some camera would have delivered it: a new one of the same size.

    ``strength`` in [0, 1] says how often each fault comes.
    """
    values = picture.astype(np.float32)
    if chance(generator, 0.35 * strength):
        values *= _uneven_light(picture.shape, generator)
    if chance(generator, 0.7 * strength):
        values = _toned(values, generator)
    if chance(generator, 0.45 * strength):
        values = _blurred(values, generator)
    if chance(generator, 0.2 * strength):
        values = _coarse(values, generator)
    if chance(generator, 0.45 * strength):
        values += generator.standard_normal(values.shape, np.float32) * np.float32(generator.uniform(1, 14))
    result = values.clip(0, 255).astype(np.uint8)
    if chance(generator, 0.35 * strength):
        result = _through_jpeg(result, generator)
    return result


def smooth_field(shape: tuple[int, ...], cells: int, generator: np.random.Generator) -> Floats:
    """(H, W) in [0, 1]: random numbers on a coarse grid, smoothly joined."""
    grid = generator.random((cells, cells), np.float32)
    return np.asarray(cv2.resize(grid, shape[1::-1], interpolation=cv2.INTER_CUBIC), np.float32).clip(0, 1)


def _uneven_light(shape: tuple[int, ...], generator: np.random.Generator) -> Floats:
    darkest = np.float32(generator.uniform(0.25, 0.9))
    field = smooth_field(shape, int(generator.integers(2, 5)), generator)
    return np.asarray(darkest + (1 - darkest) * field, np.float32)


def _toned(values: Floats, generator: np.random.Generator) -> Floats:
    gamma = np.float32(np.exp(generator.normal(0, 0.35)))
    contrast, brightness = np.exp(generator.normal(-0.08, 0.25)), generator.normal(0, 18)
    table: Floats = (np.arange(256, dtype=np.float32) / 255) ** gamma * 255
    table = (table - 127.5) * np.float32(contrast) + np.float32(127.5 + brightness)
    return np.asarray(table[values.clip(0, 255).astype(np.uint8)], np.float32)


def _blurred(values: Floats, generator: np.random.Generator) -> Floats:
    if chance(generator, 0.7):
        return np.asarray(cv2.GaussianBlur(values, (0, 0), float(generator.uniform(0.4, 1.6))), np.float32)
    length = int(generator.integers(3, 8))
    kernel = np.zeros((length, length), np.float32)
    angle, middle = generator.uniform(0, np.pi), (length - 1) / 2
    along = np.linspace(-middle, middle, 4 * length)
    rows, columns = (np.round(middle + along * part).astype(int) for part in (np.sin(angle), np.cos(angle)))
    kernel[rows, columns] = 1
    return np.asarray(cv2.filter2D(values, -1, kernel / kernel.sum()), np.float32)


def _coarse(values: Floats, generator: np.random.Generator) -> Floats:
    """Shrunk and grown again, as a cheap zoom does it."""
    factor = generator.uniform(0.45, 0.9)
    small = tuple(max(1, round(side * factor)) for side in values.shape[1::-1])
    shrunk = cv2.resize(values, small, interpolation=cv2.INTER_AREA)
    method = cv2.INTER_NEAREST if chance(generator, 0.15) else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(shrunk, values.shape[1::-1], interpolation=method), np.float32)


def _through_jpeg(picture: Pixels, generator: np.random.Generator) -> Pixels:
    quality = int(generator.integers(20, 95))
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)
