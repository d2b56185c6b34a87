"""Adaptive attacks run to their end on as few rows as possible: who has lost is attacked no further."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from immunogate.networks.attacks import Embed, pgd
from immunogate.structs import Floats

BATCH = 16
CHECK = 5
"""Steps between two looks at who has lost."""


def pushed(
    embed: Embed, faces: Tensor, away: Tensor, templates: Tensor, lost: float, eps: float, steps: int, restarts: int
) -> Floats:
    """(P,) the lowest similarity to its template that an attack on each face came by.

    Projected gradient descent as `immunogate.networks.attacks.pgd`, with steps of 2.5 eps / steps. A face whose
    similarity has fallen below ``lost`` is accepted at no threshold that is asked about: it is attacked no further,
    neither in this trajectory nor in the next, so that time goes into the faces that still hold.

    Args:
        embed: the whole defence, (B, D) to (B, E) unit embeddings.
        faces: (P, D) in [-1, 1].
        away: (P, E) embeddings from which the attack moves away.
        templates: (P, E) unit embeddings that decide.
        lost: similarity below which a face has lost.
        eps: on the scale of [-1, 1].
        steps: of each trajectory.
        restarts: trajectories.
    """
    found = np.full(len(faces), np.inf, np.float32)
    for restart in range(restarts):
        noise = torch.rand(faces.shape, generator=torch.Generator().manual_seed(restart))
        start = (faces + eps * (2 * noise - 1)).clamp(-1, 1)
        holding = np.flatnonzero(found >= lost)
        for begin in range(0, len(holding), BATCH):
            rows = holding[begin : begin + BATCH]
            parts = tuple(part[torch.from_numpy(rows)] for part in (faces, away, templates, start))
            found[rows] = np.minimum(found[rows], _trajectory(embed, parts, lost, eps, steps))
    return found


def _trajectory(embed: Embed, parts: tuple[Tensor, ...], lost: float, eps: float, steps: int) -> Floats:
    faces, away, templates, point = parts
    lowest = torch.full((len(faces),), torch.inf)
    left = torch.arange(len(faces))
    for done in range(0, steps, CHECK):
        more = min(CHECK, steps - done)
        point = pgd(embed, faces[left], away[left], eps, more, 2.5 * eps / steps, start=point, best=False)
        with torch.no_grad():
            lowest[left] = torch.minimum(lowest[left], (embed(point) * templates[left]).sum(dim=1))
        held = lowest[left] >= lost
        left, point = left[held], point[held]
        if not len(left):
            break
    return np.asarray(lowest.numpy())
