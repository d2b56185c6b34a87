from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from immunogate.manifest import DETECTOR_STRIDES
from immunogate.runtime.detect import Detector
from immunogate.training.detector.loss import Batch, losses
from immunogate.training.detector.scenes import Scene
from immunogate.training.detector.settings import DetectorSettings
from immunogate.training.detector.targets import LIMITS, Targets, cell_corners, targets_of

pytestmark = pytest.mark.torch

SIZE = 192
GRID = cell_corners(SIZE)
NOTHING = np.zeros((0, 4), np.float32)


def scene_of(*boxes: tuple[float, float, float, float], ignored: Any = NOTHING) -> Scene:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    places = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
    points = corners[:, None, :2] + places * (corners[:, 2:] - corners[:, :2])[:, None]
    return Scene(np.zeros((SIZE, SIZE), np.uint8), corners, points, np.asarray(ignored, np.float32))


def perfect_cells(targets: Targets) -> Any:
    """(1, C, 15): what a network without a fault would say."""
    corners, strides = GRID
    middles = (targets.boxes[:, :2] + targets.boxes[:, 2:]) / 2
    sides = np.maximum(targets.boxes[:, 2:] - targets.boxes[:, :2], 1e-3)
    cells = np.concatenate(
        [
            np.where(targets.score > 0, 12.0, -12.0)[:, None],
            (middles - corners) / strides[:, None],
            np.log(sides / strides[:, None]),
            (targets.points - np.tile(corners, 5)) / strides[:, None],
        ],
        axis=1,
    )
    return torch.from_numpy(cells.astype(np.float32))[None]


def batch_of(targets: Targets) -> Batch:
    fields = [
        torch.from_numpy(getattr(targets, key))[None] for key in ("score", "counted", "shared", "boxes", "points")
    ]
    return Batch(torch.zeros(1, 1, SIZE, SIZE), *fields)


def loss_of(cells: Any, targets: Targets) -> Any:
    return losses(cells, batch_of(targets), *map(torch.from_numpy, GRID), DetectorSettings())


def test_the_gates_detector_reads_perfect_cells_as_the_labels() -> None:
    """Targets, loss and run time mean the same by a cell."""
    scene = scene_of((20, 30, 44, 60), (90, 60, 165, 155), (120, 8, 138, 28))
    cells = perfect_cells(targets_of(scene, *GRID))[0].numpy()

    class Perfect:
        name = "perfect"

        def run(self, planes: Any) -> dict[str, Any]:
            outputs, start = {}, 0
            for stride in DETECTOR_STRIDES:
                grid = cells[None, start : start + (SIZE // stride) ** 2]
                start += grid.shape[1]
                outputs[f"cls_{stride}"] = outputs[f"obj_{stride}"] = 1 / (1 + np.exp(-grid[..., :1]))
                outputs[f"bbox_{stride}"], outputs[f"kps_{stride}"] = grid[..., 1:5], grid[..., 5:]
            return outputs

    runner: Any = Perfect()
    faces = Detector(runner).detect(np.zeros((SIZE, SIZE, 3), np.uint8))
    assert len(faces) == 3
    order, wanted = faces.boxes[:, 0].argsort(), scene.boxes[:, 0].argsort()
    np.testing.assert_allclose(faces.boxes[order], scene.boxes[wanted], atol=1e-2)
    np.testing.assert_allclose(faces.landmarks[order], scene.points[wanted], atol=1e-2)


def test_perfect_cells_have_no_loss_and_others_have() -> None:
    targets = targets_of(scene_of((20, 30, 44, 60), (90, 60, 165, 155)), *GRID)
    cells = perfect_cells(targets)
    best = loss_of(cells, targets)
    assert float(best.total) < 1e-3
    for column, part in ((0, "score"), (1, "box"), (4, "box"), (9, "point")):
        worse = cells.clone()
        worse[..., column] += 0.7 if column else -13.0
        found = loss_of(worse, targets)
        assert float(getattr(found, part)) > float(getattr(best, part)) + 0.01


def test_no_face_is_no_division_by_zero() -> None:
    targets = targets_of(scene_of(), *GRID)
    cells = torch.zeros(1, len(GRID[0]), 15, requires_grad=True)
    found = loss_of(cells, targets)
    found.total.backward()
    assert torch.isfinite(cells.grad).all()
    assert float(cells.grad[..., 0].min()) > 0  # every score is to fall
    assert not cells.grad[..., 1:].any()


@pytest.mark.parametrize("side", [14, 18, 27, 35, 44, 60, 100, 127, 150, 190])
def test_every_face_has_a_cell_that_must_answer(side: int) -> None:
    draw = np.random.default_rng(side)
    for _ in range(20):
        x, y = draw.uniform(0, SIZE - side, 2) if side < SIZE else (0, 0)
        targets = targets_of(scene_of((x, y, x + side, y + side)), *GRID)
        strides = set(GRID[1][targets.score > 0].tolist())
        home = DETECTOR_STRIDES[int(np.searchsorted(LIMITS, side)) - 1]
        assert home in strides
        assert (targets.counted[targets.score > 0] == 1).all()
        assert (targets.shared[targets.score > 0] > 0).all()


def test_a_cell_between_two_faces_answers_for_the_nearer() -> None:
    targets = targets_of(scene_of((10, 10, 70, 70), (72, 10, 132, 70)), *GRID)
    middles = GRID[0][:, 0] + (GRID[1] - 1) / 2
    chosen = targets.score > 0
    assert (targets.boxes[chosen & (middles < 71), 0] == 10).all()
    assert (targets.boxes[chosen & (middles > 71), 0] == 72).all()


def test_what_is_ignored_is_not_counted_but_faces_in_it_are() -> None:
    targets = targets_of(scene_of((20, 20, 80, 80), ignored=[[0, 0, 191, 191]]), *GRID)
    assert (targets.counted[targets.score > 0] == 1).all()
    assert targets.counted[targets.score == 0].sum() == 0
    free = targets_of(scene_of(), *GRID)
    assert (free.counted == 1).all()
    assert (free.score == 0).all()


def test_cells_around_those_that_must_may_answer_and_learn_the_box_too() -> None:
    targets = targets_of(scene_of((40, 40, 140, 140)), *GRID)
    either = (targets.score == 0) & (targets.shared > 0)
    assert either.sum() > 4
    assert (targets.counted[either] == 0).all()
    assert targets.counted[targets.shared == 0].all()
    assert targets.shared.max() < 0.5  # a face of many cells counts less than as many faces
