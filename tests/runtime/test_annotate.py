from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scripted import ScriptedDetector

from immunogate.bundle import Bundle
from immunogate.errors import UsageError
from immunogate.runtime.align import TEMPLATE
from immunogate.runtime.annotate import COLOURS, PANEL, UNDECIDED, VideoSink, annotate
from immunogate.runtime.chain import open_chain
from immunogate.runtime.decide import Policy
from immunogate.runtime.gallery import Templates
from immunogate.runtime.pipeline import FrameResult, Gate
from immunogate.structs import Faces, Frame, Pixels

MakeFrame = Callable[..., Frame]
Process = Callable[..., FrameResult]


@pytest.fixture
def process(tiny_bundle: Bundle, frame_of: MakeFrame) -> Iterator[Process]:
    """The gate's result for a frame with one face at each given place; everybody is allowed at once."""

    detector = ScriptedDetector()
    with open_chain(tiny_bundle, threads=1) as chain:
        chain.detector = detector
        anybody = Templates(["José"], np.eye(1, 16, dtype=np.float32))
        policy = Policy(threshold=-1, alarm=2, confirm_frames=1, max_decision_age_ms=60_000)
        gate = Gate(chain, anybody, policy, "0" * 64)

        def run(pixels: Pixels, *places: tuple[int, int], index: int = 0) -> FrameResult:
            offsets = np.array(places, np.float32).reshape(-1, 1, 2)
            boxes = np.concatenate([offsets, offsets + 112], axis=1).reshape(-1, 4).astype(np.float32)
            detector.next = Faces(boxes, (TEMPLATE + offsets).astype(np.float32), np.ones(len(places), np.float32))
            return gate.process(frame_of(pixels, index))

        yield run


def frames_of(path: Path) -> list[Pixels]:
    capture, frames = cv2.VideoCapture(str(path)), list[Pixels]()
    while True:
        there, pixels = capture.read()
        if not there:
            capture.release()
            return frames
        frames.append(np.asarray(pixels, np.uint8))


def test_box_name_and_crops_are_drawn(process: Process, noise: Pixels) -> None:
    result = process(noise, (100, 150))
    before = noise.copy()
    picture = annotate(result, {})
    np.testing.assert_array_equal(noise, before)  # the frame itself is not drawn into
    assert picture.shape == (480, 640 + 2 * PANEL, 3)
    assert result.decisions[0].outcome == "allow"
    for x, y in ((100, 200), (212, 200), (150, 150), (150, 262)):
        assert picture[y, x].tolist() == list(COLOURS["allow"])
    np.testing.assert_array_equal(picture[400:, :640], noise[400:])
    raw = result.looks[0].crop
    assert raw is not None
    np.testing.assert_array_equal(picture[:112, 640 : 640 + 112, 0], raw)
    assert picture[:112, 640 + 112 :].std() > 1
    assert not (picture[:112, 640 + 112 :, 0] == raw).all()


def test_a_face_between_two_looks_keeps_its_last_decision(process: Process, noise: Pixels) -> None:
    shown: dict[Any, Any] = {}
    annotate(process(noise, (100, 150)), shown)
    result = process(noise, (101, 150), index=1)
    assert result.decisions == []
    assert annotate(result, shown)[200, 101].tolist() == list(COLOURS["allow"])
    assert annotate(result, {})[200, 101].tolist() == list(UNDECIDED)


def test_a_frame_without_faces_is_itself(process: Process, noise: Pixels) -> None:
    np.testing.assert_array_equal(annotate(process(noise), {})[:, :640], noise)


@pytest.mark.parametrize("size", [(120, 160), (121, 161), (40, 30), (111, 97), (1, 2)])
def test_faces_may_reach_out_of_small_frames(process: Process, noise: Pixels, size: tuple[int, int]) -> None:
    small = np.ascontiguousarray(noise[: size[0], : size[1]])
    picture = annotate(process(small, (-30, -20), (5, 8)), {})
    assert picture.shape == (size[0], size[1] + 2 * PANEL, 3)


def test_more_faces_than_the_strip_has_room_for(process: Process, noise: Pixels) -> None:
    places = [(120 * column, 110 * row) for row in range(4) for column in range(5)]
    assert annotate(process(noise, *places), {}).shape == (480, 640 + 2 * PANEL, 3)


@pytest.mark.parametrize("size", [(120, 160), (121, 161), (480, 640)])
def test_the_video_can_be_read_again(process: Process, noise: Pixels, tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "out.mp4"
    drawn = []
    with VideoSink(path, 12.5) as sink:
        for index in range(9):
            pixels = np.ascontiguousarray(np.roll(noise, 8 * index, axis=1)[: size[0], : size[1]])
            drawn.append(sink.write(process(pixels, (5, 5), index=index)))
    frames = frames_of(path)
    assert len(frames) == 9
    assert frames[0].shape == (size[0] // 2 * 2, (size[1] + 2 * PANEL) // 2 * 2, 3)
    for frame, picture in zip(frames, drawn, strict=True):
        assert np.abs(frame.astype(int) - picture).mean() < 12  # MPEG-4 is lossy
    rate = cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS)
    assert rate == pytest.approx(12.5, rel=0.01)


def test_frames_of_other_sizes_are_scaled_to_the_first(process: Process, noise: Pixels, tmp_path: Path) -> None:
    path = tmp_path / "out.MP4"
    with VideoSink(path, 25) as sink:
        for index, (height, width) in enumerate([(240, 320), (480, 640), (101, 77), (240, 320)]):
            pixels = np.ascontiguousarray(noise[:height, :width])
            assert sink.write(process(pixels, index=index)).shape == (240, 320 + 2 * PANEL, 3)
    assert [frame.shape for frame in frames_of(path)] == [(240, 320 + 2 * PANEL, 3)] * 4


def test_places_that_can_not_be_written_are_wrong_use(process: Process, noise: Pixels, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"writes \.mp4 files"):
        VideoSink(tmp_path / "out.avi", 25)
    with pytest.raises(UsageError, match="no folder"):
        VideoSink(tmp_path / "nowhere" / "out.mp4", 25)
    (tmp_path / "taken.mp4").mkdir()
    with VideoSink(tmp_path / "taken.mp4", 25) as sink, pytest.raises(UsageError, match="can not be written"):
        sink.write(process(noise))


def test_a_sink_that_got_nothing_leaves_nothing(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "out.mp4", 25):
        pass
    assert not (tmp_path / "out.mp4").exists()
