"""NumPy's random numbers from a seed, a number and a purpose alone: a resumed run draws what it would have drawn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from immunogate.training.draws import digest


def draws(seed: int, number: int, purpose: str) -> np.random.Generator:
    """A generator of its own for one purpose in one step, block or epoch."""
    return np.random.default_rng(int.from_bytes(digest(seed, number, purpose)[:16], "big"))


def turns(seed: int, start: int, count: int, faces: int) -> npt.NDArray[np.intp]:
    """(count,) faces for places ``start`` on of an endless row in which each epoch has every face once, newly ordered.

    Args:
        seed: of the run.
        start: the first place, from 0.
        count: places.
        faces: faces there are.
    """
    places = np.arange(start, start + count)
    chosen = np.empty(count, np.intp)
    for epoch in np.unique(places // faces):
        mine = places // faces == epoch
        chosen[mine] = draws(seed, int(epoch), "epoch").permutation(faces)[places[mine] % faces]
    return chosen
