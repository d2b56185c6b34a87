"""The spectral purifier: it never looks at pixels.

It reads the coefficients c = E (x - mu), which purification computes anyway, so that purifying a face costs two
products with E and a small dense network. This project's own design, not the paper's; analyzer, memory and generator
keep their roles.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from immunogate.basis import LEAST_REMAINDER, MOST_GRAIN
from immunogate.errors import UsageError
from immunogate.structs import CROP_SIZE

WIDTH = 512
SLOTS = 128
BANDS = 32
"""Groups of neighbouring eigenfaces whose loudness is summed up."""

LEAST_SCALE = 1e-6
"""A coefficient whose standard deviation is below this tells nothing; it is divided by this."""

_LEAST_MAGNITUDE = 0.05
_CENTRE = 0.6
"""Minus the mean of log(|z| + 0.05) for a standard normal z, rounded: what the own-magnitude term is centred with."""


class SlotMemory(nn.Module):
    """A residual read of learned slots: f + softmax(sharpness cosine(f, keys)) @ values.

    Unlike the published memory its slots are trained by gradient, so that none dies, and its sharpness is learned.

    Args:
        width: length of f.
        slots: number of slots.
    """

    def __init__(self, width: int = WIDTH, slots: int = SLOTS) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.randn(slots, width))
        self.values = nn.Parameter(torch.randn(slots, width) * 0.02)
        self.log_sharpness = nn.Parameter(torch.tensor(2.3))

    def forward(self, features: Tensor) -> Tensor:
        """(B, width) float32 to the same."""
        scores = _unit(features) @ _unit(self.keys).T
        return features + torch.softmax(scores * self.log_sharpness.exp(), dim=1) @ self.values


class SpectralPurifier(nn.Module):
    """From a face's spectrum to the probability of each eigenface, and of the remainder that no eigenface explains.

    Each probability sees all coefficients through analyzer and memory, and its own magnitude directly: shrinking
    what is small beside its usual size is the classical way to take noise away, and need not be learned anew for
    every eigenface. How much noise there is shows in few numbers, which would drown among thousands and have an
    entrance of their own: the loudness of bands of coefficients, the length of the remainder, and the grain.

    Args:
        scale: (n + 2,) usual size of each entry of `analyzer_input` over clean faces: its root mean square.
        width: of the hidden layers.
        gated: give a last probability, the share of the remainder that is let through.

    Raises:
        UsageError: a width below 1.
    """

    architecture = "spectral"
    reads = "spectrum"
    scale: Tensor
    bands: Tensor

    def __init__(self, scale: Tensor, width: int = WIDTH, *, gated: bool = True) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(f"a spectral purifier of width {width} was asked for", "Ask for at least 1")
        self.components = len(scale) - 2
        self.gated = gated
        outputs, bands = self.components + gated, min(BANDS, self.components)
        self.register_buffer("scale", scale.detach().clamp_min(LEAST_SCALE))
        self.register_buffer("bands", _bands(self.components, bands), persistent=False)
        self.details = nn.Linear(2 * self.components, width)
        self.loudness = nn.Linear(bands + 2, width)
        self.analyzer = nn.Sequential(
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.GELU(),
        )
        self.memory = SlotMemory(width)
        self.generator = nn.Linear(width, outputs)
        self.direct = nn.Linear(bands + 2, outputs, bias=False)
        self.own = nn.Parameter(torch.zeros(self.components))
        with torch.no_grad():
            self.generator.weight.mul_(0.1)
        self.begin_as_filter(0.2)

    @torch.no_grad()
    def begin_as_filter(self, deviation: float) -> None:
        """Begin near the Wiener filter v / (v + s^2) of each coefficient's variance v, with s by the grain.

        That is the best mask against white noise of deviation s in every coefficient; soft masks hold far better than
        the leading k eigenfaces do, so training begins there. s is ``deviation`` at twice the usual grain and grows
        with the grain's root.
        """
        log_odds = 2 * (self.scale.log() - math.log(deviation)) + 0.5 * math.log(4)
        self.generator.bias.copy_(log_odds[: len(self.generator.bias)].clamp(-5, 5))
        self.generator.bias[self.components :] = 0.0
        self.direct.weight.zero_()
        self.direct.weight[:, -1] = -0.5
        self.direct.weight[self.components :, -1] = -1.5

    def forward(self, spectrum: Tensor) -> Tensor:
        """(B, n + 2) float32, see `analyzer_input`, to (B, n) or, gated, (B, n + 1) float32 in (0, 1)."""
        standard = spectrum / self.scale
        own, rest = standard[:, : self.components], standard[:, self.components :]
        magnitude = torch.log(own.abs() + _LEAST_MAGNITUDE)
        loudness = torch.log(torch.cat([own.square() @ self.bands, rest.square()], dim=1) + _LEAST_MAGNITUDE**2)
        details = self.details(torch.cat([own.clamp(-8, 8), magnitude], dim=1))
        log_odds = self.generator(self.memory(self.analyzer(details + self.loudness(loudness))))
        log_odds = log_odds + self.direct(loudness)
        own_odds = self.own * (magnitude + _CENTRE)
        if self.gated:
            own_odds = torch.cat([own_odds, torch.zeros_like(own_odds[:, :1])], dim=1)
        return torch.sigmoid(log_odds + own_odds)


def analyzer_input(faces: Tensor, centred: Tensor, coefficients: Tensor) -> Tensor:
    """What the spectral purifier reads: (B, n + 2) coefficients c, length of the remainder r, grain.

    r = x - mu - E' c is what no eigenface explains: one more direction, the face's own, with the coefficient |r|.
    E has orthonormal rows, so that |r|^2 = |x - mu|^2 - |c|^2 needs no reconstruction. The grain is defined in
    `immunogate.kernels.reference.grain`.

    Args:
        faces: (B, D) in [-1, 1].
        centred: (B, D) faces minus the mean face.
        coefficients: (B, n) their products with the eigenfaces.
    """
    rest = centred.square().sum(dim=1, keepdim=True) - coefficients.square().sum(dim=1, keepdim=True)
    length = rest.clamp_min(LEAST_REMAINDER**2).sqrt()
    rows = faces.reshape(-1, CROP_SIZE, CROP_SIZE)
    mixed = rows[:, 1:, 1:] - rows[:, :-1, 1:] - rows[:, 1:, :-1] + rows[:, :-1, :-1]
    grain = (mixed.abs() / 2).clamp_max(MOST_GRAIN).mean(dim=(1, 2))
    return torch.cat([coefficients, length, grain[:, None]], dim=1)


def _bands(components: int, bands: int) -> Tensor:
    """(n, bands): what each coefficient's square adds to the mean of its band."""
    band = torch.arange(components) * bands // components
    members = torch.nn.functional.one_hot(band, bands).to(torch.float32)
    return members / members.sum(dim=0)


def _unit(rows: Tensor) -> Tensor:
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return unit
