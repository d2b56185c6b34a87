"""What is attacked: the gate that decides, and what stands in for it where gradients are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from immunogate.networks.attacks.signs import Embed, refuse_training

JUDGING = 1 << 31
"""First draw number of those that judge. Gradients take draws from 0, so no point is judged by draws it was made for;
both fit the 32-bit frame number of a clone's key."""


class Attackable(Protocol):
    """Embeds the points of some of the samples."""

    def __call__(self, points: Tensor, rows: Tensor, draw: int) -> Tensor:
        """Embeddings of attacked points.

        A row's embedding depends on its own point, its own number and the draw, never on what else is in the batch:
        a search drops the samples that are lost.

        Args:
            points: (b, D) in [-1, 1].
            rows: (b,) int64, which of the attacked samples they are.
            draw: number of the draw, below 2**32; the same number gives the same clones.

        Returns:
            (b, E) embeddings of any length above 0.
        """


@dataclass(frozen=True, eq=False)
class Target:
    """A gate and the way its gradient is had.

    Attributes:
        deployed: what decides; need not be differentiable if there is a surrogate.
        surrogate: what gradients are taken of; None where the gate itself has them.
        random: whether the answers depend on the draw.
        draws: r, gradients averaged a step (expectation over transformation, Athalye et al., ICML 2018).
        judges: draws whose mean similarity judges a point, the same ones for all points.

    Raises:
        ValueError: a number is below 1, or a gate without randomness is drawn more than once.
    """

    deployed: Attackable
    surrogate: Attackable | None = None
    random: bool = False
    draws: int = 1
    judges: int = 1

    def __post_init__(self) -> None:
        if self.draws < 1 or self.judges < 1 or (not self.random and (self.draws, self.judges) != (1, 1)):
            raise ValueError(
                "Target: expected draws and judges of at least 1, and more than 1 only of a random gate, got "
                f"{self.draws}, {self.judges}, random={self.random}"
            )

    @property
    def judged_by_its_gradient(self) -> bool:
        """Whether the pass that gives the gradient gives the true score as well."""
        return self.surrogate is None and not self.random

    @property
    def differentiable(self) -> Attackable:
        """What gradients are taken of."""
        return self.deployed if self.surrogate is None else self.surrogate


def deterministic(embed: Embed) -> Attackable:
    """An embedding that draws nothing, as something to attack.

    Args:
        embed: (B, D) faces to (B, E) embeddings.

    Raises:
        ValueError: ``embed`` is a module in training mode.
    """
    refuse_training(embed)

    def embedded(points: Tensor, rows: Tensor, draw: int) -> Tensor:
        return embed(points)

    return embedded


@torch.no_grad()
def embedded_in_batches(embed: Attackable, points: Tensor, draw: int = JUDGING, batch: int = 16) -> Tensor:
    """(B, E) embeddings of all samples, ``batch`` at a time, without gradients."""
    rows = torch.arange(len(points), device=points.device)
    return torch.cat([embed(points[some], some, draw) for some in parts_of(rows, batch)])


def parts_of(rows: Tensor, batch: int) -> list[Tensor]:
    """(b,) row numbers in parts of at most ``batch``."""
    return [rows[begin : begin + batch] for begin in range(0, len(rows), batch)]
