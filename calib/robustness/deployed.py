"""What an evaluation asks of the deployed gate. The command line opens the bundle and hands this in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from immunogate.structs import Floats, Pixels

TEMPLATE_FRAME = (1 << 31) - 1
"""Frame number of enrolled pictures, for modes that draw: none that an attack's gradients draw."""

LOOK_FRAME = (1 << 31) + (1 << 20)
"""First frame number of looks at attacked pictures: neither gradients nor judging draw these."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What the deployed gate made of B pictures.

    Attributes:
        embeddings: (B, E) that it decides by; NaN where it could not judge.
        raw: (B, E) of the pictures as they came, where the gate purifies; else None.
        purified: (B, D) first purified faces, where it does; else None.
        spreads: (B,) how much clones and views of each disagree, where there are several; else None.
    """

    embeddings: Floats
    raw: Floats | None = None
    purified: Floats | None = None
    spreads: Floats | None = None


Deployed = Callable[[Pixels, list[int], list[int]], Answer]
"""(B, 112, 112) uint8 aligned crops, frame numbers and face numbers to an answer."""

BATCH = 16


@dataclass(frozen=True, eq=False)
class Placement:
    """How a face stands in the camera's picture, and the gate's own way back to the crop.

    Attributes:
        landmarks: (5, 2) of the crop's template.
        matrix_of: landmarks to the (2, 3) matrix from the picture to a large crop, and how much it is shrunk after.
        align: picture (H, W, 3) uint8 and landmarks to the (112, 112) uint8 crop.
    """

    landmarks: Floats
    matrix_of: Callable[[Floats], tuple[npt.NDArray[np.float64], int]]
    align: Callable[[Pixels, Floats], Pixels]


def asked(gate: Deployed, crops: Pixels, frames: list[int], numbers: list[int], batch: int = BATCH) -> Answer:
    """A gate about any number of pictures, a batch at a time."""
    parts = [
        gate(crops[begin : begin + batch], frames[begin : begin + batch], numbers[begin : begin + batch])
        for begin in range(0, len(crops), batch)
    ]
    return Answer(
        np.concatenate([part.embeddings for part in parts]),
        _joined([part.raw for part in parts]),
        _joined([part.purified for part in parts]),
        _joined([part.spreads for part in parts]),
    )


def _joined(parts: list[Floats | None]) -> Floats | None:
    found = [part for part in parts if part is not None]
    return np.concatenate(found) if len(found) == len(parts) else None


def similarities(embeddings: Floats, templates: Floats) -> Floats:
    """(B,) cosines of (B, E) embeddings with their (B, E) templates; NaN stays NaN."""
    lengths = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(templates, axis=1)
    return np.asarray(np.einsum("ij,ij->i", embeddings, templates) / np.maximum(lengths, 1e-12), np.float32)
