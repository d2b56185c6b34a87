"""How wrong the cells are: focal loss of the scores, generalised overlap of the boxes, distance of the points.

Sources: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017; Rezatofighi et al., "Generalized Intersection
over Union", CVPR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from immunogate.training.detector.settings import DetectorSettings

FOCUS = 1.5
"""Power by which cells that are already right lose weight."""

BEND = 0.015
"""Distance in sides of the face below which the loss of a point is square."""

SHARP = 40.0
"""Side in pixels below which a face's points count less, by the square: they can not be told as well."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Scenes and targets of B scenes with C cells each, as tensors on one device; see `Targets`.

    Attributes:
        pictures: (B, 1, S, S) float32 in [0, 1].
        score: (B, C).
        counted: (B, C).
        shared: (B, C).
        boxes: (B, C, 4).
        points: (B, C, 10).
    """

    pictures: Tensor
    score: Tensor
    counted: Tensor
    shared: Tensor
    boxes: Tensor
    points: Tensor


@dataclass(frozen=True, eq=False)
class Losses:
    """The weighted sum, and its parts before they are weighted."""

    total: Tensor
    score: Tensor
    box: Tensor
    point: Tensor


def losses(cells: Tensor, batch: Batch, corners: Tensor, strides: Tensor, settings: DetectorSettings) -> Losses:
    """The loss of one batch.

    Args:
        cells: (B, C, 15), the network's grids one after the other.
        batch: what they should say.
        corners: (C, 2) of the cells in pixels.
        strides: (C,) of the cells in pixels.
        settings: the weights.
    """
    logits = cells[..., 0]
    wrong = (logits.detach().sigmoid() - batch.score).abs() ** FOCUS
    plain = binary_cross_entropy_with_logits(logits, batch.score, reduction="none")
    score = (plain * wrong * batch.counted).sum() / batch.score.sum().clamp(min=1)
    chosen = batch.shared > 0
    if not bool(chosen.any()):
        none = cells.sum() * 0
        return Losses(settings.score_weight * score, score, none, none)
    share = batch.shared[chosen] / batch.shared[chosen].sum()
    at, stride = (values.expand(*chosen.shape, *values.shape[1:])[chosen] for values in (corners, strides))
    said, boxes = cells[chosen], batch.boxes[chosen]
    box = ((1 - _generalised_overlap(_decoded(said[:, 1:5], at, stride), boxes)) * share).sum()
    points = said[:, 5:] * stride[:, None] + at.repeat(1, 5)
    side = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()[:, None]
    distance = smooth_l1_loss(points / side, batch.points[chosen] / side, reduction="none", beta=BEND)
    point = (distance.mean(dim=1) * share * (side[:, 0] / SHARP).clamp(max=1).square()).sum()
    total = settings.score_weight * score + settings.box_weight * box + settings.point_weight * point
    return Losses(total, score, box, point)


def _decoded(said: Tensor, corners: Tensor, strides: Tensor) -> Tensor:
    centres = corners + said[:, :2] * strides[:, None]
    halves = said[:, 2:].clamp(-6, 6).exp() * strides[:, None] / 2
    return torch.cat([centres - halves, centres + halves], dim=1)


def _generalised_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Of pairs of boxes (n, 4): intersection over union, less the share of their hull that is in neither."""
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1) for boxes in (first, second)]
    inner = torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])
    outer = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    common, hull = inner.clamp(min=0).prod(dim=1), outer.prod(dim=1).clamp(min=1e-6)
    union = (areas[0] + areas[1] - common).clamp(min=1e-6)
    return common / union - (hull - union) / hull
