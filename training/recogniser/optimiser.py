"""Steps for convolutions that a BatchNorm follows: momentum, made orthogonal, of a fixed length beside the weights.

Orthogonal momentum: Jordan et al., "Muon" (2024), https://kellerjordan.github.io/posts/muon. A BatchNorm takes away the
length of the weights before it, so they are kept at one length and the learning rate is the share of it that a step
moves them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.9

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic whose powers press all singular values towards 1
_ROUNDS = 5


class Orthogonal(torch.optim.Optimizer):
    """Moves each weight along its orthogonalised momentum.

    Args:
        weights: of convolutions without offset, each followed by a BatchNorm; (C, ...) is taken as C rows.
        lr: share of a weight's length that one step moves it.
    """

    def __init__(self, weights: Iterable[Tensor], lr: float) -> None:
        super().__init__(list(weights), {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; a weight without gradient stays."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
                ahead = torch.lerp(weight.grad, momentum, MOMENTUM)
                length = weight.shape[0] ** 0.5
                way = orthogonal(ahead.flatten(1)).view(weight.shape)
                weight.mul_(length / weight.norm().clamp_min(1e-12))
                weight.sub_(way, alpha=group["lr"] * length / float(way.norm().clamp_min(1e-12)))


def orthogonal(matrix: Tensor) -> Tensor:
    """About U V' of the singular value decomposition U S V' of a matrix, by Newton and Schulz."""
    a, b, c = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    found: Tensor = wide / wide.norm().clamp_min(1e-12)
    for _ in range(_ROUNDS):
        square = found @ found.T
        found = a * found + (b * square + c * square @ square) @ found
    return found if matrix.shape[0] <= matrix.shape[1] else found.T
