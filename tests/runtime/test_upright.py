from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from immunogate.runtime.align import TEMPLATE, similarity_to_template
from immunogate.runtime.detect import Detector
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.runtime.upright import upright
from immunogate.structs import Faces, Floats, Frame, Pixels

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def detector(dynamic_yunet: bytes) -> Detector:
    return Detector(OnnxRunner(dynamic_yunet, "yunet"))


def eyes(landmarks: Floats) -> float:
    return float(np.linalg.norm(landmarks[1] - landmarks[0]))


def roll(landmarks: Floats) -> float:
    """Degrees that the face leans to, clockwise in the picture."""
    matrix = similarity_to_template(landmarks)
    return float(np.rad2deg(np.arctan2(matrix[0, 1], matrix[0, 0])))


def errors_when_turned(detector: Detector, photos: list[Pixels], angle: float) -> tuple[Any, Any]:
    """How far landmarks of turned photos lie from where they should, in eye distances: at once, and looked at twice."""
    first, second = list[float](), list[float]()
    for photo in photos:
        whole = detector.detect(photo)
        if len(whole) != 1:
            continue
        straight = upright(detector, photo, whole.landmarks[0])
        x, y = straight.mean(axis=0)
        turn = cv2.getRotationMatrix2D((float(x), float(y)), -angle, 1.0)
        turned = np.asarray(cv2.warpAffine(photo, turn, photo.shape[1::-1], borderMode=cv2.BORDER_REPLICATE), np.uint8)
        wanted = straight @ turn[:, :2].T + turn[:, 2]
        found = detector.detect(turned)
        if len(found) == 1:
            for errors, landmarks in (
                (first, found.landmarks[0]),
                (second, upright(detector, turned, found.landmarks[0])),
            ):
                errors.append(np.linalg.norm(landmarks - wanted, axis=1).mean() / eyes(straight))
    return np.array(first), np.array(second)


@pytest.mark.parametrize("angle", [-35, -20, 20, 35])
def test_tilted_heads_get_tilted_landmarks(detector: Detector, photos: list[Pixels], angle: float) -> None:
    first, second = errors_when_turned(detector, photos[::3], angle)
    assert len(first) > 20
    assert np.median(second) < 0.14
    assert np.median(second) < 0.8 * np.median(first)
    assert np.quantile(second, 0.9) < np.quantile(first, 0.9)


def test_upright_faces_stay_where_they_are(detector: Detector, photos: list[Pixels]) -> None:
    moved = [
        np.abs(upright(detector, photo, landmarks) - landmarks).max() / eyes(landmarks)
        for photo in photos[::3]
        for landmarks in detector.detect(photo).landmarks
    ]
    assert np.median(moved) < 0.12


def test_the_man_is_seen_to_tilt_his_head(detector: Detector, clip: Callable[[str], list[Frame]]) -> None:
    """In the clip of both he leans his head over during the first second and keeps it so, by some 40 degrees."""
    leaning = {}
    for index in (0, 30, 50):
        faces = detector.detect(clip("both")[index].pixels)
        right = faces.landmarks[int(faces.boxes[:, 0].argmax())]
        leaning[index] = roll(upright(detector, clip("both")[index].pixels, right)), roll(right)
    assert abs(leaning[0][0]) < 15
    for index in (30, 50):
        twice, once = leaning[index]
        assert -50 < twice < -25
        assert twice < once - 10


def test_a_neighbour_is_not_taken_for_the_face(detector: Detector, clip: Callable[[str], list[Frame]]) -> None:
    """Two faces so near that the view of one shows the other."""
    face = clip("man")[0].pixels
    found = detector.detect(face)
    left, top, right, bottom = (int(side) for side in found.boxes[0])
    cut = face[top - 20 : bottom + 20, left - 10 : right + 10]
    pixels = np.full((300, 400, 3), 128, np.uint8)
    for x in (60, 60 + cut.shape[1]):
        pixels[80 : 80 + cut.shape[0], x : x + cut.shape[1]] = cut
    faces = detector.detect(pixels)
    assert len(faces) == 2
    for landmarks in faces.landmarks:
        assert np.abs(upright(detector, pixels, landmarks) - landmarks).max() < 0.3 * eyes(landmarks)


@pytest.mark.parametrize("size", [(480, 640), (20, 30), (1, 1)])
def test_where_no_view_finds_a_face_the_landmarks_stay(detector: Detector, size: tuple[int, int]) -> None:
    black = np.zeros((*size, 3), np.uint8)
    np.testing.assert_array_equal(upright(detector, black, TEMPLATE), TEMPLATE)


@pytest.mark.parametrize("bad", [np.full((5, 2), 3.0), np.full((5, 2), np.nan), np.full((5, 2), np.inf)])
def test_impossible_landmarks_are_refused(detector: Detector, noise: Pixels, bad: Any) -> None:
    with pytest.raises(ValueError, match="finite points"):
        upright(detector, noise, bad.astype(np.float32))


def test_the_most_confident_view_counts_and_is_turned_back(noise: Pixels) -> None:
    """A scripted detector that is surest of the second view and finds the same points in each."""
    points = np.array([[80, 80], [112, 80], [96, 96], [84, 110], [108, 110]], np.float32)

    class Scripted:
        scores = iter([0.7, 0.9, 0.9])

        def detect(self, pixels: Pixels) -> Faces:
            return Faces(
                np.array([[70, 70, 122, 122]], np.float32), points[None], np.array([next(self.scores)], np.float32)
            )

    detector: Any = Scripted()
    found = upright(detector, noise, TEMPLATE * 2 + 100)
    assert roll(found) == pytest.approx(roll(points) + 30, abs=0.5)  # the view was turned by -30, a face in it leans 30
    assert eyes(found) == pytest.approx(32 * 2 * 2 * 112 / 192, rel=0.01)
