"""How well a student does on people it never saw, beside its teacher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from immunogate.errors import InputError
from immunogate.faces_file import AlignedFaces, Texts
from immunogate.structs import Floats
from immunogate.training.recogniser.draws import draws
from immunogate.training.recogniser.teacher import Teacher

MOST_OF_ONE = 10
"""Photos of one person that are compared: LFW has hundreds of a few."""

_BATCH = 64


@dataclass(frozen=True)
class Marks:
    """What was found.

    Attributes:
        cosine: mean between student and teacher.
        accuracy: share of right answers over as many genuine as impostor pairs, at the best threshold for these.
        tar: share of genuine pairs above the threshold that one in a hundred impostor pairs passes.
    """

    cosine: float
    accuracy: float
    tar: float


class Examination:
    """People kept for choosing, labelled once.

    Args:
        faces: with identities.
        teacher: labels them.

    Raises:
        InputError: nobody has two photos, or there is but one person.
    """

    def __init__(self, faces: AlignedFaces, teacher: Teacher) -> None:
        assert faces.identities is not None  # the split is by identity
        kept = _at_most(faces.identities, MOST_OF_ONE)
        self._identities = faces.identities[kept]
        people = len(np.unique(self._identities))
        if not 1 < people < len(kept):
            raise InputError(
                f"the {len(kept)} photos of {people} people to choose by make no pairs of both kinds",
                "Give more photos of each person, or more people",
            )
        self._planes = teacher.planes(faces.images[kept])
        self._taught = teacher.label(faces.images[kept]).embeddings.cpu().numpy()

    def teacher_marks(self) -> Marks:
        """The teacher's own."""
        return marks(self._taught, self._taught, self._identities)

    @torch.no_grad()
    def examine(self, student: nn.Module) -> Marks:
        """Those of a student, which is put into evaluation mode, in float32."""
        student.eval()
        given = torch.cat([student(part) for part in torch.split(self._planes, _BATCH)])
        unit: Floats = nn.functional.normalize(given, dim=1).cpu().numpy()
        return marks(unit, self._taught, self._identities)


def marks(own: Floats, taught: Floats, identities: Texts) -> Marks:
    """The marks of (N, E) embeddings of unit length beside the teacher's."""
    cosines = own @ own.T
    pairs = np.triu(np.ones(cosines.shape, np.bool_), k=1)
    same = identities[:, None] == identities[None]
    genuine, impostor = cosines[pairs & same], cosines[pairs & ~same]
    limit = float(np.quantile(impostor, 0.99))
    return Marks(
        round(float((own * taught).sum(axis=1).mean()), 5),
        round(_best_accuracy(genuine, impostor), 5),
        round(float(np.mean(genuine > limit)), 5),
    )


def _best_accuracy(genuine: Floats, impostor: Floats) -> float:
    """Of both kinds weighted alike, over all thresholds."""
    limits = np.unique(genuine)
    accepted = 1 - np.searchsorted(np.sort(genuine), limits, side="left") / len(genuine)
    refused = np.searchsorted(np.sort(impostor), limits, side="left") / len(impostor)
    return float((accepted + refused).max() / 2)


def _at_most(identities: Texts, most: int) -> npt.NDArray[np.intp]:
    """Rows with at most so many of each person, drawn."""
    draw = draws(0, 0, "examination")
    rows = [draw.permutation(np.flatnonzero(identities == person))[:most] for person in np.unique(identities)]
    return np.sort(np.concatenate(rows))
