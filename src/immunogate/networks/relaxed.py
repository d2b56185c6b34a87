"""Masks of 0 and 1 with a gradient: the binary concrete distribution.

Sources: Maddison, Mnih, Teh, "The Concrete Distribution", and Jang, Gu, Poole, "Categorical Reparameterization with
Gumbel-Softmax", both ICLR 2017; straight-through: Bengio, Leonard, Courville, 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor


def concrete(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """A relaxed draw in (0, 1): above one half with the probability sigmoid(logits).

    Args:
        logits: of any shape.
        uniform: in (0, 1), of a shape that fits, the draw.
        temperature: of the relaxation, about 0.7; towards 0 it becomes 0 or 1.
    """
    noise = torch.log(uniform) - torch.log1p(-uniform)
    return torch.sigmoid((logits + noise) / temperature)


def relaxed_mask(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """A drawn mask whose gradient is that of the binary concrete distribution.

    Forward it is exactly 0 or 1 and distributed as Bernoulli(sigmoid(logits)); backward it is the relaxed sample.

    Args:
        logits: (B, n).
        uniform: (B, n) in (0, 1), the draw.
        temperature: as `concrete`.
    """
    soft = concrete(logits, uniform, temperature)
    return with_gradient((soft > 0.5).to(soft.dtype), soft)


def with_gradient(values: Tensor, soft: Tensor) -> Tensor:
    """Exactly ``values``, with the gradient of ``soft``; shapes have to fit."""
    return values + (soft - soft.detach())  # in this order: (values + soft) - soft would be rounded
