from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.runtime.align import (
    TEMPLATE,
    align,
    as_picture,
    quality,
    similarity_to_template,
    thumbnail,
)
from immunogate.runtime.detect import Detector
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.structs import Floats, Pixels

angles = st.floats(-np.pi, np.pi)
sizes = st.floats(0.1, 20)
places = st.floats(-2000, 2000)


def placed(points: Any, angle: float, size: float, x: float, y: float) -> Any:
    """(N, 2) points turned, scaled and moved, in float64."""
    turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(points, np.float64) @ turn.T + np.array([x, y])


def mapped(matrix: Any, points: Any) -> Any:
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


@given(angle=angles, size=sizes, x=places, y=places)
@settings(max_examples=100, deadline=None)
def test_a_template_that_was_moved_is_moved_back(angle: float, size: float, x: float, y: float) -> None:
    landmarks = placed(TEMPLATE, angle, size, x, y).astype(np.float32)
    rounding = 1e-6 * (abs(x) + abs(y) + 100 * size) / size
    np.testing.assert_allclose(mapped(similarity_to_template(landmarks), landmarks), TEMPLATE, atol=1e-3 + rounding)


@given(seed=st.integers(0, 10**6), angle=angles, size=sizes, noise=st.floats(0, 30))
@settings(max_examples=100, deadline=None)
def test_it_is_the_least_squares_similarity(seed: int, angle: float, size: float, noise: float) -> None:
    """The oracle solves the 4 parameters (a, b, tx, ty) of x' = a x - b y + tx, y' = b x + a y + ty."""
    draw = np.random.default_rng(seed)
    landmarks = placed(TEMPLATE + draw.normal(0, noise, (5, 2)), angle, size, 300, 200).astype(np.float32)
    x, y = landmarks.astype(np.float64).T
    zero, one = np.zeros(5), np.ones(5)
    system = np.concatenate([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])
    a, b, tx, ty = np.linalg.lstsq(system, TEMPLATE.astype(np.float64).T.ravel(), rcond=None)[0]
    matrix = similarity_to_template(landmarks)
    np.testing.assert_allclose(matrix, [[a, -b, tx], [b, a, ty]], rtol=1e-6, atol=1e-6 * (1 + abs(tx) + abs(ty)))


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((5, 2), 7),
        np.full((5, 2), np.nan),
        np.full((5, 2), np.inf),
        np.where(np.arange(10).reshape(5, 2) == 3, np.nan, TEMPLATE),
        np.where(np.arange(10).reshape(5, 2) == 6, -np.inf, TEMPLATE),
        TEMPLATE * 1e-6,
    ],
)
def test_impossible_landmarks_are_refused(landmarks: Any, noise: Pixels) -> None:
    for call in (similarity_to_template, lambda points: align(noise, points)):
        with pytest.raises(ValueError, match="finite points that do not coincide"):
            call(np.asarray(landmarks, np.float32))


@pytest.mark.parametrize("factor", [1e-2, 1e3, 1e12, 1e18])
def test_any_finite_landmarks_give_a_crop(noise: Pixels, factor: float) -> None:
    crop = align(noise, (TEMPLATE * factor).astype(np.float32))
    assert crop.shape == (112, 112)
    assert crop.dtype == np.uint8


def test_landmarks_on_the_template_leave_the_picture_as_it_is(noise: Pixels) -> None:
    grey = cv2.cvtColor(noise, cv2.COLOR_BGR2GRAY)
    moved = TEMPLATE + np.array([100, 50], np.float32)
    difference = align(noise, moved).astype(int) - grey[50:162, 100:212]
    assert np.abs(difference).max() <= 2  # the warp works in 1/32 of a pixel


@pytest.mark.parametrize("size", [0.7, 1.0, 1.9, 2.0, 2.5, 3.0, 5.3, 8.0, 11.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_pixel_centres_are_whole_numbers(size: float, axis: int) -> None:
    """On ramps up and down, 4 levels a crop pixel, the crop must read the level at its place size u + offset."""
    offset, slope, turn = 20.0, 4.0, 50.0
    side = int(112 * size + 2 * offset) + 2

    def levels(place: Any) -> Any:
        return 20 + slope * np.abs((place - offset) / size % (2 * turn) - turn)

    row = np.rint(levels(np.arange(side))).astype(np.uint8)
    plane = np.broadcast_to(row[:, None] if axis == 0 else row, (side, side))
    crop = align(np.repeat(plane[:, :, None], 3, axis=2), (TEMPLATE * size + offset).astype(np.float32))
    column = np.arange(112)
    read = crop.astype(np.float64).mean(axis=1 - axis)
    error = read - levels(size * column + offset)
    away = np.abs(column % turn - turn / 2) < turn / 2 - 3  # from the turns, where the ramp is no ramp
    direction = np.where(column % (2 * turn) < turn, -1, 1)
    assert np.abs(error[away]).max() < 1.2
    assert abs(np.mean((error * direction)[away])) / slope < 0.06  # of a crop pixel


@pytest.mark.data
@pytest.mark.parametrize("times", [2, 3, 4])
def test_a_photo_grown_gives_the_same_crop(dynamic_yunet: bytes, photos: list[Pixels], times: int) -> None:
    """The shrinking path; measured 0.4 grey levels on average, and 2.1 to 3 with landmarks off by (k - 1) / 2."""
    detector = Detector(OnnxRunner(dynamic_yunet, "yunet"))
    changes = []
    for photo in photos[::5]:
        faces = detector.detect(photo)
        if len(faces) == 0:
            continue
        large = np.asarray(cv2.resize(photo, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC), np.uint8)
        first = align(photo, faces.landmarks[0])
        second = align(large, (times * faces.landmarks[0] + (times - 1) / 2).astype(np.float32))
        changes.append(np.abs(first.astype(int) - second).mean())
    assert len(changes) > 15
    assert np.mean(changes) < 0.7
    assert max(changes) < 1.5


def test_fine_texture_does_not_alias() -> None:
    """A chessboard of single pixels, eight times too large, must come out as even grey and not as a pattern."""
    board = (np.indices((1000, 1000)).sum(axis=0) % 2 * 255).astype(np.uint8)
    crop = align(np.repeat(board[:, :, None], 3, axis=2), (TEMPLATE * 8 + 20).astype(np.float32))
    assert np.abs(crop.astype(int) - 127).max() <= 4


def test_colours_become_grey_by_the_usual_weights() -> None:
    for colour, level in (((255, 0, 0), 29), ((0, 255, 0), 150), ((0, 0, 255), 76)):
        pixels = np.full((112, 112, 3), colour, np.uint8)
        assert abs(int(align(pixels, TEMPLATE)[56, 56]) - level) <= 1


def test_what_lies_outside_of_the_frame_is_black(noise: Pixels) -> None:
    crop = align(noise, TEMPLATE - np.float32(56))
    assert not crop[:55, :55].any()
    assert crop[58:, 58:].any()


def test_pictures_of_faces_are_clipped_and_rounded() -> None:
    face = np.zeros(12544, np.float32)
    face[:6] = -1.5, -1, 0.5 / 127.5 - 1, 1.6 / 127.5 - 1, 1, 7
    assert as_picture(face).shape == (112, 112)
    assert as_picture(face).ravel()[:6].tolist() == [0, 0, 0, 2, 255, 255]


@given(levels=st.binary(min_size=16, max_size=16))
def test_pictures_and_faces_are_inverse(levels: bytes) -> None:
    picture = np.tile(np.frombuffer(levels, np.uint8), 784).reshape(112, 112)
    face = picture.astype(np.float32).ravel() / np.float32(127.5) - 1
    np.testing.assert_array_equal(as_picture(face), picture)


def test_quality_of_a_frontal_face() -> None:
    found = quality(TEMPLATE * 3, np.full((112, 112), 90, np.uint8))
    eyes = np.linalg.norm(TEMPLATE[1].astype(float) - TEMPLATE[0])
    assert found.eye_distance == pytest.approx(3 * eyes, rel=1e-6)
    assert found.yaw < 0.01
    assert found.sharpness == 0


@given(angle=angles, size=sizes, shift=st.floats(-1, 1))
@settings(deadline=None)
def test_yaw_is_the_nose_along_the_line_of_the_eyes_in_eye_distances(angle: float, size: float, shift: float) -> None:
    face = np.array([[-0.5, 0], [0.5, 0], [shift, 0.6], [-0.4, 1], [0.4, 1]])
    found = quality(placed(face * 35, angle, size, 300, 200).astype(np.float32), np.zeros((112, 112), np.uint8))
    assert found.yaw == pytest.approx(abs(shift), abs=1e-3)


def test_blur_lowers_sharpness(noise: Pixels) -> None:
    sharp = align(noise, TEMPLATE * 4)
    levels = [quality(TEMPLATE, np.asarray(cv2.GaussianBlur(sharp, (0, 0), s))).sharpness for s in (0.5, 1, 2, 4)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > 10 * levels[-1]


def test_eyes_in_one_place_are_a_face_of_no_size(noise: Pixels) -> None:
    landmarks: Floats = TEMPLATE.copy()
    landmarks[1] = landmarks[0]
    found = quality(landmarks, align(noise, landmarks))
    assert (found.eye_distance, found.yaw) == (0, 0)


@pytest.mark.data
def test_thumbnails_tell_people_apart(fit_and_kept_back: Any) -> None:
    """The same face again, brighter or moved by a pixel, is like itself; somebody else is not."""
    fit, others = fit_and_kept_back
    mean = fit.images.reshape(len(fit), -1).mean(axis=0).astype(np.float32) / np.float32(127.5) - 1
    faces = others.images[::6]
    glances = np.stack([thumbnail(face, mean) for face in faces])
    np.testing.assert_allclose(np.linalg.norm(glances, axis=1), 1, atol=1e-5)
    moved = np.stack([thumbnail(np.roll(face, 1, axis=1), mean) for face in faces])
    brighter = np.stack([thumbnail(np.minimum(face, 235) + 20, mean) for face in faces])
    assert np.quantile((glances * moved).sum(axis=1), 0.01) > 0.8
    assert np.quantile((glances * brighter).sum(axis=1), 0.01) > 0.9
    different = (glances @ glances.T)[np.triu_indices(len(glances), 1)]
    assert np.mean(different > 0.7) < 0.02


def test_the_thumbnail_of_an_even_face_is_finite() -> None:
    glance = thumbnail(np.full((112, 112), 128, np.uint8), np.full(12544, 128 / 127.5 - 1, np.float32))
    assert np.isfinite(glance).all()
