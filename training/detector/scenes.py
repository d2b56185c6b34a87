"""Scenes to learn from: backgrounds, photos laid over them, things before the faces, and a camera that sees it all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from immunogate.structs import Floats, Pixels
from immunogate.training.detector.backgrounds import background, piece, texture
from immunogate.training.detector.draws import chance
from immunogate.training.detector.geometry import sizes
from immunogate.training.detector.labels import LabelledPhotos
from immunogate.training.detector.layers import Layer, Place, lay
from immunogate.training.detector.photometry import seen_by_a_camera
from immunogate.training.detector.settings import DetectorSettings

WHOLE, PARTLY = 0.78, 0.25
"""Visible share of a box from which a face is a face, and up to which it is none; between it is neither."""

EMPTY, SINGLE = 0.06, 0.3
"""Shares of scenes without a face and with one photo; the others have several."""

MOST_LAYERS = 8

LARGE = 0.25
"""Side of the smallest face that has a scene to itself, as a share of the largest: what is near should be seen often,
since its parts look like small faces.
"""


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and what is in it.

    Attributes:
        picture: (S, S) uint8, grey.
        boxes: (n, 4) float32, the faces.
        points: (n, 5, 2) float32.
        ignored: (m, 4) float32, where neither a face nor its absence is to be learned.
    """

    picture: Pixels
    boxes: Floats
    points: Floats
    ignored: Floats


@dataclass(eq=False)
class _Canvas:
    picture: Floats
    boxes: Floats
    points: Floats
    visible: Floats
    sure: npt.NDArray[np.bool_]


def scene(
    material: LabelledPhotos,
    size: int,
    settings: DetectorSettings,
    generator: np.random.Generator,
    strength: float = 1.0,
) -> Scene:
    """One scene with all its faces.

    Args:
        material: photos and faces; at least one is sure.
        size: S, side of the scene in pixels.
        settings: sizes of faces.
        generator: of all draws.
        strength: how often faces are tilted, turned, hidden and spoilt, in [0, 1]; the less often, the more often
            there is but one.
    """
    canvas = _Canvas(
        background(material, size, generator).astype(np.float32),
        np.zeros((0, 4), np.float32),
        np.zeros((0, 5, 2), np.float32),
        np.zeros(0, np.float32),
        np.zeros(0, np.bool_),
    )
    kind = generator.random()
    if kind >= EMPTY:
        single = kind < EMPTY + SINGLE + (1 - strength) * SINGLE
        largest = min(settings.largest_face, size if single else 0.6 * size)
        small = settings.least_face * (2.5 if chance(generator, 0.7) else 1)
        least = max(small, LARGE * largest) if single else small
        for _ in range(1 if single else int(generator.integers(3, MOST_LAYERS + 1))):
            place = _free_place(canvas, size, (least, largest), generator)
            if place is not None:
                _put(canvas, lay(material, size, place, 0.25 if single else 0.45, generator, strength))
    if len(canvas.boxes) and chance(generator, 0.3 * strength):
        _hide_a_part(canvas, material, generator)
    return _finished(canvas, settings, generator, strength)


def _free_place(
    canvas: _Canvas, size: int, limits: tuple[float, float], generator: np.random.Generator
) -> Place | None:
    """A place beside the faces that are there; None where a few tries found none."""
    for _ in range(4):
        side = float(np.exp(generator.uniform(*np.log(limits))))
        margin = min(0.5 * side, 0.5 * size) if chance(generator, 0.85) else 0.0
        x, y = generator.uniform(margin, size - margin, 2)
        reach = 0.65 * side
        apart = (
            (canvas.boxes[:, 0] > x + reach)
            | (canvas.boxes[:, 2] < x - reach)
            | (canvas.boxes[:, 1] > y + reach)
            | (canvas.boxes[:, 3] < y - reach)
        )
        if apart.all():
            return Place(float(x), float(y), side)
    return None


def _put(canvas: _Canvas, layer: Layer) -> None:
    canvas.picture += (layer.picture - canvas.picture) * layer.mask
    covered = np.array([_mean_in(layer.mask, box, canvas.picture.shape[0]) for box in canvas.boxes], np.float32)
    shown = np.array([_shown(layer.mask, box) for box in layer.boxes], np.float32)
    canvas.visible = np.concatenate([canvas.visible * (1 - covered), shown])
    canvas.boxes = np.concatenate([canvas.boxes, layer.boxes])
    canvas.points = np.concatenate([canvas.points, layer.points])
    canvas.sure = np.concatenate([canvas.sure, layer.sure])


def _inside(box: Floats, size: int) -> tuple[int, int, int, int]:
    left, top = (max(0, round(float(value))) for value in box[:2])
    right, bottom = (min(size, round(float(value)) + 1) for value in box[2:])
    return left, top, right, bottom


def _mean_in(mask: Floats, box: Floats, size: int) -> float:
    left, top, right, bottom = _inside(box, size)
    return float(mask[top:bottom, left:right].mean()) if right > left and bottom > top else 0.0


def _shown(mask: Floats, box: Floats) -> float:
    """Share of a box that the layer shows; what lies outside of the scene is not shown."""
    left, top, right, bottom = _inside(box, mask.shape[0])
    if right <= left or bottom <= top:
        return 0.0
    area = float(np.maximum(box[2:] - box[:2] + 1, 1).prod())
    return float(mask[top:bottom, left:right].sum()) / area


def _hide_a_part(canvas: _Canvas, material: LabelledPhotos, generator: np.random.Generator) -> None:
    """A bar before one face: glasses, a hand, a scarf; at most a third of it."""
    box = canvas.boxes[int(generator.integers(len(canvas.boxes)))]
    width, height = box[2:] - box[:2]
    wide, high = generator.uniform(0.3, 1.2) * width, generator.uniform(0.06, 0.28) * height
    if chance(generator, 0.25):
        wide, high = high, wide
    x, y = (generator.uniform(box[axis], box[axis + 2]) for axis in (0, 1))
    size = canvas.picture.shape[0]
    bar = np.array([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], np.float32)
    left, top, right, bottom = _inside(bar, size)
    if right <= left or bottom <= top:
        return
    side = max(right - left, bottom - top)
    fill = piece(material, side, generator) if chance(generator, 0.5) else texture(side, generator)
    canvas.picture[top:bottom, left:right] = fill[: bottom - top, : right - left]


def _finished(canvas: _Canvas, settings: DetectorSettings, generator: np.random.Generator, strength: float) -> Scene:
    large = sizes(canvas.boxes) >= settings.least_face
    faces = canvas.sure & large & (canvas.visible >= WHOLE)
    ignored = ~faces & (canvas.visible > PARTLY)
    picture = canvas.picture.clip(0, 255).astype(np.uint8)
    if chance(generator, 0.12):
        _pad(picture, canvas.boxes[faces], generator)
    return Scene(
        seen_by_a_camera(picture, generator, strength), canvas.boxes[faces], canvas.points[faces], canvas.boxes[ignored]
    )


def _pad(picture: Pixels, faces: Floats, generator: np.random.Generator) -> None:
    """Black right and below, as a letterbox gives it, where that hides no face."""
    size = picture.shape[0]
    needed = [min(size, max([0.6 * size, *faces[:, axis]])) for axis in (2, 3)]
    right, bottom = (int(np.ceil(generator.uniform(low, size))) for low in needed)
    picture[:, right:] = 0
    picture[bottom:] = 0
