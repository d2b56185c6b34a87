from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunogate.runtime.track import overlap_of_boxes
from immunogate.training.detector import geometry

numbers = st.floats(-300, 300, allow_nan=False, width=32)


def boxes_of(seed: int, count: int = 6) -> np.ndarray:
    draw = np.random.default_rng(seed)
    corners = draw.uniform(0, 100, (count, 2))
    return np.concatenate([corners, corners + draw.uniform(1, 60, (count, 2))], axis=1).astype(np.float32)


@given(seed=st.integers(0, 1000), width=st.integers(1, 400))
def test_mirroring_twice_changes_nothing(seed: int, width: int) -> None:
    boxes = boxes_of(seed)
    points = np.random.default_rng(seed).uniform(0, width, (3, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(geometry.mirrored_boxes(geometry.mirrored_boxes(boxes, width), width), boxes, atol=1e-4)
    np.testing.assert_allclose(
        geometry.mirrored_points(geometry.mirrored_points(points, width), width), points, atol=1e-4
    )


def test_the_eye_on_the_left_stays_on_the_left() -> None:
    points = np.array([[10, 5], [30, 5], [20, 15], [12, 25], [28, 25]], np.float32)
    mirrored = geometry.mirrored_points(points, 100)
    assert mirrored[0, 0] == 69  # was the right eye, at 30
    assert mirrored[0, 0] < mirrored[1, 0]
    assert mirrored[3, 0] < mirrored[4, 0]


@given(angle=st.floats(-3, 3), scale=st.floats(0.2, 4), x=numbers, y=numbers)
def test_a_turned_circle_keeps_its_box(angle: float, scale: float, x: float, y: float) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    box = geometry.moved_boxes(np.array([[10, 20, 50, 60]], np.float32), np.column_stack([turn, [x, y]]))
    np.testing.assert_allclose(box[0, 2:] - box[0, :2], 40 * scale, rtol=1e-3, atol=1e-3)
    middle = turn @ [30, 40] + [x, y]
    np.testing.assert_allclose((box[0, :2] + box[0, 2:]) / 2, middle, rtol=1e-3, atol=1e-2)


def test_a_quarter_turn_exchanges_the_sides() -> None:
    quarter = np.array([[0.0, -1, 100], [1, 0, 0]])
    np.testing.assert_allclose(
        geometry.moved_boxes(np.array([[10, 20, 30, 80]], np.float32), quarter), [[20, 10, 80, 30]], atol=1e-4
    )


@given(seed=st.integers(0, 1000))
def test_overlap_is_that_of_the_gate(seed: int) -> None:
    first, second = boxes_of(seed), boxes_of(seed + 1, 4)
    np.testing.assert_allclose(geometry.overlap(first, second), overlap_of_boxes(first, second), atol=1e-5)


def test_a_side_is_that_of_the_square_of_equal_area() -> None:
    assert geometry.sizes(np.array([[0, 0, 4, 9]], np.float32)) == pytest.approx([6])
