"""Turns faces into embeddings with the bundle's unmodified recogniser."""

from __future__ import annotations

import numpy as np

from immunogate.manifest import RecogniserEntry
from immunogate.runtime.profile.spans import span
from immunogate.runtime.runners.base import Runner
from immunogate.structs import CROP_SIZE, Floats
from immunogate.views import VIEWS, seen

LARGEST_BATCH = 16
"""Default of the faces in one run of the network; bounds memory."""


class Recogniser:
    """A recogniser behind its own crop and normalisation.

    Args:
        runner: the network; output ``embedding`` of unit length.
        entry: its input size, crop, mean and standard deviation.
        batch: faces in one run of the network at the most.
    """

    def __init__(self, runner: Runner, entry: RecogniserEntry, batch: int = LARGEST_BATCH) -> None:
        self._runner = runner
        self._entry = entry
        self._batch = batch

    def planes(self, faces: Floats) -> Floats:
        """(B, D) grey faces in [-1, 1] to the network's (B, 3, height, width): crop, normalise, repeat."""
        entry = self._entry
        crops = faces.reshape(-1, CROP_SIZE, CROP_SIZE)
        crops = crops[:, : entry.height, entry.crop_left : entry.crop_left + entry.width]
        grey = crops * np.float32(127.5 / entry.std) + np.float32((127.5 - entry.mean) / entry.std)
        return np.repeat(grey[:, None], 3, axis=1)

    def views(self, faces: Floats) -> Floats:
        """(B, D) faces to (B, V, D): the views that the bundle averages."""
        return np.stack([seen(faces, view) for view in VIEWS[self._entry.views]], axis=1)

    def embed(self, faces: Floats) -> Floats:
        """(B, E) float32 embeddings of unit length for (B, D) faces in [-1, 1].

        Raises:
            ValueError: the network gave values that are not finite.
        """
        parts = []
        for first in range(0, len(faces), self._batch):
            with span("planes"):
                planes = self.planes(faces[first : first + self._batch])
            with span("network"):
                parts.append(self._runner.run(planes)["embedding"])
        embeddings = np.concatenate(parts).astype(np.float32, copy=False)
        if not np.isfinite(embeddings).all():
            raise ValueError(f"{self._runner.name} gave an embedding that is not finite")
        return embeddings


def mean_embedding(embeddings: Floats) -> Floats:
    """The mean over the second last axis, brought back to unit length: (..., m, E) to (..., E)."""
    total = embeddings.mean(axis=-2)
    norm = np.linalg.norm(total, axis=-1, keepdims=True)
    return np.asarray(total / np.maximum(norm, 1e-12), np.float32)


def spread(embeddings: Floats) -> Floats | None:
    """How much the looks at a face disagree: the mean of 1 - cosine over all pairs, (..., m, E) to (...) in [0, 2].

    Looks are the kept clones in all views. The sum over pairs follows from the length of the sum of all, so it costs
    one addition of vectors and no product of pairs.

    Returns:
        None for a single look, which has nothing to disagree with.
    """
    looks = embeddings.shape[-2]
    if looks < 2:
        return None
    wide = embeddings.astype(np.float64)
    of_sum, of_each = np.square(wide.sum(axis=-2)).sum(axis=-1), np.square(wide).sum(axis=(-2, -1))
    return np.asarray(np.clip(1 - (of_sum - of_each) / (looks * (looks - 1)), 0, 2), np.float32)
