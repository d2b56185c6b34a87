"""What the teacher sees in the photos that the detector learns from.

One look of a small detector is noisy: moved by a few pixels, the same photo gives points that lie 5 % of the distance
between the eyes elsewhere. So the teacher looks at every photo and at its mirror image in several sizes and places;
a label is the median of what it saw, and what it saw too seldom or too faintly is neither a face nor none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from immunogate.errors import InputError
from immunogate.files import write_whole
from immunogate.npz import read_npz
from immunogate.structs import Faces, Floats, Pixels, expect_dtype, expect_shape
from immunogate.training.detector.geometry import mirrored_points, overlap

Look = Callable[[Pixels], Faces]
"""A detector: (H, W, 3) uint8 BGR to faces, those of little confidence too."""

VIEWS = ((1.0, 0, 0), (1.0, 11, 7), (0.85, 4, 4), (0.7, 7, 9), (1.4, 0, 0), (2.0, 3, 5))
"""Scale, and pixels by which the scaled photo is moved right and down."""

FULL_SIZE = 1.0
"""Views of at least this scale must agree on a face; a small face may be lost in smaller ones."""

SURE = 0.6
"""Confidence of a face."""

AGREEING = 0.5
"""Share of the views that must be sure."""

SAME = 0.4
"""Intersection over union above which two looks saw the same face."""

METHOD = f"{VIEWS} {FULL_SIZE} {SURE} {AGREEING} {SAME}"
"""Names this way of labelling: labels that were made in another way are of no use."""

_KEYS = ("counts", "boxes", "landmarks", "sure")
_LARGEST = 1 << 30


@dataclass(frozen=True, eq=False)
class PhotoFaces:
    """The n faces of one photo.

    Attributes:
        boxes: (n, 4) float32, left, top, right, bottom in pixels of the photo.
        landmarks: (n, 2, 5, 2) float32, five points as in `Faces`; first of the photo, then of its mirror image in
            coordinates of that, since a detector is not symmetrical.
        sure: (n,) bool; the others are not counted as faces and not as anything else.
    """

    boxes: Floats
    landmarks: Floats
    sure: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        expect_shape("PhotoFaces.sure", self.sure, (None,))
        expect_shape("PhotoFaces.boxes", self.boxes, (len(self.sure), 4))
        expect_shape("PhotoFaces.landmarks", self.landmarks, (len(self.sure), 2, 5, 2))

    def __len__(self) -> int:
        return len(self.sure)


@dataclass(frozen=True, eq=False)
class LabelledPhotos:
    """Grey photos (H, W) uint8 and the faces in them; at least one photo.

    Raises:
        ValueError: a photo is of another shape or dtype, or photos and faces are not equally many.
    """

    photos: Sequence[Pixels]
    faces: Sequence[PhotoFaces]

    def __post_init__(self) -> None:
        if not self.photos or len(self.photos) != len(self.faces):
            raise ValueError(f"expected as many faces as photos, got {len(self.faces)} for {len(self.photos)}")
        for photo in self.photos:
            expect_shape("photo", photo, (None, None))
            expect_dtype("photo", photo, np.uint8)

    def __len__(self) -> int:
        return len(self.photos)


def label_photo(photo: Pixels, look: Look) -> PhotoFaces:
    """The faces of a grey photo (H, W) uint8 as the teacher sees them in all views."""
    seen = [_seen(photo, look, view, mirrored) for mirrored in (False, True) for view in VIEWS]
    boxes, points, scores = (np.concatenate([getattr(faces, key) for faces in seen]) for key in
                             ("boxes", "landmarks", "scores"))  # fmt: skip
    looks = np.repeat(np.arange(len(seen)), [len(faces) for faces in seen])
    found = []
    left = np.ones(len(scores), np.bool_)
    while left.any():
        strongest = int(np.where(left, scores, -1).argmax())
        group = left & (overlap(boxes[strongest : strongest + 1], boxes)[0] > SAME)
        group[strongest] = True
        left &= ~group
        found.append(_agreed(boxes[group], points[group], scores[group], looks[group], photo.shape[1]))
    if not found:
        return PhotoFaces(np.zeros((0, 4), np.float32), np.zeros((0, 2, 5, 2), np.float32), np.zeros(0, np.bool_))
    return PhotoFaces(*(np.stack(parts) for parts in zip(*found, strict=True)))


def _seen(photo: Pixels, look: Look, view: tuple[float, int, int], mirrored: bool) -> Faces:
    """The faces of one view; boxes in the photo, points in the photo or, if mirrored, in its mirror image."""
    scale, right, down = view
    height, width = (round(side * scale) for side in photo.shape)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(photo[:, ::-1] if mirrored else photo, (width, height), interpolation=method)
    moved = np.zeros((height + down, width + right), np.uint8)
    moved[down:, right:] = scaled
    faces = look(np.repeat(moved[:, :, None], 3, axis=2))
    factor = np.array([width / photo.shape[1], height / photo.shape[0]], np.float32)
    shift = np.array([right, down], np.float32)
    corners, points = (
        ((values - shift + np.float32(0.5)) / factor - np.float32(0.5)).astype(np.float32)
        for values in (faces.boxes.reshape(-1, 2, 2), faces.landmarks)
    )
    if mirrored:
        corners[:, :, 0] = photo.shape[1] - 1 - corners[:, ::-1, 0]
    return Faces(corners.reshape(-1, 4), points, faces.scores)


def _agreed(
    boxes: Floats, points: Floats, scores: Floats, looks: npt.NDArray[np.intp], width: int
) -> tuple[Floats, Floats, np.bool_]:
    """One face of several looks: box, points of both sides, sure."""
    counted = [look for look in range(2 * len(VIEWS)) if VIEWS[look % len(VIEWS)][0] >= FULL_SIZE]
    sure_in = np.unique(looks[scores >= SURE])
    sure = np.isin(counted, sure_in).mean() >= AGREEING
    direct = looks < len(VIEWS)
    sides = [np.median(points[side], axis=0) if side.any() else None for side in (direct, ~direct)]
    first, second = sides
    if first is None:
        assert second is not None  # a face comes from one side or the other
        first = mirrored_points(second, width)
    if second is None:
        second = mirrored_points(first, width)
    return np.median(boxes, axis=0), np.stack([first, second]).astype(np.float32), np.bool_(sure)


def save_labels(path: Path, faces: Sequence[PhotoFaces]) -> None:
    """Write the faces of many photos, in their order, as an ``.npz``.

    Raises:
        UsageError: the file can not be written.
    """
    arrays = {
        "counts": np.array([len(one) for one in faces], np.int64),
        "boxes": np.concatenate([one.boxes for one in faces]),
        "landmarks": np.concatenate([one.landmarks for one in faces]),
        "sure": np.concatenate([one.sure for one in faces]),
    }

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]  # NumPy's stubs mistake the names

    write_whole(path, write)


def load_labels(path: Path, photos: int) -> list[PhotoFaces]:
    """What `save_labels` wrote of this many photos.

    Raises:
        OSError: the file is not there or can not be read.
        InputError: it is no such file, or of other photos.
    """
    with path.open("rb") as stream:
        arrays = read_npz(stream, str(path), _KEYS, limit=_LARGEST)
    counts = arrays["counts"]
    if counts.shape != (photos,) or counts.sum() != len(arrays["sure"]):
        raise InputError(f"{path}: expected labels of {photos} photos, got {counts.shape}", "Delete it")
    ends = np.cumsum(counts)[:-1]
    parts = [np.split(arrays[key], ends) for key in _KEYS[1:]]
    try:
        return [PhotoFaces(*one) for one in zip(*parts, strict=True)]
    except ValueError as error:
        raise InputError(f"{path}: {error}", "Delete it") from error
