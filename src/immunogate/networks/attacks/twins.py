"""Differentiable stand-ins for a gate that chooses eigenfaces: the torch twin with the clones that are deployed.

A mask of 0 and 1 has no gradient, which hides a way through the defence without closing it (Athalye, Carlini, Wagner,
"Obfuscated Gradients Give a False Sense of Security", ICML 2018). Each variant puts another gradient in its place; an
evaluation attacks with all of them and takes the worst for each pair (`search.worst`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader knows
from torch import Tensor

from immunogate.networks.attacks.signs import refuse_training
from immunogate.networks.relaxed import concrete, with_gradient
from immunogate.networks.spectral import analyzer_input
from immunogate.networks.twin import TorchTwin, seen

Variant = Literal["exact", "constant", "straight-through", "expected", "relaxed"]
VARIANTS: tuple[str, ...] = get_args(Variant)

Clones = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""The clones that the gate keeps: (b, n) probabilities, (b, n) genes' coefficients (gated, the remainder's length
last), (b,) sample numbers and the draw number give (b, m, n) masks of 0 and 1. Rows must not depend on each other."""

TEMPERATURE = 0.7
CLEAR = 1e-6
"""Probabilities and draws are kept this far from 0 and 1 before a logarithm."""


def variants_of(mode: str) -> tuple[str, ...]:
    """The gradients worth trying on an inference mode.

    ``exact`` is the mode's own gradient; ``constant`` takes the antibody for given, so that only the projection and
    the recogniser are followed; ``straight-through`` passes the gradient of the masks on to the probabilities;
    ``expected`` computes with the probabilities as a soft mask instead (backward pass differentiable approximation);
    ``relaxed`` has the masks of the gate and the gradient of the binary concrete distribution given these masks.
    """
    if mode == "fixed":
        return ("exact",)
    return ("exact", "constant") if mode == "expected" else ("straight-through", "expected", "relaxed", "constant")


class TwinGate:
    """The whole defence as something to attack, see `target.Attackable`.

    Args:
        twin: purifier, recogniser and views.
        mode: inference mode as deployed; of the twin's own if None.
        variant: the gradient; forward all but ``expected`` give what the gate gives.
        clones: what draws and selects, for modes sample and select.
        seed: of the relaxed draws.
        temperature: of the relaxation.

    Raises:
        ValueError: the mode does not know the variant, or needs clones, or a network is in training mode.
    """

    def __init__(
        self,
        twin: TorchTwin,
        mode: str | None = None,
        variant: str | None = None,
        clones: Clones | None = None,
        seed: int = 0,
        temperature: float = TEMPERATURE,
    ) -> None:
        refuse_training(twin)
        self._twin, self._clones, self._seed, self._temperature = twin, clones, seed, temperature
        self.mode = twin.mode if mode is None else mode
        self.variant = variants_of(self.mode)[0] if variant is None else variant
        if self.variant not in variants_of(self.mode):
            raise ValueError(f"variant: mode {self.mode} knows {variants_of(self.mode)}, got {self.variant!r}")
        if self.mode in ("sample", "select") and clones is None:
            raise ValueError(f"mode {self.mode} draws clones: say what draws them")

    @property
    def random(self) -> bool:
        """Whether the gate's answers depend on the draw."""
        return self.mode in ("sample", "select")

    def __call__(self, points: Tensor, rows: Tensor, draw: int) -> Tensor:
        """(b, D) faces to (b, E) embeddings: the unit mean over kept clones and views, as the chain takes it."""
        if self.mode == "fixed":
            embeddings: Tensor = self._twin(points)
            return embeddings
        centred = points - self._twin.mean
        coefficients = centred @ self._twin.basis.T
        antibodies = self._antibodies(points, centred, coefficients, rows, draw)
        return self._seen(
            [self._twin.act(centred, coefficients, antibodies[:, kept]) for kept in range(antibodies.shape[1])]
        )

    def _seen(self, purified: list[Tensor]) -> Tensor:
        """The unit mean over (b, D) purified faces and all views."""
        views = self._twin.views
        each = [self._twin.embed(seen(faces, view)) for faces in purified for view in views]
        return each[0] if len(each) == 1 else F.normalize(torch.stack(each).mean(dim=0), dim=1)

    def _antibodies(self, points: Tensor, centred: Tensor, coefficients: Tensor, rows: Tensor, draw: int) -> Tensor:
        """(b, m, n) with the variant's gradient."""
        p = self._twin.probabilities_of(points, centred, coefficients)
        if self.variant == "expected" or self.mode == "expected":
            return (p.detach() if self.variant == "constant" else p)[:, None]
        masks = self._masks(p.detach(), points.detach(), centred.detach(), coefficients.detach(), rows, draw)
        if self.variant == "constant":
            return masks
        soft = p[:, None] if self.variant == "straight-through" else self._relaxed(p, masks, rows, draw)
        return with_gradient(masks, soft)

    @torch.no_grad()
    def _masks(
        self, p: Tensor, points: Tensor, centred: Tensor, coefficients: Tensor, rows: Tensor, draw: int
    ) -> Tensor:
        """(b, m, n) masks as deployed."""
        if self.mode == "threshold" or self._clones is None:
            return (p > 0.5).to(p.dtype)[:, None]
        genes = p.shape[1]
        spectrum = coefficients
        if genes > coefficients.shape[1]:
            spectrum = analyzer_input(points, centred, coefficients)[:, :genes]
        return self._clones(p, spectrum, rows, draw).to(p)

    def _relaxed(self, p: Tensor, masks: Tensor, rows: Tensor, draw: int) -> Tensor:
        """(b, m, n) relaxed draws on the side of one half on which the masks are.

        A gene is chosen where a uniform u is below p; given the mask, u is uniform below or above p (as in Tucker et
        al., "REBAR", NIPS 2017). A threshold's u is one half.
        """
        odds = torch.logit(p, eps=CLEAR)[:, None]
        below = p.detach()[:, None].clamp(CLEAR, 1 - CLEAR)
        if self.mode == "threshold":
            return concrete(odds, torch.full_like(masks, 0.5), self._temperature)
        v = torch.stack([self._uniform(masks[0], int(row), draw) for row in rows]).to(masks)
        u = torch.where(masks > 0.5, v * below, below + v * (1 - below)).clamp(CLEAR, 1 - CLEAR)
        return concrete(odds, 1 - u, self._temperature)

    def _uniform(self, like: Tensor, row: int, draw: int) -> Tensor:
        words = hashlib.sha256(f"{self._seed}/{row}/{draw}/relaxed".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(words[:8], "big") >> 1)
        return torch.rand(like.shape, generator=generator)
