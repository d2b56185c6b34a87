"""Latency and true accept rates of many settings of one bundle, each by its real chain."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from immunogate.cli.common import progress, recognise_all
from immunogate.errors import InputError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.calib.clone_budget import Setting
    from immunogate.faces_file import AlignedFaces
    from immunogate.runtime.chain import FaceChain
    from immunogate.structs import Floats, Pixels

HALVES = (21, 0.5)
"""Seed and share of the people on whom rates are measured; the others set the thresholds."""

FMR = 1e-3
WARM_UP = 5
MOST_OF_ONE = 2
"""Faces of one person that set thresholds: comparisons of different people are what is needed."""

ATTACKED_FROM = 1 << 20
"""Frame numbers of attacked pictures: their clones are none that were seen before."""


@dataclass(frozen=True, eq=False)
class People:
    """The faces of a run, nobody in both parts.

    Attributes:
        images, names: (N, 112, 112) uint8 and (N,), for thresholds.
        enrolled, probes: (P, 112, 112) uint8, two pictures of each of P people, for rates.
    """

    images: Pixels
    names: npt.NDArray[np.str_]
    enrolled: Pixels
    probes: Pixels


def divided(faces: AlignedFaces, most: int, pairs: int, seed: int) -> People:
    """Divide people into those who set thresholds and those whom rates are measured on.

    Args:
        faces: with identities.
        most: faces for thresholds at the most, whole people.
        pairs: people for rates at the most, drawn with the seed.
        seed: of the draw.

    Raises:
        InputError: too few people, or nobody with two pictures to measure on.
    """
    from immunogate.calib.threshold import even_out, thin
    from immunogate.faces_file import identity_split

    assert faces.identities is not None
    setting, judging = identity_split(faces.identities, *HALVES)
    part = faces.take(setting)
    assert part.identities is not None
    part = part.take(even_out(part.identities, MOST_OF_ONE))
    assert part.identities is not None
    part = part.take(thin(part.identities, most, seed))
    assert part.identities is not None
    names = faces.identities[judging]
    people, counts = np.unique(names, return_counts=True)
    several = np.random.default_rng(seed).permutation(people[counts > 1])[:pairs]
    if not len(several):
        raise InputError("nobody among those to measure on has two pictures", "Give faces of more people")
    rows = np.array([np.flatnonzero(judging)[np.flatnonzero(names == person)[:2]] for person in several])
    return People(part.images, part.identities, faces.images[rows[:, 0]], faces.images[rows[:, 1]])


def as_set(bundle: Bundle, setting: Setting) -> Bundle:
    """The bundle as if its manifest had this setting; the files are the same."""
    from immunogate.bundle import Bundle

    manifest = replace(bundle.manifest, purifier=setting.entry(bundle.manifest.purifier), calibration=None)
    return Bundle(bundle.folder, manifest, bundle.sha256)


def timed(chains: Sequence[FaceChain], crops: Pixels, rounds: int) -> list[npt.NDArray[np.float64]]:
    """Milliseconds of one face through each chain, (rounds,) each.

    Chains take turns, each round in another order, so that a machine that slows down slows all of them; faces rotate.
    """
    spent = np.zeros((len(chains), rounds))
    for turn in progress(range(-WARM_UP, rounds), "timing", rounds + WARM_UP):
        crop = crops[turn % len(crops)][None]
        for row in np.random.default_rng(turn + WARM_UP).permutation(len(chains)):
            start = time.perf_counter()
            chains[row].recognise(crop, [turn + WARM_UP], [1])
            if turn >= 0:
                spent[row, turn] = 1e3 * (time.perf_counter() - start)
    return list(spent)


def purified(chain: FaceChain, images: Pixels, what: str, first: int = 0) -> Floats:
    """(N, E) embeddings of (N, 112, 112) purified faces."""
    return np.concatenate([part.purified for part in recognise_all(chain, images, what, first)])


def own_threshold(chain: FaceChain, people: People, what: str) -> float:
    """The chain's own threshold at a false match rate of 1e-3.

    Raises:
        InputError: too few comparisons of different people.
    """
    from immunogate.calib.threshold import pair_scores, support_in_words, threshold_at

    scores = pair_scores(purified(chain, people.images, what), people.names)
    found = threshold_at(scores, FMR)
    if found is None:
        raise InputError(
            support_in_words(scores, FMR), f"Give faces for {round(8 / FMR):,} comparisons: half set limits"
        )
    return found.threshold


def accepted(templates: Floats, probes: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    """(P,) whether each probe matches the template of its own person."""
    return np.asarray(np.einsum("ij,ij->i", templates, probes) >= threshold)
