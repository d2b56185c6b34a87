"""New faces of old ones: two aligned people are mixed, by place, by fineness or by eigenface.

A teacher labels whatever it is shown, so a student may learn from people who do not exist; a thousand real ones are
too few to learn a recogniser from. Faces here are float32 grey levels, 0 to 255, (112, 112), aligned to one template.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from immunogate.basis import Eigenbasis
from immunogate.structs import CROP_SIZE, Floats

Draws = np.random.Generator
Mix = Callable[[Floats, Floats, Draws], Floats]

_SIDE = CROP_SIZE
_LINE = (np.arange(_SIDE, dtype=np.float32) - (_SIDE - 1) / 2) / (_SIDE / 2)
_FEWEST = 48  # leading eigenfaces that a projection always keeps


def blend(first: Floats, second: Floats, draw: Draws) -> Floats:
    """A weighted mean of the two."""
    share = np.float32(draw.uniform(0.25, 0.75))
    return np.asarray(share * first + (1 - share) * second, np.float32)


def seam(first: Floats, second: Floats, draw: Draws) -> Floats:
    """One on each side of a soft straight line: left and right, top and bottom, or aslant."""
    angle = draw.choice([0.0, np.pi / 2, draw.uniform(0, np.pi)])
    across = np.cos(angle) * _LINE[None, :] + np.sin(angle) * _LINE[:, None]
    return _masked(first, second, (across - draw.uniform(-0.45, 0.45)) * draw.uniform(4, 24))


def patches(first: Floats, second: Floats, draw: Draws) -> Floats:
    """Soft patches of either, a quarter of the face large or so."""
    cells = int(draw.integers(3, 7))
    noise = draw.standard_normal((cells, cells)).astype(np.float32)
    spread = np.asarray(cv2.resize(noise, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC), np.float32)
    return _masked(first, second, spread * draw.uniform(2, 10))


def bands(first: Floats, second: Floats, draw: Draws) -> Floats:
    """What is coarse of one and what is fine of the other."""
    width = draw.uniform(1.5, 7.0)
    return _blurred(first, width) + second - _blurred(second, width)


MIXES: tuple[Mix, ...] = (blend, seam, patches, bands)

LIKE = 0.7
"""Share of partners that are given the light of the first face, so that a seam does not show by it."""


def mixed(face: Floats, partner: Floats, draw: Draws) -> Floats:
    """A new person of two, by one of `MIXES`; half of the partners are mirrored."""
    partner = partner[:, ::-1] if draw.random() < 0.5 else partner
    partner = alike(partner, face) if draw.random() < LIKE else partner
    return MIXES[int(draw.integers(len(MIXES)))](face, partner, draw)


def _masked(first: Floats, second: Floats, logits: Floats) -> Floats:
    mask = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return mask * first + (1 - mask) * second


def _blurred(face: Floats, width: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(face, (0, 0), width), np.float32)


def alike(second: Floats, first: Floats) -> Floats:
    """The second with mean and contrast of the first, so that a seam does not show by its light."""
    ratio = float(first.std()) / max(float(second.std()), 1.0)
    return np.asarray((second - second.mean()) * np.clip(ratio, 0.5, 2.0) + first.mean(), np.float32)


class Genes:
    """Mixes and thins faces in the coefficients of an eigenbasis.

    Args:
        basis: of people to learn from only.
    """

    def __init__(self, basis: Eigenbasis) -> None:
        self._mean = basis.mean
        self._rows = basis.basis

    def cross(self, first: Floats, second: Floats, draw: Draws) -> Floats:
        """Children (B, 112, 112) that have each eigenface from one parent or the other, in runs or at random.

        Some are made bolder or paler: all coefficients stretched by 0.8 to 1.25. What no eigenface holds comes from
        the first.
        """
        own, other = self._coefficients(first), self._coefficients(second)
        shape = own.shape
        scattered = draw.random(shape) < draw.uniform(0.2, 0.8, (len(own), 1))
        cut = np.exp(draw.uniform(np.log(4), np.log(shape[1]), (len(own), 1)))
        in_runs = (np.arange(shape[1]) < cut) == (draw.random((len(own), 1)) < 0.5)
        chosen = np.where(draw.random((len(own), 1)) < 0.5, scattered, in_runs)
        child = np.where(chosen, own, other) * draw.uniform(0.8, 1.25, (len(own), 1))
        return self._faces(first, (child - own).astype(np.float32))

    def thin(self, faces: Floats, draw: Draws) -> Floats:
        """(B, 112, 112) faces that lose a part of all eigenfaces behind a drawn one, and of what none holds."""
        coefficients = self._coefficients(faces)
        count = coefficients.shape[1]
        last = np.exp(draw.uniform(np.log(min(_FEWEST, count)), np.log(count + 1), (len(faces), 1)))
        left = draw.uniform(0, 1, (len(faces), 1)).astype(np.float32)
        flat = (faces.reshape(len(faces), -1) / 127.5 - 1).astype(np.float32)
        kept = np.where(np.arange(count) < last, coefficients, 0).astype(np.float32)
        rebuilt = self._mean + kept @ self._rows
        mixed = (1 - left) * rebuilt + left * flat
        return np.asarray((mixed + 1) * 127.5, np.float32).reshape(faces.shape)

    def _coefficients(self, faces: Floats) -> Floats:
        flat = faces.reshape(len(faces), -1) / np.float32(127.5) - 1
        return np.asarray((flat - self._mean) @ self._rows.T, np.float32)

    def _faces(self, faces: Floats, changes: Floats) -> Floats:
        change = (changes @ self._rows) * np.float32(127.5)
        return np.asarray(faces + change.reshape(faces.shape), np.float32)
