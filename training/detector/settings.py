"""Everything that decides what a training of the detector gives, in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import get_type_hints

from immunogate.errors import UsageError


@dataclass(frozen=True)
class DetectorSettings:
    """Settings of a training; the same settings, photos and labels give the same weights on one machine.

    Attributes:
        seed: of every draw.
        steps: optimiser steps of the main part.
        finish: steps of a second part, as a share of those of the first. It brings the points of large
            faces nearer and loses some faces: not by default.
        finish_rate: share of the highest rate with which the second part begins.
        finish_strength: how often scenes of the second part are tilted, turned, hidden and spoilt, as a share of how
            often those of the first part are: the last steps are spent on what a gate mostly sees.
        batch: scenes of the first size in a step; of the others as many as have about as many pixels, at least three.
        sizes: sides of scenes in pixels, multiples of 32; the steps take them in turn. Small scenes are cheap, large
            ones hold large faces.
        rate: learning rate at its highest, after the warm-up.
        last_rate: share of it at the end of the first part's cosine.
        warmup: steps in which the rate rises.
        boost: the rate of the kernels that mix channels, in multiples of that; see `EvenedMomentum`.
        decay: weight decay of those.
        average: share of the old weights in each step of their moving average, which is what is kept in the end.
        clip: largest norm of the gradient.
        least_face: side in pixels of the smallest face that counts; smaller ones are neither faces nor none.
        largest_face: side of the largest that is drawn.
        score_weight: of the scores' loss.
        box_weight: of the boxes' loss.
        point_weight: of the points' loss.
        save_every: steps between two checkpoints.

    Raises:
        UsageError: a setting is out of its range; says which.
    """

    seed: int = 1
    steps: int = 20_000
    finish: float = 0.0
    finish_rate: float = 0.35
    finish_strength: float = 0.5
    batch: int = 8
    sizes: tuple[int, ...] = (192, 192, 192, 320)
    rate: float = 4e-3
    last_rate: float = 0.005
    warmup: int = 200
    boost: float = 12.0
    decay: float = 0.02
    average: float = 0.998
    clip: float = 5.0
    least_face: float = 14.0
    largest_face: float = 300.0
    score_weight: float = 1.0
    box_weight: float = 1.5
    point_weight: float = 24.0
    save_every: int = 500

    def __post_init__(self) -> None:
        hints = get_type_hints(DetectorSettings)
        for item in (item for item in fields(self) if item.name != "sizes"):
            value = getattr(self, item.name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            fits = whole if hints[item.name] is int else whole or isinstance(value, float)
            if not fits or not math.isfinite(value) or value < 0:
                raise UsageError(f"{item.name}: expected a number of at least 0, got {value!r}")
        for name, low, high in _RANGES:
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name}: expected {low:g} to {high:g}, got {getattr(self, name)}")
        if not self.sizes or any(size % 32 or not 64 <= size <= LARGEST_SCENE for size in self.sizes):
            raise UsageError(f"sizes: expected multiples of 32 from 64 to {LARGEST_SCENE}, got {self.sizes}")
        if self.largest_face <= 3 * self.least_face or min(self.sizes) <= 3 * self.least_face:
            raise UsageError(
                f"least_face: expected less than a third of largest_face and sizes, got {self.least_face} with "
                f"{self.largest_face} and {self.sizes}"
            )

    @property
    def all_steps(self) -> int:
        """Optimiser steps of both parts."""
        return self.steps + round(self.finish * self.steps)

    def strength_of(self, step: int) -> float:
        """How much is done to the scenes of a step (from 0), 1 in the first part."""
        return 1.0 if step < self.steps else self.finish_strength

    def size_of(self, step: int) -> int:
        """Side of the scenes of a step (from 0), in pixels."""
        return self.sizes[step % len(self.sizes)]

    def batch_of(self, step: int) -> int:
        """How many scenes a step (from 0) has."""
        return max(min(3, self.batch), round(self.batch * (self.sizes[0] / self.size_of(step)) ** 2))


LARGEST_SCENE = 2048

_RANGES = (
    ("seed", 0, 2**32 - 1),
    ("steps", 1, 10**7),
    ("batch", 1, 4096),
    ("rate", 1e-9, 1),
    ("last_rate", 0, 1),
    ("finish", 0, 100),
    ("finish_rate", 0, 1),
    ("finish_strength", 0, 1),
    ("boost", 1e-6, 1e6),
    ("average", 0, 0.999999),
    ("clip", 1e-6, math.inf),
    ("least_face", 8, 128),
    ("largest_face", 9, 4096),
    ("save_every", 1, 10**7),
)
