from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from immunogate.errors import InputError
from immunogate.structs import Faces
from immunogate.training.detector.labels import (
    VIEWS,
    LabelledPhotos,
    PhotoFaces,
    label_photo,
    load_labels,
    save_labels,
)


class BlobTeacher:
    """Finds bright blobs; points at fixed places of the box, so that every view should give the same.

    The place of the mouth's left corner is off by two pixels, as no detector is symmetrical.
    """

    def __init__(self, score: float = 0.9, every: int = 1) -> None:
        self.score, self.every, self.calls = score, every, 0

    def __call__(self, pixels: Any) -> Faces:
        self.calls += 1
        _, _, stats, _ = cv2.connectedComponentsWithStats((pixels[:, :, 0] > 128).astype(np.uint8))
        boxes = np.array([[x, y, x + w - 1, y + h - 1] for x, y, w, h, area in stats[1:] if area > 20], np.float32)
        boxes = boxes.reshape(-1, 4)
        sides = (boxes[:, 2:] - boxes[:, :2])[:, None]
        places = np.array([[0.25, 0.3], [0.75, 0.3], [0.5, 0.5], [0.2, 0.8], [0.7, 0.8]], np.float32)
        score = self.score if self.calls % self.every == 0 else 0.4
        return Faces(boxes, boxes[:, None, :2] + sides * places, np.full(len(boxes), score, np.float32))


def photo_of(*boxes: tuple[int, int, int, int]) -> Any:
    photo = np.full((100, 140), 20, np.uint8)
    for left, top, right, bottom in boxes:
        photo[top : bottom + 1, left : right + 1] = 230
    return photo


def test_all_views_agree_in_the_photos_own_pixels() -> None:
    teacher = BlobTeacher()
    faces = label_photo(photo_of((20, 10, 59, 69)), teacher)
    assert teacher.calls == 2 * len(VIEWS)
    assert faces.sure.tolist() == [True]
    np.testing.assert_allclose(faces.boxes[0], [20, 10, 59, 69], atol=0.6)
    np.testing.assert_allclose(faces.landmarks[0, 0, 0], [29.75, 27.7], atol=0.6)


def test_the_mirror_image_is_labelled_as_the_teacher_sees_it() -> None:
    faces = label_photo(photo_of((20, 10, 59, 69)), BlobTeacher())
    left, right = faces.landmarks[0]
    assert left[3, 0] == pytest.approx(20 + 0.2 * 39, abs=0.7)
    assert right[3, 0] == pytest.approx((139 - 59) + 0.2 * 39, abs=0.7)  # not 139 - (20 + 0.7 * 39)


def test_two_faces_are_two() -> None:
    faces = label_photo(photo_of((10, 10, 49, 59), (80, 30, 129, 89)), BlobTeacher())
    order = faces.boxes[:, 0].argsort()
    assert faces.sure.all()
    np.testing.assert_allclose(faces.boxes[order], [[10, 10, 49, 59], [80, 30, 129, 89]], atol=0.6)


@pytest.mark.parametrize(
    ("score", "every", "sure"), [(0.59, 1, False), (0.61, 1, True), (0.9, 2, True), (0.9, 4, False)]
)
def test_what_is_seen_faintly_or_seldom_is_not_sure(score: float, every: int, sure: bool) -> None:
    faces = label_photo(photo_of((20, 10, 59, 69)), BlobTeacher(score, every))
    assert faces.sure.tolist() == [sure]


def test_no_face_is_no_face() -> None:
    assert len(label_photo(photo_of(), BlobTeacher())) == 0


def test_labels_come_back(tmp_path: Path) -> None:
    photos = [photo_of(), photo_of((10, 10, 49, 59), (80, 30, 129, 89)), photo_of((20, 10, 59, 69))]
    faces = [label_photo(photo, BlobTeacher()) for photo in photos]
    save_labels(tmp_path / "labels.npz", faces)
    again = load_labels(tmp_path / "labels.npz", 3)
    assert [len(one) for one in again] == [0, 2, 1]
    for one, other in zip(faces, again, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.landmarks, other.landmarks)
        np.testing.assert_array_equal(one.sure, other.sure)


def test_labels_of_other_photos_are_refused(tmp_path: Path) -> None:
    save_labels(tmp_path / "labels.npz", [label_photo(photo_of(), BlobTeacher())])
    with pytest.raises(InputError, match="2 photos"):
        load_labels(tmp_path / "labels.npz", 2)
    np.savez(tmp_path / "odd.npz", counts=[1], boxes=np.zeros((1, 3)), landmarks=np.zeros((1, 2, 5, 2)), sure=[True])
    with pytest.raises(InputError, match="boxes"):
        load_labels(tmp_path / "odd.npz", 1)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="landmarks"):
        PhotoFaces(np.zeros((1, 4), np.float32), np.zeros((1, 5, 2), np.float32), np.ones(1, bool))
    none = PhotoFaces(np.zeros((0, 4), np.float32), np.zeros((0, 2, 5, 2), np.float32), np.zeros(0, bool))
    with pytest.raises(ValueError, match="photo"):
        LabelledPhotos([np.zeros((4, 4, 3), np.uint8)], [none])
    with pytest.raises(ValueError, match="as many"):
        LabelledPhotos([], [])


def test_a_small_face_may_be_lost_in_small_views() -> None:
    teacher = BlobTeacher()

    def sees_large_ones(pixels: Any) -> Faces:
        faces = teacher(pixels)
        return faces.take(np.flatnonzero(faces.boxes[:, 2] - faces.boxes[:, 0] >= 19))

    faces = label_photo(photo_of((20, 10, 39, 39)), sees_large_ones)
    assert faces.sure.tolist() == [True]  # in all views of full size, which are four of six
    half = label_photo(photo_of((20, 10, 34, 39)), sees_large_ones)
    assert half.sure.tolist() == [True]  # in those of 1.4 and 2 times the size: half of the four
