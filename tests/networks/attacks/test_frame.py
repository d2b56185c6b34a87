from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.runtime.align import TEMPLATE, align, similarity_to_large_crop
from immunogate.runtime.camera import open_camera

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.attacks import LinfBall, Pgd, Target, dodging, from_levels, search  # noqa: E402
from immunogate.networks.attacks.frame import FrameGate, Warp, frames_from_points, points_from_frames  # noqa: E402

APART = 4e-3
"""Share of pixels that may be rounded the other way, because what is rounded lies at a half but for its last bits.
Three channels of noise are rounded twice; on real crops it is at most one in a thousand."""


def levels(faces: Any) -> Any:
    return ((faces + 1) * 127.5).reshape(-1, 112, 112).numpy()


def placed(scale: float, degrees: float, centre: tuple[float, float]) -> Any:
    turn = np.exp(1j * np.deg2rad(degrees)) * scale
    points = (TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1] - 56 - 56j) * turn + complex(*centre)
    return np.stack([points.real, points.imag], axis=1).astype(np.float32)


def assert_alike(face: Any, crop: Any, apart: float = APART) -> None:
    """Well below half a grey level: equal but for what is rounded the other way."""
    difference = np.abs(face - crop)
    assert (difference > 0.01).mean() <= apart
    assert difference.max() <= 1.01


@pytest.mark.parametrize("scale", [0.613, 1.017, 1.719, 2.531, 3.377, 4.239])
@pytest.mark.parametrize("degrees", [0, 23])
def test_the_warp_is_that_of_the_gate(scale: float, degrees: float) -> None:
    draw = np.random.default_rng(int(10 * scale) + degrees)
    small = draw.integers(0, 256, (30, 40, 3)).astype(np.float32)
    frame = np.clip(np.kron(small, np.ones((10, 10, 1))) + draw.normal(0, 8, (300, 400, 3)), 0, 255).astype(np.uint8)
    for centre in ((200.3, 150.7), (30.1, 20.6)):  # the second reaches over the edge
        crop = similarity_to_large_crop(placed(scale, degrees, centre))
        face = Warp([crop], 300, 400)(points_from_frames(frame[None]), torch.tensor([0]))
        assert_alike(levels(face)[0], align(frame, placed(scale, degrees, centre)))


@pytest.mark.data
def test_the_warp_is_that_of_the_gate_on_real_crops(data_dir: Path, dynamic_yunet: bytes) -> None:
    from immunogate.runtime.detect import Detector
    from immunogate.runtime.runners.onnx import OnnxRunner

    detector = Detector(OnnxRunner(dynamic_yunet, "detector.onnx"))
    frames = read(data_dir / "video/head-pose-face-detection-female-and-male.gif", (0, 20, 40))
    compared = 0
    for frame in frames:
        for landmarks in detector.detect(frame).landmarks:
            warp = Warp([similarity_to_large_crop(landmarks)], *frame.shape[:2])
            face = levels(warp(points_from_frames(frame[None]), torch.tensor([0])))[0]
            assert_alike(face, align(frame, landmarks), 1e-3)
            compared += 1
    assert compared >= 3


def read(path: Path, numbers: tuple[int, ...]) -> list[Any]:
    with open_camera(str(path)) as camera:
        frames = [frame.pixels for frame in camera]
    return [frames[number] for number in numbers]


def test_each_sample_keeps_its_own_warp_when_others_are_dropped() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (3, 120, 130, 3)).astype(np.uint8)
    crops = [similarity_to_large_crop(placed(scale, 5, (65, 60))) for scale in (0.5, 0.8, 2.2)]
    warp, points = Warp(crops, 120, 130), points_from_frames(frames)
    whole = warp(points, torch.arange(3))
    assert torch.equal(warp(points[[2, 0]], torch.tensor([2, 0])), whole[[2, 0]])


def test_frames_survive_the_way_there_and_back() -> None:
    frames = np.random.default_rng(2).integers(0, 256, (2, 8, 9, 3)).astype(np.uint8)
    points = points_from_frames(frames)
    assert np.array_equal(frames_from_points(points, 8, 9), frames)
    attacked = (points + from_levels(3) * (2 * torch.rand(points.shape) - 1)).clamp(-1, 1)
    back = frames_from_points(attacked, 8, 9).astype(int)
    assert np.abs(back - frames).max() <= 3


def test_an_attack_on_the_frame_goes_through_the_warp_and_survives_whole_levels() -> None:
    frames = np.random.default_rng(3).integers(40, 216, (2, 90, 100, 3)).astype(np.uint8)
    crops = [similarity_to_large_crop(placed(0.7, 4 * row, (50, 45))) for row in range(2)]
    warp = Warp(crops, 90, 100)
    weights = torch.randn(112 * 112, 4, generator=torch.Generator().manual_seed(0))

    def embed(faces: Any, rows: Any, draw: int) -> Any:
        return faces @ weights

    gate, points, rows = FrameGate(embed, warp), points_from_frames(frames), torch.arange(2)
    goal = dodging(gate(points, rows, 0))
    found = search(Target(gate), points, goal, LinfBall(from_levels(4)), Pgd(12))
    sent = points_from_frames(frames_from_points(found.points, 90, 100))
    assert float((sent - points).abs().max()) <= from_levels(4) + 1e-6
    scores = goal.score(gate(sent, rows, 0), rows)
    assert float(found.scores.max()) < 0.9
    assert float((scores - found.scores).abs().max()) < 0.05
    faces = np.stack([align(frame, placed(0.7, 4 * row, (50, 45)))
                      for row, frame in enumerate(frames_from_points(found.points, 90, 100))])  # fmt: skip
    replayed = goal.score(embed(torch.from_numpy(faces.reshape(2, -1)).float() / 127.5 - 1, rows, 0), rows)
    torch.testing.assert_close(replayed, scores, atol=1e-3, rtol=0)


def test_a_warp_that_can_not_be_undone_is_refused() -> None:
    with pytest.raises(ValueError, match="inverted"):
        Warp([(np.zeros((2, 3)), 1)], 10, 10)
