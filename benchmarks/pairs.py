"""Draws genuine and impostor pairs in which no person counts for more than others, and finds empirical thresholds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pairs = npt.NDArray[np.intp]
"""(P, 2) rows of two faces."""


def genuine_pairs(identities: npt.NDArray[np.str_], count: int, seed: int) -> Pairs:
    """At most ``count`` different pairs of one person's faces.

    People take turns in an order drawn anew for each round, so that a person with hundreds of photos gives no more
    pairs than one with few, as long as those last.
    """
    draw = np.random.default_rng(seed)
    queues = [queue for queue in (_own_pairs(rows, count, draw) for rows in _rows_by_person(identities)) if len(queue)]
    found: list[npt.NDArray[np.intp]] = []
    turn = 0
    while len(found) < count and any(len(queue) > turn for queue in queues):
        order = draw.permutation(len(queues))
        found += [queues[person][turn] for person in order if len(queues[person]) > turn]
        turn += 1
    return np.stack(found[:count]) if found else np.empty((0, 2), np.intp)


def impostor_pairs(identities: npt.NDArray[np.str_], count: int, seed: int) -> Pairs:
    """``count`` different pairs of faces of two people: first two people are drawn, then a face of each.

    Raises:
        ValueError: there are not so many, or so nearly all of them are asked for that drawing would not end.
    """
    draw = np.random.default_rng(seed)
    rows = _rows_by_person(identities)
    sizes = np.array([len(own) for own in rows])
    there = (int(sizes.sum()) ** 2 - int((sizes**2).sum())) // 2
    if 2 * count > there:
        raise ValueError(f"count: expected at most half of the {there} pairs of different people, got {count}")
    seen: set[tuple[int, int]] = set()
    while len(seen) < count:
        first, second = draw.choice(len(rows), 2, replace=False)
        left, right = int(draw.choice(rows[first])), int(draw.choice(rows[second]))
        seen.add((min(left, right), max(left, right)))
    return np.array(sorted(seen), np.intp)


def cosines(embeddings: npt.NDArray[np.float32], pairs: Pairs) -> npt.NDArray[np.float32]:
    """(P,) cosines of (N, E) embeddings of unit length."""
    found: npt.NDArray[np.float32] = np.einsum("ij,ij->i", embeddings[pairs[:, 0]], embeddings[pairs[:, 1]])
    return found


def empirical_threshold(impostors: npt.NDArray[np.float32], fmr: float) -> float:
    """The smallest threshold at which no more than the share ``fmr`` of these pairs match (similarity >= threshold)."""
    ranked = np.sort(impostors)[::-1]
    allowed = int(fmr * len(ranked) + 1e-9)
    return float(np.nextafter(ranked[allowed], np.float32(2)))


def _rows_by_person(identities: npt.NDArray[np.str_]) -> list[npt.NDArray[np.intp]]:
    return [np.flatnonzero(identities == person) for person in np.unique(identities)]


def _own_pairs(rows: npt.NDArray[np.intp], most: int, draw: np.random.Generator) -> Pairs:
    left, right = np.triu_indices(len(rows), k=1)
    chosen = draw.permutation(len(left))[:most]
    return np.stack([rows[left[chosen]], rows[right[chosen]]], axis=-1)
