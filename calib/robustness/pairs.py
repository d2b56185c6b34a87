"""Who is attacked and whom thresholds come from: two halves of the people, and pairs among one of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from immunogate.calib.threshold import even_out
from immunogate.errors import InputError
from immunogate.faces_file import AlignedFaces, identity_split
from immunogate.structs import Pixels

Rows = npt.NDArray[np.intp]
Aim = str
MEND = "Give photos of more people, two or more of each"


@dataclass(frozen=True, eq=False)
class Problem:
    """Faces and pairs.

    Attributes:
        images: (N, 112, 112) uint8.
        identities: (N,) text.
        calibrating: rows of the half that thresholds of baselines come from.
        reported: rows of the other half, no person of which is in the first.
        genuine: (P, 2) rows of the reported half, two photos of one person; the first is attacked.
        impostors: (Q, 2) rows of the reported half, two people; the first poses as the second.
    """

    images: Pixels
    identities: npt.NDArray[np.str_]
    calibrating: Rows
    reported: Rows
    genuine: Rows
    impostors: Rows

    def pairs(self, aim: Aim) -> Rows:
        """(P, 2) rows: impostor pairs for impersonation, else genuine ones."""
        return self.impostors if aim == "impersonation" else self.genuine


def posed(faces: AlignedFaces, count: int, seed: int, faces_of_one: int) -> Problem:
    """Halve the people and draw the pairs.

    Args:
        faces: with identities.
        count: pairs of each kind, at the most.
        seed: of the halves and draws.
        faces_of_one: faces of one person that are kept.

    Raises:
        InputError: too few people, or nobody with two photos among those reported.
    """
    assert faces.identities is not None  # the caller has seen to it
    even = faces.take(even_out(faces.identities, faces_of_one))
    names = even.identities
    assert names is not None
    calibrating, reported = (np.flatnonzero(mask) for mask in identity_split(names, seed, 0.5))
    genuine = reported[genuine_pairs(names[reported], count, seed)]
    if min(len(np.unique(names[rows])) for rows in (calibrating, reported)) < 3 or not len(genuine):
        raise InputError(
            f"{len(np.unique(names))} people in two halves give no pairs to evaluate ({len(genuine)} genuine)", MEND
        )
    impostors = reported[impostor_pairs(names[reported], count, seed)]
    return Problem(even.images, names, calibrating, reported, genuine, impostors)


def genuine_pairs(identities: npt.NDArray[np.str_], count: int, seed: int) -> Rows:
    """At most ``count`` (P, 2) pairs of one person's photos: one of each person first, then a second of each, ..."""
    draw = np.random.default_rng([seed, 1])
    queues = [_own_pairs(np.flatnonzero(identities == person), draw) for person in np.unique(identities)]
    found: list[Rows] = []
    for turn in range(max(map(len, queues))):
        found += [queues[place][turn] for place in draw.permutation(len(queues)) if len(queues[place]) > turn]
        if len(found) >= count:
            break
    return np.array(found[:count], np.intp).reshape(-1, 2)


def impostor_pairs(identities: npt.NDArray[np.str_], count: int, seed: int) -> Rows:
    """At most ``count`` (Q, 2) pairs of two people, nobody twice an attacker before everybody was once."""
    draw = np.random.default_rng([seed, 2])
    people = np.unique(identities)
    found: list[tuple[int, int]] = []
    for shift in range(1, len(people)):
        order = draw.permutation(len(people))
        for first, second in zip(order, np.roll(order, shift), strict=True):
            rows = [int(draw.choice(np.flatnonzero(identities == people[one]))) for one in (first, second)]
            found.append((rows[0], rows[1]))
        if len(found) >= count:
            break
    return np.array(found[:count], np.intp).reshape(-1, 2)


def _own_pairs(rows: Rows, draw: np.random.Generator) -> Rows:
    first, second = np.triu_indices(len(rows), k=1)
    order = draw.permutation(len(first))
    return np.stack([rows[first[order]], rows[second[order]]], axis=1).reshape(-1, 2)
