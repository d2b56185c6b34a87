"""What the student is asked for: the teacher's embeddings, their relations, and at first the teacher's maps.

Embeddings as targets, and maps through a 1 x 1 convolution: Romero et al., "FitNets", ICLR 2015. Relations of a batch:
Park et al., "Relational knowledge distillation", CVPR 2019, here the cosines between all pairs, since false matches
are made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from immunogate.networks.gateface import NECK, STAGES
from immunogate.training.recogniser.teacher import HINT_CHANNELS, Labels


class Projections(nn.ModuleList):
    """From the student's maps to the teacher's, a 1 x 1 convolution each; of no use after training."""

    def __init__(self) -> None:
        channels = (*(stage[0] for stage in STAGES[-2:]), NECK)
        super().__init__(nn.Conv2d(own, taught, 1) for own, taught in zip(channels, HINT_CHANNELS, strict=True))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Of all maps of the student the last, as guesses of the teacher's."""
        return [project(own) for project, own in zip(self, maps[-len(self) :], strict=True)]


@dataclass(frozen=True, eq=False)
class Objective:
    """Scalars: what is minimised, and its parts.

    Attributes:
        total: weighted sum of the parts.
        distance: mean of 1 - cosine between student and teacher.
        relation: mean squared difference of the cosines of all pairs of two faces.
        hints: mean squared error of the standardised maps, 1 for guessing the mean; 0 without hints.
    """

    total: Tensor
    distance: Tensor
    relation: Tensor
    hints: Tensor


def relation(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Mean squared difference between the cosines of all pairs of two faces and those of their targets.

    Source: Park et al., "Relational knowledge distillation", CVPR 2019.

    Args:
        embeddings: (B, E) of unit length.
        targets: (B, E) of unit length.
    """
    difference = embeddings @ embeddings.T - targets @ targets.T
    return difference.square().sum() / max(1, len(embeddings) * (len(embeddings) - 1))  # the diagonal is 0


def objective(
    embeddings: Tensor, guesses: Sequence[Tensor], labels: Labels, relation_weight: float, hint_weight: float
) -> Objective:
    """The student's loss of a batch.

    Args:
        embeddings: (B, 128) of the student, of any length.
        guesses: of the teacher's maps, as many as there are hints.
        labels: of the same faces.
        relation_weight: see `DistilSettings`.
        hint_weight: at this step.
    """
    unit = nn.functional.normalize(embeddings.float(), dim=1)
    distance = 1 - (unit * labels.embeddings).sum(dim=1).mean()
    related = relation(unit, labels.embeddings)
    hints = torch.zeros((), device=unit.device)
    for guess, hint in zip(guesses, labels.hints, strict=True):
        hints = hints + (guess - hint).square().float().mean() / len(guesses)
    return Objective(distance + relation_weight * related + hint_weight * hints, distance, related, hints)
