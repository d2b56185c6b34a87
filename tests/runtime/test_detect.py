from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from immunogate.manifest import DETECTOR_STRIDES
from immunogate.runtime.detect import Detector, letterbox
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.structs import Faces, Frame, Pixels

SAME_PIXELS, SAME_SCORE = 2e-4, 1e-6
"""float32 rounding at coordinates of a few hundred pixels."""


@pytest.fixture(scope="module")
def runner(dynamic_yunet: bytes) -> OnnxRunner:
    return OnnxRunner(dynamic_yunet, "yunet")


@pytest.fixture(scope="module")
def opencv(data_dir: Path) -> Callable[[Pixels], Faces]:
    """OpenCV's own YuNet as the oracle."""
    path = str(data_dir / "models" / "face_detection_yunet_2023mar.onnx")
    yunet = cv2.FaceDetectorYN.create(path, "", (320, 320), 0.6, 0.3, 5000)

    def detect(pixels: Pixels) -> Faces:
        yunet.setInputSize((pixels.shape[1], pixels.shape[0]))
        rows: Any = yunet.detect(pixels)[1]
        if rows is None:
            return Faces.none()
        corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        return Faces(corners, rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14])

    return detect


def expect_same(found: Faces, wanted: Faces) -> None:
    assert len(found) == len(wanted)
    np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=0, atol=SAME_PIXELS)
    np.testing.assert_allclose(found.landmarks, wanted.landmarks, rtol=0, atol=SAME_PIXELS)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=0, atol=SAME_SCORE)


@pytest.mark.data
def test_photos_as_opencv_sees_them(
    runner: OnnxRunner, opencv: Callable[[Pixels], Faces], photos: list[Pixels]
) -> None:
    detector = Detector(runner, blend=1)
    found = [detector.detect(photo) for photo in photos]
    for faces, photo in zip(found, photos, strict=True):
        expect_same(faces, opencv(photo))
    assert sum(map(len, found)) >= len(photos)


@pytest.mark.data
@pytest.mark.parametrize("name", ["man", "both"])
@pytest.mark.parametrize("size", [(270, 480), (256, 448), (241, 479)])
def test_clips_as_opencv_sees_them(
    runner: OnnxRunner,
    opencv: Callable[[Pixels], Faces],
    clip: Callable[[str], list[Frame]],
    name: str,
    size: tuple[int, int],
) -> None:
    """As it came, at a multiple of 32 (no padding), and at odd sides."""
    detector = Detector(runner, blend=1)
    for frame in clip(name)[::2]:
        pixels = np.ascontiguousarray(frame.pixels[: size[0], : size[1]])
        expect_same(detector.detect(pixels), opencv(pixels))


@pytest.mark.data
def test_blending_stays_near_the_strongest_cell_and_keeps_its_score(runner: OnnxRunner, photos: list[Pixels]) -> None:
    moved = []
    for photo in photos:
        single, blended = Detector(runner, blend=1).detect(photo), Detector(runner).detect(photo)
        np.testing.assert_array_equal(single.scores, blended.scores)
        eyes = np.linalg.norm(single.landmarks[:, 1] - single.landmarks[:, 0], axis=1)
        moved.extend(np.abs(single.landmarks - blended.landmarks).max(axis=(1, 2)) / eyes)
    assert 0 < np.median(moved) < 0.1
    assert max(moved) < 0.5


@pytest.mark.data
@pytest.mark.parametrize("times", [2, 3, 4])
def test_a_shrunk_picture_gives_coordinates_of_the_whole_one(
    runner: OnnxRunner, photos: list[Pixels], times: int
) -> None:
    """Pixel centres are whole numbers: growing by k takes x to k x + (k - 1) / 2, and not to k x."""
    detector = Detector(runner, longest_side=250)
    errors = []
    for photo in photos[::4]:
        pixels = photo[:250, :250]
        small = detector.detect(pixels)
        large = detector.detect(np.asarray(cv2.resize(pixels, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)))
        if len(small) == len(large) == 1:
            errors.append((large.landmarks[0] - (times * small.landmarks[0] + (times - 1) / 2)) / times)
    assert len(errors) > 15
    assert np.abs(np.mean(errors)) < 0.06  # of a pixel of the small picture; a shift by (k - 1) / 2 is 0.25 and more
    assert np.median(np.abs(errors)) < 0.25


def test_sides_are_scaled_by_what_they_were_shrunk_by(noise: Pixels) -> None:
    """301 pixels shrunk by 0.1 are 30 and not 30.1; a narrow side would else be off by a tenth."""

    class OneCell:
        """The face of one cell, the first of stride 8, with its corners at 0 and 8 and all points at 4."""

        name = "one cell"

        def run(self, planes: Any) -> dict[str, Any]:
            outputs = {}
            for stride in DETECTOR_STRIDES:
                cells = planes.shape[2] * planes.shape[3] // stride**2
                for part, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
                    outputs[f"{part}_{stride}"] = np.zeros((1, cells, channels), np.float32)
            for part in ("cls_8", "obj_8"):
                outputs[part][0, 0] = 1
            outputs["bbox_8"][0, 0] = (0.5, 0.5, 0, 0)
            outputs["kps_8"][0, 0] = 0.5
            return outputs

    runner: Any = OneCell()
    faces = Detector(runner, longest_side=64).detect(np.ascontiguousarray(noise[:25, :640]))
    across, down = 640 / 64, 25 / 2  # 2.5 rows are rounded to 2
    np.testing.assert_allclose(
        faces.boxes[0], [0.5 * across - 0.5, 0.5 * down - 0.5, 8.5 * across - 0.5, 8.5 * down - 0.5]
    )
    np.testing.assert_allclose(faces.landmarks[0], np.tile([4.5 * across - 0.5, 4.5 * down - 0.5], (5, 1)))


@pytest.mark.data
@pytest.mark.parametrize("size", [(1, 1), (31, 17), (32, 32), (17, 1000), (3000, 4000)])
@pytest.mark.parametrize("content", ["black", "noise"])
def test_strange_frames_are_taken(runner: OnnxRunner, size: tuple[int, int], content: str) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    if content == "noise":
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    faces = Detector(runner).detect(pixels)
    assert len(faces) == 0


@pytest.mark.data
def test_a_face_in_a_huge_frame_lies_where_it_was_put(runner: OnnxRunner, photos: list[Pixels]) -> None:
    photo = photos[0][:250, :250]
    frame = np.zeros((3000, 4000, 3), np.uint8)
    frame[800:1800, 2100:3100] = cv2.resize(photo, (1000, 1000), interpolation=cv2.INTER_CUBIC)
    wanted = 4 * Detector(runner).detect(photo).landmarks[0] + 1.5 + np.array([2100, 800])
    faces = Detector(runner).detect(frame)
    assert len(faces) == 1
    assert np.abs(faces.landmarks[0] - wanted).max() < 0.12 * 184  # of the distance between the eyes, seen at 640 x 480


@pytest.mark.data
def test_grey_frames_are_as_good_as_coloured(runner: OnnxRunner, clip: Callable[[str], list[Frame]]) -> None:
    coloured = clip("both")[0].pixels
    grey = cv2.cvtColor(cv2.cvtColor(coloured, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    first, second = Detector(runner).detect(coloured), Detector(runner).detect(np.asarray(grey, np.uint8))
    assert len(first) == len(second) == 2
    order = [faces.boxes[:, 0].argsort() for faces in (first, second)]
    assert np.abs(first.landmarks[order[0]] - second.landmarks[order[1]]).max() < 3


@pytest.mark.data
def test_the_strongest_are_kept(runner: OnnxRunner, clip: Callable[[str], list[Frame]]) -> None:
    pixels = clip("both")[0].pixels
    all_of_them, one = Detector(runner).detect(pixels), Detector(runner, most=1).detect(pixels)
    assert len(all_of_them) == 2
    assert all_of_them.scores[0] >= all_of_them.scores[1]
    np.testing.assert_allclose(one.boxes, all_of_them.boxes[:1], rtol=0, atol=SAME_PIXELS)
    assert len(Detector(runner, least_score=0.999).detect(pixels)) == 0


@pytest.mark.data
@pytest.mark.parametrize("part", ["bbox", "kps"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_cells_that_are_not_finite_are_no_faces(
    dynamic_yunet: bytes, clip: Callable[[str], list[Frame]], part: str, value: float
) -> None:
    """The cells of one face only: the other face is found as before."""

    class Damaged(OnnxRunner):
        def run(self, batch: Any) -> dict[str, Any]:
            outputs = super().run(batch)
            for stride in DETECTOR_STRIDES:
                columns = batch.shape[3] // stride
                left = np.arange(outputs[f"{part}_{stride}"].shape[1]) % columns < columns / 2
                outputs[f"{part}_{stride}"][0, left, 0] = value
            return outputs

    pixels = clip("both")[0].pixels
    whole = Detector(OnnxRunner(dynamic_yunet, "yunet")).detect(pixels)
    right = whole.take(np.flatnonzero(whole.boxes[:, 0] > 240))
    expect_same(Detector(Damaged(dynamic_yunet, "damaged")).detect(pixels), right)


@pytest.mark.parametrize("size", [(64, 96), (65, 95), (1, 1)])
def test_letterbox_pads_right_and_below(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(1, 256, (*size, 3), dtype=np.uint8)
    planes = letterbox(pixels, 1.0)
    assert planes.dtype == np.float32
    assert [side % 32 for side in planes.shape[2:]] == [0, 0]
    np.testing.assert_array_equal(planes[0, :, : size[0], : size[1]], pixels.transpose(2, 0, 1))
    assert not planes[0, :, size[0] :].any()
    assert not planes[0, :, :, size[1] :].any()
