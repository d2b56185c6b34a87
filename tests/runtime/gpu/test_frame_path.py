"""Frames to answers on the fake device, with the real detector and real frames, against the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from fake_device import short_of_memory
from fake_networks import FakeEngine, FakeNetwork

from immunogate.kernels.device import Device
from immunogate.runtime.align import TEMPLATE, align
from immunogate.runtime.detect import Detector
from immunogate.runtime.gpu.device_detector import MOST_SIZES, DeviceDetector
from immunogate.runtime.gpu.engine_network import EngineNetwork
from immunogate.runtime.gpu.frame_path import FramePath, crops_to_frame
from immunogate.runtime.gpu.frame_slot import FrameSlot, shape_of
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.structs import Faces, Pixels


@pytest.fixture(scope="module")
def yunet(dynamic_yunet: bytes) -> OnnxRunner:
    return OnnxRunner(dynamic_yunet, "detector.onnx")


@pytest.fixture
def opened(both: Any, yunet: OnnxRunner, device: Device) -> Iterator[Callable[..., Any]]:
    """``opened(size, kind, longest_side)``: the tiny bundle's paths in mode select, and a detector on the CPU."""
    with both("select", buckets=(1, 2)) as made:

        def open_path(size: tuple[int, int], kind: str = "bgr", longest_side: int = 640) -> tuple[FramePath, Detector]:
            detector = Detector(yunet, longest_side)
            network = FakeNetwork(yunet, largest=1)
            held.append(FramePath(made.path._parts.queued, network, detector, made.path, size, kind))
            return held[-1], detector

        held: list[FramePath] = []
        open_path.made = made  # type: ignore[attr-defined]
        yield open_path
        for path in held:
            path.close()


def near(found: Faces, want: Faces, pixels: float) -> None:
    assert len(found) == len(want) > 0
    np.testing.assert_allclose(found.landmarks, want.landmarks, atol=pixels)
    np.testing.assert_allclose(found.boxes, want.boxes, atol=pixels)
    np.testing.assert_allclose(found.scores, want.scores, atol=pixels / 10)


def seen_by_cpu(made: Any, pixels: Pixels, faces: Faces, numbers: list[int]) -> Any:
    crops = np.stack([align(pixels, points) for points in faces.landmarks])
    return made.cpu.recognise(crops, [7] * len(faces), numbers)


@pytest.mark.data
@pytest.mark.parametrize("calls", ["lazy", "eager"], indirect=True)
def test_frames_one_ahead_of_the_other(opened: Any, clip: Any) -> None:
    """Each frame is uploaded before the faces of the one before it are recognised; the same slot is met again."""
    frames = [frame.pixels for frame in clip("both")[:20:5]]
    path, detector = opened(frames[0].shape[:2])
    slot = path.upload(frames[0])
    for pixels, following in zip(frames, [*frames[1:], frames[0]], strict=True):
        path.detect(slot)
        ahead = path.upload(following.copy())
        faces, want = slot.faces(), detector.detect(pixels)
        near(faces, want, 1e-3)
        numbers = list(range(len(faces)))
        answers = path.recognise(slot, faces.landmarks, [7] * len(faces), numbers)
        expected = seen_by_cpu(opened.made, pixels, want, numbers)
        assert answers.faults == [None] * len(faces)
        assert (answers.raw * expected.raw).sum(axis=1).min() > 0.999
        assert (answers.purified * expected.purified).sum(axis=1).min() > 0.99  # a pixel's level may draw another clone
        slot = ahead


@pytest.mark.data
@pytest.mark.parametrize("calls", ["lazy", "hasty"], indirect=True)
def test_a_frame_that_is_still_worked_on_is_not_overwritten(opened: Any, clip: Any) -> None:
    """Two newer frames are uploaded before anybody asks for the faces of the first, and before its faces are warped."""
    frames = [frame.pixels for frame in clip("both")[:50:10]]
    path, detector = opened(frames[0].shape[:2])
    for pixels in frames[3:5]:  # the first time is another: it waits, to be captured
        slot = path.upload(pixels)
        path.detect(slot)
        near(slot.faces(), detector.detect(pixels), 1e-3)
    slot = path.upload(frames[0])
    path.detect(slot)
    path.upload(frames[1])
    path.upload(frames[2])
    near(slot.faces(), detector.detect(frames[0]), 1e-3)


@pytest.mark.data
def test_a_large_frame_is_shrunk_and_no_face_is_no_answer(opened: Any, clip: Any, device: Device) -> None:
    pixels = clip("both")[0].pixels
    path, detector = opened(pixels.shape[:2], longest_side=320)
    for _ in range(2):
        slot = path.upload(pixels)
        path.detect(slot)
        near(slot.faces(), detector.detect(pixels), 0.5)
    slot = path.upload(np.zeros_like(pixels))
    path.detect(slot)
    assert len(slot.faces()) == 0
    with pytest.raises(ValueError, match="expected at least one face, got none"):
        path.recognise(slot, slot.faces().landmarks, [], [])
    before = dict(device.made)
    slot = path.upload(pixels)
    path.detect(slot)
    path.recognise(slot, slot.faces().landmarks[:1], [1], [1])
    path.recognise(slot, slot.faces().landmarks[:1], [1], [1])
    made = {name: count - before[name] for name, count in device.made.items() if count != before[name]}
    assert made.keys() <= {"device buffer", "pinned buffer", "graph"}  # the first use of a bucket, and of a slot
    settled = dict(device.made)
    path.recognise(slot, slot.faces().landmarks[:1], [1], [1])
    for _ in range(2):
        path.detect(path.upload(pixels))
    assert device.made == settled


@pytest.mark.data
def test_nv12(opened: Any, clip: Any) -> None:
    """What a camera of a Jetson gives: the same as from OpenCV's colours."""
    frame = clip("both")[0].pixels
    height, width = frame.shape[:2]
    planar = cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420)
    chroma = planar[height:].reshape(2, height // 2, width // 2).transpose(1, 2, 0).reshape(height // 2, width)
    nv12 = np.concatenate([planar[:height], chroma])
    pixels = np.asarray(cv2.cvtColor(nv12, cv2.COLOR_YUV2BGR_NV12), np.uint8)
    path, detector = opened((height, width), "nv12")
    slot = path.upload(nv12)
    path.detect(slot)
    faces, want = slot.faces(), detector.detect(pixels)
    near(faces, want, 0.05)
    answers = path.recognise(slot, faces.landmarks, [7] * len(faces), [1] * len(faces))
    expected = seen_by_cpu(opened.made, pixels, want, [1] * len(faces))
    assert (answers.raw * expected.raw).sum(axis=1).min() > 0.999


def test_what_does_not_fit_is_refused(opened: Any) -> None:
    path, _ = opened((64, 96))
    with pytest.raises(ValueError, match=r"pixels: expected shape \(64, 96, 3\), got \(96, 64, 3\)"):
        path.upload(np.zeros((96, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="expected dtype uint8"):
        path.upload(np.zeros((64, 96, 3), np.float32))  # type: ignore[arg-type]
    slot = path.upload(np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(ValueError, match="five finite points"):
        path.recognise(slot, np.zeros((1, 5, 2), np.float32), [0], [0])
    with pytest.raises(ValueError, match="expected bgr or nv12, got 'rgb'"):
        shape_of((2, 2), "rgb")
    with pytest.raises(ValueError, match="even height and width, got 3 and 2"):
        shape_of((3, 2), "nv12")


def test_matrices_go_back_from_the_crop_to_the_frame() -> None:
    """The template's points in the enlarged crop are the landmarks in the frame."""
    landmarks = np.stack([TEMPLATE * scale + 30 for scale in (0.7, 2.6)])
    matrices, shrinks = crops_to_frame(landmarks)
    assert shrinks.tolist() == [1, 2]
    for matrix, shrink, points in zip(matrices.reshape(2, 2, 3), shrinks, landmarks, strict=True):
        enlarged = TEMPLATE * shrink + (shrink - 1) / 2
        np.testing.assert_allclose(enlarged @ matrix[:, :2].T + matrix[:, 2], points, atol=1e-3)


@pytest.mark.data
def test_a_detector_on_the_device_in_the_cpus_place(both: Any, yunet: OnnxRunner, clip: Any, device: Device) -> None:
    """For as many sizes as memory is held for; others are searched on the CPU."""
    pixels = clip("man")[0].pixels
    with both("fixed", buckets=(1,)) as made:
        network = FakeNetwork(yunet, largest=1)
        detector = DeviceDetector(yunet, 640, network, made.path._parts.queued, made.path.stream)
        plain = Detector(yunet, 640)
        for cut in range(MOST_SIZES + 2):
            part = np.ascontiguousarray(pixels[: len(pixels) - 2 * cut])
            near(detector.detect(part), plain.detect(part), 1e-3)
        assert network.runs == MOST_SIZES
        near(detector.detect(pixels), plain.detect(pixels), 1e-3)
        assert network.runs == MOST_SIZES + 1
        detector.close()


@pytest.mark.data
def test_where_memory_is_short_pictures_are_searched_on_the_host(
    both: Any, yunet: OnnxRunner, clip: Any, device: Device
) -> None:
    pixels = clip("man")[0].pixels
    with both("fixed", buckets=(1,)) as made:
        given = made.path._parts.queued, FakeNetwork(yunet, largest=1), Detector(yunet)
        streams = made.path.stream, made.path.stream

        def use() -> None:
            FrameSlot(*given, pixels.shape[:2], "bgr", *streams).close()

        assert short_of_memory(device, use) == 5
        detector = DeviceDetector(yunet, 640, given[1], given[0], streams[0])
        before = device.live
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(device.calls, "allocate", lambda *_: [][0])
            near(detector.detect(pixels), given[2].detect(pixels), 1e-3)
        assert device.live == before
        assert given[1].runs == 0
        detector.close()


@pytest.mark.data
def test_an_engine_for_one_size_leaves_other_pictures_to_the_host(
    both: Any, yunet: OnnxRunner, clip: Any, device: Device
) -> None:
    pixels = clip("man")[0].pixels
    with both("fixed", buckets=(1,)) as made:
        engine = FakeEngine(yunet, device, (1,), (3, 288, 480))
        queued, stream = made.path._parts.queued, made.path.stream
        detector = DeviceDetector(yunet, 640, EngineNetwork(engine), queued, stream)
        plain = Detector(yunet, 640)
        for part in (pixels, pixels[:200].copy(), pixels):
            near(detector.detect(part), plain.detect(part), 1e-3)
        assert engine.runs == 2
        detector.close()
        engine.close()
