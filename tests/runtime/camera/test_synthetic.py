from __future__ import annotations

import numpy as np
import pytest

from immunogate.errors import UsageError
from immunogate.runtime.camera import open_camera


def test_the_same_frames_every_time() -> None:
    with open_camera("synthetic://?frames=5") as first, open_camera("synthetic://?frames=5") as second:
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a.pixels, b.pixels)
            assert a.media_time == b.media_time == a.index / 25


def test_size_number_and_rate_are_as_asked() -> None:
    with open_camera("synthetic://?width=321&height=240&frames=7&fps=50&faces=3") as camera:
        assert (camera.is_live, camera.expected_frames) == (False, 7)
        frames = list(camera)
    assert [frame.pixels.shape for frame in frames] == [(240, 321, 3)] * 7
    assert frames[6].media_time == pytest.approx(6 / 50)


def test_the_face_moves_and_can_be_left_out() -> None:
    with (
        open_camera("synthetic://?frames=30") as with_face,
        open_camera("synthetic://?frames=30&faces=0") as bare,
    ):
        masks = [np.any(a.pixels != b.pixels, axis=2) for a, b in zip(with_face, bare, strict=True)]
    assert all(0.01 < mask.mean() < 0.5 for mask in masks)
    assert not np.array_equal(masks[0], masks[29])


def test_no_end() -> None:
    with open_camera("synthetic://?frames=0&width=16&height=16") as camera:
        assert camera.expected_frames is None
        assert [next(camera).index for _ in range(300)][-1] == 299


@pytest.mark.parametrize("query", ["width=8", "height=x", "fps=0", "faces=99", "depth=3", "width=16000&height=16000"])
def test_wrong_options_are_refused(query: str) -> None:
    with pytest.raises(UsageError, match="synthetic"):
        open_camera(f"synthetic://?{query}")


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_wrong_rate_is_refused(fps: float) -> None:
    with pytest.raises(UsageError, match="fps"):
        open_camera("synthetic://", fps=fps)
