"""The walk-up: the same frames every time, with a face where it says there is one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.demo.portraits import Portrait, enrolled_person, stranger
from immunogate.demo.scene import COUNTER, FRAMES, FURTHEST, HEIGHT, NEAREST, WIDTH, WalkUp, pose
from immunogate.errors import UsageError

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module", params=[enrolled_person, stranger])
def portrait(request: pytest.FixtureRequest) -> Portrait:
    found: Portrait = request.param()
    return found


def test_frames_are_pictures_and_the_same_every_time(portrait: Portrait) -> None:
    first, second = WalkUp(portrait).frame(7), WalkUp(portrait).frame(7)
    assert first.shape == (HEIGHT, WIDTH, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)
    assert (WalkUp(portrait, seed=1).frame(7) != first).mean() > 0.5, "another seed is other noise"


def test_the_person_comes_nearer(portrait: Portrait) -> None:
    walk = WalkUp(portrait)

    def eyes(index: int) -> float:
        return float(np.hypot(*(walk.landmarks(index)[1] - walk.landmarks(index)[0])))

    distances = [eyes(index) for index in range(FRAMES)]
    assert distances[0] == pytest.approx(FURTHEST, abs=1e-3)
    assert distances[-1] == pytest.approx(NEAREST, abs=1e-3)
    assert distances == sorted(distances)


def test_the_face_is_always_in_the_frame_and_above_the_counter(portrait: Portrait) -> None:
    walk = WalkUp(portrait)
    for index in range(FRAMES):
        points = walk.landmarks(index)
        assert (points[:, 0] > 40).all()
        assert (points[:, 0] < WIDTH - 40).all()
        assert (points[:, 1] > 40).all()
        assert (points[:, 1] < COUNTER - 20).all()


def test_where_the_portrait_ends_is_hidden(portrait: Portrait) -> None:
    walk, height = WalkUp(portrait), portrait.pixels.shape[0]
    for index in range(FRAMES):
        matrix = walk.matrix(index)
        corners = np.array([[0.0, height - 6], [portrait.pixels.shape[1], height - 6]])
        assert (corners @ matrix[:, :2].T + matrix[:, 2])[:, 1].min() > COUNTER - 16


def test_the_light_goes_down_and_comes_back() -> None:
    walk = WalkUp(enrolled_person())
    brightness = [float(walk.frame(index).mean()) for index in (0, FRAMES // 2, FRAMES - 1)]
    assert brightness[1] < 0.75 * brightness[0]
    assert brightness[2] == pytest.approx(brightness[0], rel=0.15)


def test_fewer_frames_go_the_same_way() -> None:
    long, short = WalkUp(enrolled_person(), 21), WalkUp(enrolled_person(), 11)
    np.testing.assert_allclose(long.matrix(20), short.matrix(10))
    np.testing.assert_allclose(long.matrix(10), short.matrix(5))
    with pytest.raises(UsageError, match="4 to 10000 frames, not 3"):
        WalkUp(enrolled_person(), 3)


@settings(max_examples=50)
@given(st.floats(0, 1))
def test_no_step_of_the_way_is_a_jump(part: float) -> None:
    here, next_ = pose(part), pose(min(1.0, part + 1 / (FRAMES - 1)))
    assert abs(next_.x - here.x) < 8
    assert abs(next_.y - here.y) < 4
    assert abs(next_.roll - here.roll) < 1
    assert 1 <= next_.eyes / here.eyes < 1.03 or part > 0.99
