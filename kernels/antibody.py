"""The inference modes: from probabilities to the antibodies that act.

The paper draws one clone, unseeded (mode sample, with a seed here). The other modes are this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np

from immunogate.errors import UsageError
from immunogate.kernels import clones
from immunogate.kernels.host import host_kernels
from immunogate.kernels.reference import CloneKey, Indices, ScoreTerms, gene_weights, unpack
from immunogate.structs import Antibodies, Floats, Masks, expect_shape

Mode = Literal["fixed", "expected", "threshold", "sample", "select"]
MODES: tuple[str, ...] = get_args(Mode)


@dataclass(frozen=True)
class AntibodySettings:
    """How antibodies are made.

    Attributes:
        mode: fixed (the leading ``top_k`` eigenfaces, no network), expected (the probabilities themselves, the mean
            of all clones), threshold (probability above one half), sample (one drawn clone), select (the ``keep``
            best of ``clones`` drawn).
        top_k: eigenfaces kept in mode fixed.
        clones: K, clones drawn a face in mode select.
        keep: m, clones kept in mode select.
        seed: 64-bit key of the generator, for sample and select.
        terms: of the score, for select.

    Raises:
        UsageError: a value is out of its range.
    """

    mode: str
    top_k: int = 0
    clones: int = 64
    keep: int = 4
    seed: int = 0
    terms: ScoreTerms = field(default_factory=ScoreTerms)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"unknown mode {self.mode!r}", f"Use one of: {', '.join(MODES)}")
        if self.mode == "fixed" and self.top_k < 1:
            raise UsageError(f"mode fixed needs top_k of at least 1, got {self.top_k}")
        if not 1 <= self.keep <= self.clones <= 4096:
            raise UsageError(f"expected 1 <= keep <= clones <= 4096, got {self.keep} and {self.clones}")
        if not 0 <= self.seed < 1 << 64:
            raise UsageError(f"seed must be in 0 .. 2**64 - 1, got {self.seed}")

    @property
    def needs_probabilities(self) -> bool:
        """Whether an analyzer has to look at the face."""
        return self.mode != "fixed"

    @property
    def is_random(self) -> bool:
        """Whether clones are drawn: an attacker who may retry gains by it."""
        return self.mode in ("sample", "select")


class Drawer(Protocol):
    """Draws clones: `immunogate.kernels.clones`, or what does the same faster, with the same bits."""

    def mutate(self, probabilities: Floats, clones: Indices, key: CloneKey) -> Masks:
        """As `clones.mutate`."""

    def select_clones(
        self, probabilities: Floats, weights: Indices, count: int, keep: int, key: CloneKey
    ) -> tuple[Indices, Masks]:
        """As `clones.select_clones`."""


def cpu_drawer() -> Drawer:
    """The host build where there is one, else NumPy: the same bits."""
    return host_kernels() or clones


def make_antibodies(
    settings: AntibodySettings,
    coefficients: Floats,
    probabilities: Floats | None,
    key: CloneKey,
    pixels: int,
    drawer: Drawer | None = None,
) -> Antibodies:
    """The antibodies of B faces.

    Args:
        settings: mode and its numbers.
        coefficients: (B, n) float32, used by select only.
        probabilities: (B, n) float32 in [0, 1]; None in mode fixed.
        key: frame and face numbers (B,), for the modes that draw.
        pixels: D.
        drawer: what draws, for the modes that do; by default the fastest on this CPU.

    Raises:
        ValueError: a mode that needs probabilities got none, or they are not in [0, 1] or of another shape than the
            coefficients, or the key is not of B faces.
    """
    if settings.mode == "fixed":
        weights = np.zeros((len(coefficients), 1, coefficients.shape[1]), np.float32)
        weights[:, :, : settings.top_k] = 1
        return Antibodies("fixed", settings.seed, 0, weights)
    if probabilities is None:
        raise ValueError(f"probabilities: mode {settings.mode} needs them, got None")
    expect_shape("probabilities", probabilities, coefficients.shape)
    if not np.all((probabilities >= 0) & (probabilities <= 1)):
        raise ValueError("probabilities: expected values in [0, 1]")
    if settings.mode == "expected":
        return Antibodies("expected", settings.seed, 0, probabilities[:, None, :].astype(np.float32))
    if settings.mode == "threshold":
        return Antibodies("threshold", settings.seed, 0, (probabilities > 0.5)[:, None, :].astype(np.float32))
    return _drawn(settings, coefficients, probabilities, key, pixels, drawer or cpu_drawer())


def _drawn(
    settings: AntibodySettings,
    coefficients: Floats,
    probabilities: Floats,
    key: CloneKey,
    pixels: int,
    drawer: Drawer,
) -> Antibodies:
    if settings.mode == "sample":
        count = 1
        winners = np.zeros((len(probabilities), 1), np.int64)
        masks = drawer.mutate(probabilities, winners, key)
    else:
        count = settings.clones
        weights = gene_weights(probabilities, coefficients, settings.terms, pixels)
        winners, masks = drawer.select_clones(probabilities, weights, count, settings.keep, key)
    chosen = unpack(masks, probabilities.shape[1]).astype(np.float32)
    return Antibodies(settings.mode, settings.seed, count, chosen, winners)
