"""The endless row of faces that a student sees: real people, mixed ones, thinned ones, and all of them varied."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from immunogate.basis import Eigenbasis
from immunogate.structs import CROP_SIZE, Floats, Pixels
from immunogate.training.recogniser.draws import draws, turns
from immunogate.training.recogniser.mixing import Genes, mixed
from immunogate.training.recogniser.settings import DistilSettings
from immunogate.training.recogniser.variations import varied

CROSSED = 0.25
"""Share of the mixed faces that are mixed by eigenface."""


class Crowd:
    """Faces by blocks; a block depends on the settings, the photos and its number alone.

    Args:
        images: (N, 112, 112) uint8 photos of people to learn from.
        basis: eigenbasis of the same photos.
        settings: shares and sizes.
    """

    def __init__(self, images: Pixels, basis: Eigenbasis, settings: DistilSettings) -> None:
        self._images = images
        self._genes = Genes(basis)
        self._settings = settings

    def block(self, number: int, strength: float) -> Pixels:
        """(block * batch, 112, 112) uint8 faces of block ``number``, varied with a strength from 0 to 1."""
        settings = self._settings
        count = settings.block * settings.batch
        draw = draws(settings.seed, number, "people")
        first = turns(settings.seed, number * count, count, len(self._images))
        second = draw.integers(0, len(self._images), count)
        faces = self._mixed(self._images[first].astype(np.float32), second, draw, strength)
        thinned = np.flatnonzero(draw.random(count) < settings.projected)
        if len(thinned):
            faces[thinned] = self._genes.thin(faces[thinned], draw)
        made = np.empty((count, CROP_SIZE, CROP_SIZE), np.uint8)
        for place, face in enumerate(faces):
            own = draws(settings.seed, number * count + place, "variation")
            made[place] = np.rint(varied(face, own, strength, settings.bend))
        return made

    def _mixed(self, faces: Floats, second: npt.NDArray[np.intp], draw: np.random.Generator, strength: float) -> Floats:
        """Some of the faces are mixed with their partners; these fewer the calmer it is."""
        chosen = draw.random(len(faces)) < self._settings.mixed * strength
        crossed = chosen & (draw.random(len(faces)) < CROSSED)
        for place in np.flatnonzero(chosen & ~crossed):
            own = draws(self._settings.seed, int(draw.integers(2**62)), "mix")
            faces[place] = mixed(faces[place], self._images[second[place]].astype(np.float32), own)
        rows = np.flatnonzero(crossed)
        if len(rows):
            faces[rows] = self._genes.cross(faces[rows], self._images[second[rows]].astype(np.float32), draw)
        return np.clip(faces, 0, 255)
