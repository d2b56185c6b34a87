"""The views of a face that a recogniser may take in turn, so that no single one decides.

Noise that is made for one view fits a mirrored and shifted one less. Views are mirrorings and shifts by whole pixels:
they move pixels, and compute nothing that could be rounded. The mean of their embeddings is the face's embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from immunogate.structs import CROP_SIZE, Floats


@dataclass(frozen=True)
class View:
    """One view: mirrored or not, then moved.

    Attributes:
        mirrored: left and right change places.
        right: pixels by which the face moves to the right; negative: to the left. The edge's pixels fill the gap.
        down: likewise.
    """

    mirrored: bool = False
    right: int = 0
    down: int = 0


VIEWS: dict[int, tuple[View, ...]] = {
    1: (View(),),
    2: (View(), View(mirrored=True)),
    4: (View(False, -2, -1), View(True, 2, 1), View(False, 1, 2), View(True, -1, -2)),
}
"""By their number: the face as it is; with its mirror image, as is usual in face recognition; and four moved ones."""

MOST_SHIFT = 2


def seen(faces: Floats, view: View) -> Floats:
    """(B, D) float32 faces in one view; (B, D)."""
    if view == View():
        return faces
    planes = faces.reshape(-1, CROP_SIZE, CROP_SIZE)
    planes = planes[:, :, ::-1] if view.mirrored else planes
    rows = np.clip(np.arange(CROP_SIZE) - view.down, 0, CROP_SIZE - 1)
    columns = np.clip(np.arange(CROP_SIZE) - view.right, 0, CROP_SIZE - 1)
    return np.ascontiguousarray(planes[:, rows[:, None], columns[None]]).reshape(faces.shape)
