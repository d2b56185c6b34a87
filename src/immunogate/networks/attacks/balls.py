"""How far an attack may go: balls around the clean picture, cut by the box of pictures [-1, 1], and patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from immunogate.networks.attacks.signs import Bound

TINY = 1e-30


class Ball(Protocol):
    """A bound on the change of (B, D) points; ``rows`` says which samples they are."""

    def inside(self, points: Tensor, clean: Tensor, rows: Tensor) -> Tensor:
        """(b, D) points brought into the ball and the box."""

    def start(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """(B, D) random points of the ball, for all samples."""

    def direction(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """(b, D) the step of size 1 that gains the most along a gradient."""

    def reach(self, clean: Tensor) -> Tensor:
        """(B, 1) the radius, in the unit of a step."""


@dataclass(frozen=True, eq=False)
class LinfBall:
    """No pixel changes by more than ``eps``.

    Attributes:
        eps: on the scale of [-1, 1]; one number, or (B, 1).

    Raises:
        ValueError: eps is not in [0, 2].
    """

    eps: Bound

    def __post_init__(self) -> None:
        _check_eps(self.eps, 2.0)

    def inside(self, points: Tensor, clean: Tensor, rows: Tensor) -> Tensor:
        """See `Ball`."""
        eps = _of(self.eps, rows)
        return torch.maximum(torch.minimum(points, clean + eps), clean - eps).clamp(-1, 1)

    def start(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """See `Ball`; uniform in the ball."""
        noise = 2 * torch.rand(clean.shape, generator=generator).to(clean) - 1
        return self.inside(clean + self.eps * noise, clean, _all(clean))

    def direction(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """See `Ball`: the sign."""
        return gradient.sign()

    def reach(self, clean: Tensor) -> Tensor:
        """See `Ball`."""
        return torch.as_tensor(self.eps).to(clean).expand(len(clean), 1)


@dataclass(frozen=True, eq=False)
class L2Ball:
    """The Euclidean length of the change is at most ``eps``.

    Clamping to the box after shortening stays in the ball: both contain the clean picture, and no pixel moves away
    from it.

    Attributes:
        eps: on the scale of [-1, 1]; one number, or (B, 1).

    Raises:
        ValueError: eps is negative.
    """

    eps: Bound

    def __post_init__(self) -> None:
        _check_eps(self.eps, float("inf"))

    def inside(self, points: Tensor, clean: Tensor, rows: Tensor) -> Tensor:
        """See `Ball`."""
        change = points - clean
        length = change.norm(dim=1, keepdim=True)
        shorter = torch.where(length > _of(self.eps, rows), _of(self.eps, rows) / length.clamp_min(TINY), 1.0)
        return (clean + shorter * change).clamp(-1, 1)

    def start(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """See `Ball`; a direction drawn uniformly, a length uniform in [0, eps]."""
        towards = self.direction(torch.randn(clean.shape, generator=generator).to(clean), _all(clean))
        share = torch.rand(len(clean), 1, generator=generator).to(clean)
        return self.inside(clean + self.eps * share * towards, clean, _all(clean))

    def direction(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """See `Ball`: the gradient at unit length; where it is zero, zero."""
        largest = gradient.abs().amax(dim=1, keepdim=True).clamp_min(TINY)  # squares of a small gradient would vanish
        scaled = gradient / largest
        length: Tensor = scaled.norm(dim=1, keepdim=True).clamp_min(TINY)
        return scaled / length

    def reach(self, clean: Tensor) -> Tensor:
        """See `Ball`."""
        return torch.as_tensor(self.eps).to(clean).expand(len(clean), 1)


@dataclass(frozen=True, eq=False)
class Patch:
    """Any change within a region, none outside: a sticker or glasses, placed in the picture.

    Attributes:
        regions: (B, D) bool, where each sample may change.
    """

    regions: Tensor

    def inside(self, points: Tensor, clean: Tensor, rows: Tensor) -> Tensor:
        """See `Ball`."""
        return torch.where(self.regions[rows], points.clamp(-1, 1), clean)

    def start(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """See `Ball`; uniform pixels."""
        noise = 2 * torch.rand(clean.shape, generator=generator).to(clean) - 1
        return self.inside(noise, clean, _all(clean))

    def direction(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """See `Ball`: the sign within the region."""
        return gradient.sign() * self.regions[rows]

    def reach(self, clean: Tensor) -> Tensor:
        """See `Ball`: from grey to black or white."""
        return torch.ones(len(clean), 1).to(clean)


def square_regions(count: int, side: int, picture: tuple[int, int], seed: int, channels: int = 1) -> Tensor:
    """(B, D) bool: one square for each sample, at a place that depends on the seed and the sample's number alone.

    Args:
        count: B.
        side: of the square in pixels.
        picture: height and width in pixels; D is channels x height x width.
        seed: of the places.
        channels: planes of the picture, all with the same square.

    Raises:
        ValueError: the square does not fit.
    """
    height, width = picture
    if not 1 <= side <= min(height, width):
        raise ValueError(f"side: expected 1 .. {min(height, width)}, got {side}")
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, 2, generator=generator)
    corner = (places * torch.tensor([height - side + 1, width - side + 1])).long()
    down, right = torch.arange(height), torch.arange(width)
    in_rows = (down >= corner[:, :1]) & (down < corner[:, :1] + side)
    in_columns = (right >= corner[:, 1:]) & (right < corner[:, 1:] + side)
    square = in_rows[:, :, None] & in_columns[:, None, :]
    return square[:, None].expand(-1, channels, -1, -1).reshape(count, -1)


def _all(clean: Tensor) -> Tensor:
    return torch.arange(len(clean), device=clean.device)


def _of(eps: Bound, rows: Tensor) -> Bound:
    return eps[rows] if isinstance(eps, Tensor) and eps.ndim else eps


def _check_eps(eps: Bound, most: float) -> None:
    bounds = torch.as_tensor(eps)
    if bounds.ndim not in (0, 2) or (bounds.ndim == 2 and bounds.shape[1] != 1):
        raise ValueError(f"eps: expected one number or (B, 1), got {tuple(bounds.shape)}")
    if bounds.numel() and not 0 <= float(bounds.min()) <= float(bounds.max()) <= most:
        raise ValueError(f"eps: expected 0 to {most:g} on the scale of [-1, 1], got {eps}")
