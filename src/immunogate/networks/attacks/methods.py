"""How a search steps: PGD with momentum, and APGD. Both work on dicts of plain tensors, whose rows are samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from immunogate.networks.attacks.balls import TINY, Ball
from immunogate.networks.attacks.schedule import checkpoints, halves

Tensors = dict[str, Tensor]

INERTIA = 0.75
"""alpha of APGD: the share of a step that is new; the rest goes on as before."""


class Method(Protocol):
    """A way to step; frozen, all that changes is in the tensors."""

    @property
    def steps(self) -> int:
        """Gradient steps of each restart."""

    @property
    def restarts(self) -> int:
        """Trajectories."""

    @property
    def seed(self) -> int:
        """Of the random starts."""

    def begin(self, start: Tensor, reach: Tensor) -> Tensors:
        """Tensors of a trajectory at its (B, D) start; ``point`` is among them. ``reach`` is (B, 1)."""

    def move(
        self, own: Tensors, clean: Tensor, rows: Tensor, ball: Ball, step: int, gain: Tensor, gradient: Tensor
    ) -> Tensors:
        """The tensors one step later.

        Args:
            own: of some samples.
            clean: (b, D) their clean points.
            rows: (b,) which samples they are.
            ball: what keeps them.
            step: from 0.
            gain: (b,) at ``point``.
            gradient: (b, D) of it.
        """


@dataclass(frozen=True)
class Pgd:
    """Projected gradient ascent with momentum.

    Sources: Madry et al., ICLR 2018; momentum as MI-FGSM, Dong et al., CVPR 2018: the velocity is a sum of gradients,
    each divided by its mean size.

    Attributes:
        steps: of each restart.
        restarts: each from its own random start.
        momentum: share of the velocity that stays; 0 is plain PGD.
        share: step as a share of the ball's radius; by default 2.5 / steps.
        seed: of the starts.

    Raises:
        ValueError: a number is out of range.
    """

    steps: int
    restarts: int = 1
    momentum: float = 0.0
    share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check_counts(self.steps, self.restarts)
        if not 0 <= self.momentum <= 1 or (self.share is not None and not self.share > 0):
            raise ValueError(f"Pgd: expected momentum in [0, 1] and share above 0, got {self.momentum}, {self.share}")

    def begin(self, start: Tensor, reach: Tensor) -> Tensors:
        """See `Method`."""
        size = reach * (2.5 / self.steps if self.share is None else self.share)
        return {"point": start.clone(), "velocity": torch.zeros_like(start), "size": size.clone()}

    def move(
        self, own: Tensors, clean: Tensor, rows: Tensor, ball: Ball, step: int, gain: Tensor, gradient: Tensor
    ) -> Tensors:
        """See `Method`."""
        velocity = self.momentum * own["velocity"] + gradient / gradient.abs().mean(dim=1, keepdim=True).clamp_min(TINY)
        moved = own["point"] + own["size"] * ball.direction(velocity, rows)
        return {**own, "velocity": velocity, "point": ball.inside(moved, clean, rows)}


@dataclass(frozen=True)
class Apgd:
    """Auto-PGD: no step size to choose.

    Source: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
    Attacks", ICML 2020, algorithm 1. It begins with steps of twice the radius, and at the checkpoints of `schedule`
    halves the step of a sample that no longer gains and takes it back to its best point.

    Attributes:
        steps: of each restart.
        restarts: each from its own random start.
        seed: of the starts.

    Raises:
        ValueError: a number is out of range.
    """

    steps: int
    restarts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_counts(self.steps, self.restarts)

    def begin(self, start: Tensor, reach: Tensor) -> Tensors:
        """See `Method`."""
        unknown = torch.full_like(start[:, 0], -torch.inf)
        return {
            "point": start.clone(),
            "previous": start.clone(),
            "size": 2 * reach,
            "gain": unknown.clone(),
            "rises": torch.zeros_like(unknown),
            "kept_size": torch.zeros_like(unknown, dtype=torch.bool),
            "peak_before": unknown.clone(),
            "peak": unknown.clone(),
            "peak_point": start.clone(),
            "peak_gradient": torch.zeros_like(start),
        }

    def move(
        self, own: Tensors, clean: Tensor, rows: Tensor, ball: Ball, step: int, gain: Tensor, gradient: Tensor
    ) -> Tensors:
        """See `Method`."""
        own = _remembered(own, step, gain, gradient)
        if step in (marks := checkpoints(self.steps)):
            last = max([0, *(mark for mark in marks if mark < step)])
            own, gradient = _looked_back(own, step - last, gradient)
        point, alpha = own["point"], INERTIA if step else 1.0
        ahead = ball.inside(point + own["size"] * ball.direction(gradient, rows), clean, rows)
        moved = point + alpha * (ahead - point) + (1 - alpha) * (point - own["previous"])
        return {**own, "previous": point, "point": ball.inside(moved, clean, rows)}


def _remembered(own: Tensors, step: int, gain: Tensor, gradient: Tensor) -> Tensors:
    """Counts a rise and keeps the best point with its gradient."""
    rises = own["rises"] + (gain > own["gain"]) if step else own["rises"]
    peak = gain > own["peak"]
    return {
        **own,
        "gain": gain,
        "rises": rises,
        "peak": torch.where(peak, gain, own["peak"]),
        "peak_point": torch.where(peak[:, None], own["point"], own["peak_point"]),
        "peak_gradient": torch.where(peak[:, None], gradient, own["peak_gradient"]),
    }


def _looked_back(own: Tensors, length: int, gradient: Tensor) -> tuple[Tensors, Tensor]:
    """Halves the steps of those that gain too little, and takes them back to their best point and its gradient."""
    back = halves(own["rises"], length, own["kept_size"], own["peak_before"], own["peak"])
    changed = {
        **own,
        "size": torch.where(back[:, None], own["size"] / 2, own["size"]),
        "point": torch.where(back[:, None], own["peak_point"], own["point"]),
        "gain": torch.where(back, own["peak"], own["gain"]),
        "kept_size": ~back,
        "peak_before": own["peak"],
        "rises": torch.zeros_like(own["rises"]),
    }
    return changed, torch.where(back[:, None], own["peak_gradient"], gradient)


def _check_counts(steps: int, restarts: int) -> None:
    if steps < 1 or restarts < 1:
        raise ValueError(f"expected steps and restarts of at least 1, got {steps} and {restarts}")
