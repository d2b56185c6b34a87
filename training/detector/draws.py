"""Randomness without a state: what is drawn depends on the seed, the step and the purpose, not on what went before."""

from __future__ import annotations

import zlib

import numpy as np


def draw(seed: int, step: int, purpose: str) -> np.random.Generator:
    """The generator of one purpose in one step; a training that was stopped goes on with the very same draws."""
    return np.random.default_rng([seed, step, zlib.crc32(purpose.encode())])


def chance(generator: np.random.Generator, probability: float) -> bool:
    """True with this probability."""
    return bool(generator.random() < probability)
