"""How good a purifier is on people it was not trained on: clean and attacked TAR, at a threshold of its own.

A quick measure for choosing among steps and settings; benchmarks and evaluation of bundles use more pairs and
converged attacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from immunogate.errors import InputError
from immunogate.faces_file import AlignedFaces, faces_from_pixels
from immunogate.networks.attacks import Embed, from_levels, pgd
from immunogate.networks.twin import TorchTwin

FMR = 1e-3
STEPS = 20
LEVELS = {"adaptive": (2.0, 4.0), "bare": (8.0,)}
"""Sizes of the attacks through the whole defence and on the bare recogniser, in grey levels of 255."""

MOST_PAIRS = 64
BATCH = 32


@dataclass(frozen=True, eq=False)
class ValidationPairs:
    """Faces, and which of them are compared.

    Attributes:
        faces: (N, D) float32 in [-1, 1].
        genuine: (P, 2) indices of two faces of one person, each person at most once.
        impostors: (Q, 2) indices of faces of two people.
    """

    faces: Tensor
    genuine: Tensor
    impostors: Tensor


def validation_pairs(faces: AlignedFaces, most: int = MOST_PAIRS) -> ValidationPairs:
    """One genuine pair for each of the first ``most`` people with two faces, and all pairs of different people.

    Raises:
        InputError: the faces do not say whose they are, or nobody has two.
    """
    if faces.identities is None:
        raise InputError("validation needs to know whose faces they are", "Add the key 'identities', (N,) text")
    people, rows = np.unique(faces.identities, return_inverse=True)
    members = [np.flatnonzero(rows == person) for person in range(len(people))]
    genuine = [found[:2] for found in members if len(found) > 1][:most]
    first, second = np.triu_indices(len(rows), 1)
    apart = rows[first] != rows[second]
    if not genuine or not apart.any():
        raise InputError(
            "validation needs two people or more, and one with two faces", "Raise validation_share, or give more faces"
        )
    impostors = np.stack([first[apart], second[apart]], axis=1)
    return ValidationPairs(
        torch.from_numpy(faces_from_pixels(faces.images)),
        torch.from_numpy(np.stack(genuine)),
        torch.from_numpy(impostors),
    )


def validate(defence: TorchTwin, pairs: ValidationPairs) -> dict[str, float]:
    """True accept rates at the threshold of the defended clean pairs at a false match rate of one in a thousand.

    Attacks are 20 steps of PGD away from the attacked face's own embedding under what is attacked; few steps flatter
    the defence.

    Args:
        defence: in evaluation mode.
        pairs: of people kept back from training.

    Returns:
        ``clean``, ``adaptive_2`` and so on, ``threshold``, and ``score``: their mean, by which the best is chosen.
    """
    device = defence.mean.device
    faces, genuine = pairs.faces.to(device), pairs.genuine.to(device)
    clean = embedded(defence, faces)
    cosines = (clean @ clean.T)[pairs.impostors[:, 0], pairs.impostors[:, 1]]
    threshold = float(torch.quantile(cosines.cpu()[: 1 << 23].double(), 1 - FMR))
    probes, templates = faces[genuine[:, 0]], clean[genuine[:, 1]]
    rates = {"clean": _accepted(clean[genuine[:, 0]], templates, threshold)}
    for name, levels in LEVELS.items():
        embed: Embed = defence if name == "adaptive" else defence.embed
        for level in levels:
            attacked = attack(embed, probes, level)
            rates[f"{name}_{level:g}"] = _accepted(embedded(defence, attacked), templates, threshold)
    return {**rates, "threshold": threshold, "score": sum(rates.values()) / len(rates)}


def attack(embed: Embed, faces: Tensor, levels: float) -> Tensor:
    """(P, D) faces pushed away from their own embeddings, in batches."""
    parts = []
    for part in torch.split(faces, BATCH):
        with torch.no_grad():
            own = embed(part)
        parts.append(pgd(embed, part, own, from_levels(levels), STEPS))
    return torch.cat(parts)


@torch.no_grad()
def embedded(embed: Embed, faces: Tensor) -> Tensor:
    """(N, E) in batches."""
    return torch.cat([embed(part) for part in torch.split(faces, BATCH)])


def _accepted(embeddings: Tensor, templates: Tensor, threshold: float) -> float:
    return float(((embeddings * templates).sum(dim=1) >= threshold).float().mean())
