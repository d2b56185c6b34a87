"""The immune memory M: slots that hold what earlier antigens looked like.

After Ren et al., IJCV 2024, and its public research code, with one fault mended and one constant freed; see `Memory`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader knows
from torch import Tensor, nn

from immunogate.errors import UsageError
from immunogate.networks.analyzer import FEATURES

SLOTS = 128
"""Slots of the published memory."""

RATE = 0.999
"""What a winning slot keeps of itself in one training step."""


class Memory(nn.Module):
    """Answers a feature with a mixture of remembered ones: read = softmax(cosine(f, slots) / temperature) @ slots.

    In training mode each slot that is nearest to some f of the batch first moves a little towards their mean,
    m <- rate * m + (1 - rate) * mean, and the moved slots are read. In evaluation mode nothing changes. Slots take
    no gradient; gradients flow to f through the similarities.

    The published temperature is 1, at which the read hardly depends on f, since cosines differ by less than 2: that
    is why it is a parameter here. The published code also pulls every slot that nobody chose towards zero.

    Args:
        temperature: divides the cosines before the softmax; above 0. Smaller is sharper.
        paper_exact: let the slots that nobody chose decay to rate * m, as the published code does.
        features: length of f and of a slot.
        slots: number of slots.
        rate: what a chosen slot keeps of itself, in [0, 1].

    Raises:
        UsageError: the temperature is not a finite number above zero.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        *,
        paper_exact: bool = False,
        features: int = FEATURES,
        slots: int = SLOTS,
        rate: float = RATE,
    ) -> None:
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise UsageError(
                f"the memory's temperature is {temperature}",
                "Give a finite number above 0; 1 is the published one.",
            )
        self.temperature = temperature
        self.paper_exact = paper_exact
        self.rate = rate
        self.units = nn.Embedding(slots, features)
        # A parameter only because the public checkpoints name it so: no optimiser may move it.
        self.units.weight.requires_grad_(False)

    def scores(self, features: Tensor) -> Tensor:
        """Cosine of each feature with each slot: (B, features) float32 to (B, slots) in [-1, 1]."""
        return _cosines(features, self.units.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(B, features) float32 to the read of the same shape; moves the chosen slots first in training mode."""
        slots = self.units.weight
        if self.training:
            slots = self._moved(features.detach())
            with torch.no_grad():
                self.units.weight.copy_(slots)
        return F.softmax(_cosines(features, slots) / self.temperature, dim=1) @ slots

    def _moved(self, features: Tensor) -> Tensor:
        slots = self.units.weight.detach()
        chosen = _cosines(features, slots).argmax(dim=1)
        members = F.one_hot(chosen, len(slots)).to(features.dtype)
        counts = members.sum(dim=0).unsqueeze(1)
        means = members.T @ features / counts.clamp(min=1)
        moved = self.rate * slots + (1 - self.rate) * means
        return moved if self.paper_exact else torch.where(counts > 0, moved, slots)


def _cosines(features: Tensor, slots: Tensor) -> Tensor:
    return F.normalize(features, dim=1) @ F.normalize(slots, dim=1).T
