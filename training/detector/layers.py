"""One photo as a layer of a scene: its head turned, the whole scaled, sheared and rotated, its faces along with it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from immunogate.structs import Floats, Pixels
from immunogate.training.detector.draws import chance
from immunogate.training.detector.geometry import Matrix, mirrored_boxes, moved_boxes, moved_points, sizes
from immunogate.training.detector.labels import LabelledPhotos

REACH = 0.42
"""How far from the middle of a face its features still move with a turn of the head, in sides of its box."""

LARGEST_TURN = 0.22
"""Shift of the features by a turn, in sides; beyond REACH / 0.61 the picture would fold over itself."""

LARGEST_TILT = 40.0
"""Degrees."""

LARGEST_FIRST = 0.5
"""How often the chosen face is the photo's largest; otherwise it is any. Those in the background are of other kinds:
turned, blurred, half hidden."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A photo laid into a scene of (S, S) pixels.

    Attributes:
        picture: (S, S) uint8.
        mask: (S, S) float32 in [0, 1], how much of the scene it covers.
        boxes: (n, 4) float32 in the scene.
        points: (n, 5, 2) float32 in the scene.
        sure: (n,) bool.
    """

    picture: Pixels
    mask: Floats
    boxes: Floats
    points: Floats
    sure: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Place:
    """Where the layer's chosen face comes to lie: x and y of its middle and the side of its box, in pixels."""

    x: float
    y: float
    side: float


@dataclass(eq=False)
class _Sheet:
    """A photo on its way into a layer, with its faces."""

    photo: Pixels
    boxes: Floats
    points: Floats
    sure: npt.NDArray[np.bool_]
    main: int


def lay(
    material: LabelledPhotos,
    size: int,
    place: Place,
    heads_only: float,
    generator: np.random.Generator,
    strength: float = 1.0,
) -> Layer:
    """A random photo with a sure face, that face at this place.

    Args:
        material: photos and faces; at least one is sure.
        size: S.
        place: of the face.
        heads_only: how often only the head is cut out, in [0, 1].
        generator: of all draws.
        strength: how often heads are turned and tilted, in [0, 1].
    """
    sheet = _chosen(material, generator)
    if chance(generator, 0.4 * strength):
        _turn_head(sheet, generator)
    matrix = _placing(sheet.boxes[sheet.main], place, generator, strength)
    covering = _head(sheet, generator) if chance(generator, heads_only) else _whole(sheet, generator)
    picture, mask = _warped(sheet.photo, matrix, size), _warped(covering, matrix, size)
    boxes, points = moved_boxes(sheet.boxes, matrix), moved_points(sheet.points, matrix)
    return Layer(picture, mask.astype(np.float32) / np.float32(255), boxes, points, sheet.sure)


def _chosen(material: LabelledPhotos, generator: np.random.Generator) -> _Sheet:
    while True:
        chosen = int(generator.integers(len(material)))
        photo, faces = material.photos[chosen], material.faces[chosen]
        if faces.sure.any():
            break
    largest = int(np.where(faces.sure, sizes(faces.boxes), 0).argmax())
    main = largest if chance(generator, LARGEST_FIRST) else int(generator.choice(np.flatnonzero(faces.sure)))
    if chance(generator, 0.5):
        boxes = mirrored_boxes(faces.boxes, photo.shape[1])
        return _Sheet(np.ascontiguousarray(photo[:, ::-1]), boxes, faces.landmarks[:, 1], faces.sure, main)
    return _Sheet(photo, faces.boxes, faces.landmarks[:, 0], faces.sure, main)


def _turn_head(sheet: _Sheet, generator: np.random.Generator) -> None:
    """Move the features over the head as a turn of it would, by a bump that fades out at its rim."""
    box = sheet.boxes[sheet.main]
    middle, side = (box[:2] + box[2:]) / 2, float(sizes(box[None])[0])
    shift = (generator.uniform(-1, 1, 2) * (LARGEST_TURN * side)).astype(np.float32)
    width_of_bump = np.float32(2 * (REACH * side) ** 2)

    def forward(points: Floats) -> Floats:
        moved = points
        for _ in range(6):  # a contraction by 0.61 * LARGEST_TURN / REACH at the most
            away = ((moved - middle) ** 2).sum(axis=-1, keepdims=True)
            moved = points + shift * np.exp(-away / width_of_bump)
        return moved

    height, width = sheet.photo.shape
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    fades = [
        np.exp(-((line - at) ** 2) / width_of_bump) for line, at in zip((rows, columns), middle[::-1], strict=True)
    ]
    bump = np.outer(*fades)
    across, down = columns[None] - shift[0] * bump, rows[:, None] - shift[1] * bump
    turned = cv2.remap(sheet.photo, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    sheet.photo = np.asarray(turned, np.uint8)
    centres = (sheet.boxes[:, :2] + sheet.boxes[:, 2:]) / 2
    ends = [np.stack([sheet.boxes[:, side], centres[:, 1]], axis=1) for side in (0, 2)]
    ends += [np.stack([centres[:, 0], sheet.boxes[:, side]], axis=1) for side in (1, 3)]
    moved = forward(np.concatenate([sheet.points, np.stack(ends, axis=1)], axis=1))
    sheet.points = moved[:, :5]
    sheet.boxes = np.stack([moved[:, 5, 0], moved[:, 7, 1], moved[:, 6, 0], moved[:, 8, 1]], axis=1)


def _placing(box: Floats, place: Place, generator: np.random.Generator, strength: float) -> Matrix:
    """Scale the box to the side wanted, stretch, shear and rotate about its middle, and move that to its place."""
    tilted = chance(generator, 0.3 * strength)
    degrees = generator.uniform(-LARGEST_TILT, LARGEST_TILT) if tilted else generator.normal(0, 7)
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    stretch = float(np.exp(generator.normal(0, 0.08)))
    scale = place.side / float(sizes(box[None])[0])
    shear = np.array([[stretch, generator.normal(0, 0.05)], [0, 1 / stretch]])
    linear = scale * np.array([[cosine, -sine], [sine, cosine]]) @ shear
    middle = (box[:2] + box[2:]).astype(np.float64) / 2
    return np.column_stack([linear, np.array([place.x, place.y]) - linear @ middle])


def _whole(sheet: _Sheet, generator: np.random.Generator) -> Pixels:
    """A mask of the whole photo, sometimes with soft sides."""
    mask = np.full(sheet.photo.shape, 255, np.uint8)
    if chance(generator, 0.35):
        rim = int(generator.integers(2, 24))
        mask[:rim], mask[-rim:], mask[:, :rim], mask[:, -rim:] = 0, 0, 0, 0
        mask = np.asarray(cv2.blur(mask, (rim, rim)), np.uint8)
    return mask


def _head(sheet: _Sheet, generator: np.random.Generator) -> Pixels:
    """A mask of the chosen face with more or less hair and shoulders."""
    box = sheet.boxes[sheet.main]
    wide, high = (box[2:] - box[:2]) / 2 * generator.uniform(1.25, 2.0, 2)
    x, y = (box[:2] + box[2:]) / 2
    axes, middle = (max(1, int(wide)), max(1, int(high))), (int(x), int(y - 0.1 * high))
    mask = np.zeros(sheet.photo.shape, np.uint8)
    cv2.ellipse(mask, middle, axes, 0, 0, 360, 255, -1)
    blur = int(generator.integers(1, 16))
    return np.asarray(cv2.blur(mask, (blur, blur)), np.uint8)


def _warped(picture: Pixels, matrix: Matrix, size: int) -> Pixels:
    """The picture in the scene, black around; averaged first where it shrinks much, so that nothing aliases."""
    scale, full = float(np.sqrt(abs(np.linalg.det(matrix[:, :2])))), picture.shape
    while scale < 0.6 and min(picture.shape) >= 16:
        halved = (picture.shape[1] // 2, picture.shape[0] // 2)
        picture = np.asarray(cv2.resize(picture, halved, interpolation=cv2.INTER_AREA), np.uint8)
        scale *= 2
    factor = np.array([full[1] / picture.shape[1], full[0] / picture.shape[0]])
    shrunk = np.column_stack([matrix[:, :2] * factor, matrix[:, 2] + matrix[:, :2] @ (factor - 1) / 2])
    return np.asarray(cv2.warpAffine(picture, shrunk, (size, size), flags=cv2.INTER_LINEAR), np.uint8)
