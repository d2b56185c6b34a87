"""The clean faces of a step: photos, jittered, mixed and varied as the settings ask."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from immunogate.structs import CROP_SIZE, Floats
from immunogate.training.augment import jittered
from immunogate.training.draws import batch_indices
from immunogate.training.purifier.settings import TrainingSettings
from immunogate.training.recogniser.draws import draws
from immunogate.training.recogniser.mixing import mixed
from immunogate.training.recogniser.variations import varied

BEND = 1.0
"""Pixels by which the strongest variation bends a face: less than makes another person of it."""


class People:
    """Faces by step and row; a row's face depends on its number in the whole run alone.

    Args:
        faces: (N, D) float32 photos in [-1, 1].
        settings: jitter, and the shares and strengths of mixing and variations.
    """

    def __init__(self, faces: Tensor, settings: TrainingSettings) -> None:
        self._faces, self._settings = faces, settings

    def faces(self, step: int, rows: Tensor) -> Tensor:
        """(b, D) faces of the rows (b,) of a step's whole batch."""
        settings = self._settings
        chosen = batch_indices(settings.seed, step, settings.batch, len(self._faces))[rows]
        faces = jittered(
            self._faces[chosen.to(self._faces.device)], settings.seed, step, settings.jitter, rows, settings.batch
        )
        if not (settings.mixed or settings.varied):
            return faces
        pictures = _pictures(faces)
        for place, number in enumerate((step * settings.batch + rows).tolist()):
            pictures[place] = self._changed(pictures[place], number)
        return torch.from_numpy(pictures.reshape(len(pictures), -1) / np.float32(127.5) - 1).to(faces)

    def _changed(self, picture: Floats, number: int) -> Floats:
        settings = self._settings
        draw = draws(settings.seed, number, "mix")
        if draw.random() < settings.mixed:
            other = int(draw.integers(len(self._faces)))
            picture = mixed(picture, _pictures(self._faces[other : other + 1])[0], draw)
        if settings.varied:
            own = draws(settings.seed, number, "variation")
            picture = varied(picture, own, settings.varied, settings.varied * BEND)
        return np.clip(picture, 0, 255)


def _pictures(faces: Tensor) -> Floats:
    """(b, D) in [-1, 1] as (b, 112, 112) grey levels, 0 to 255."""
    levels: Floats = ((faces.cpu().numpy() + 1) * np.float32(127.5)).reshape(-1, CROP_SIZE, CROP_SIZE)
    return levels
