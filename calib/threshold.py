"""Thresholds from clean pairs of the complete defended chain.

Terms as in ISO/IEC 19795-1: the false match rate (FMR) is the share of comparisons of different people at or above
the threshold; the true accept rate (TAR) the share of comparisons of one person with himself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from immunogate.calib.intervals import wilson
from immunogate.errors import InputError
from immunogate.manifest import Calibration, Threshold
from immunogate.structs import Floats

RATES = (1e-2, 1e-3, 1e-4)
ALARM_RATE = 1e-3
"""Share of clean development faces that may raise an alarm."""

MOST_OF_ONE = 20
"""Faces of one person that count: pairs grow with the square, and one often photographed person would be the result."""

MOST_FACES = 6000
"""More faces than this are thinned, whole people at a time: 18 million comparisons support any rate offered."""


@dataclass(frozen=True, eq=False)
class PairScores:
    """Cosines of all pairs of a set of embeddings.

    Attributes:
        genuine: (G,) float32, of one person with himself.
        impostor: (I,) float32, of different people, ascending.
    """

    genuine: Floats
    impostor: Floats

    def tar(self, threshold: float) -> float:
        """Share of genuine pairs at or above the threshold; 0 where there are none."""
        return float(np.mean(self.genuine >= threshold)) if len(self.genuine) else 0.0

    def false_matches(self, threshold: float) -> int:
        """Impostor pairs at or above the threshold."""
        return len(self.impostor) - int(np.searchsorted(self.impostor, np.float32(threshold), side="left"))


def pair_scores(embeddings: Floats, identities: npt.NDArray[np.str_]) -> PairScores:
    """All pairs of (N, E) embeddings of unit length, sorted by whether the (N,) identities agree."""
    similarities = embeddings @ embeddings.T
    rows, columns = np.triu_indices(len(embeddings), k=1)
    scores = similarities[rows, columns].astype(np.float32, copy=False)
    same = identities[rows] == identities[columns]
    return PairScores(scores[same], np.sort(scores[~same]))


def threshold_at(scores: PairScores, fmr: float) -> Threshold | None:
    """The smallest threshold whose FMR is, with 95 % confidence, not above ``fmr``; None where the pairs are too few.

    The Wilson interval takes pairs for independent. They are not quite (each face is in many), so the bound is a
    little too narrow: compare `fmr_upper` with the target before you rely on its last digit.
    """
    trials = len(scores.impostor)
    if trials == 0 or wilson(0, trials)[1] > fmr:
        return None
    # The upper bound grows with the number of errors: find the most errors that still keep it below.
    low, high = 0, int(fmr * trials) + 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if wilson(min(middle, trials), trials)[1] <= fmr else (low, middle - 1)
    # Just above the strongest impostor that must not match.
    threshold = float(np.nextafter(scores.impostor[trials - 1 - low], np.float32(2)))
    return Threshold(
        fmr=fmr,
        threshold=threshold,
        fmr_upper=wilson(scores.false_matches(threshold), trials)[1],
        impostor_pairs=trials,
        tar=scores.tar(threshold),
        genuine_pairs=len(scores.genuine),
    )


def calibrate(
    raw: Floats, purified: Floats, identities: npt.NDArray[np.str_], embedding_hash: str, source: str
) -> Calibration:
    """Thresholds and alarm limit of a bundle.

    Args:
        raw: (N, E) embeddings of clean faces as they came.
        purified: (N, E) embeddings of the same faces after the bundle's own purification.
        identities: (N,) whose faces they are.
        embedding_hash: of the bundle.
        source: what the faces are, in words.

    Raises:
        InputError: the pairs do not support even the loosest rate.
    """
    scores = pair_scores(purified, identities)
    found = [threshold_at(scores, rate) for rate in RATES]
    thresholds = [entry for entry in found if entry is not None]
    if not thresholds:
        raise InputError(
            f"{len(scores.impostor)} comparisons of different people do not support a false match rate of {RATES[0]:g}",
            f"Zero errors in N support a rate of 3/N and no lower: give faces for {round(4 / RATES[0])} comparisons",
        )
    attack_scores = np.clip(1 - np.einsum("ij,ij->i", raw, purified), 0, 2)  # rounding may leave [0, 2]
    alarm = float(np.quantile(attack_scores, 1 - ALARM_RATE, method="higher"))
    return Calibration(
        status="measured",
        thresholds=thresholds,
        alarm=alarm,
        alarm_rate=float(np.mean(attack_scores > alarm)),
        measured_on=embedding_hash,
        source=source,
    )


def even_out(identities: npt.NDArray[np.str_], most: int = MOST_OF_ONE) -> npt.NDArray[np.intp]:
    """Indices of at most ``most`` faces of each person, the first ones, in order."""
    seen: Counter[str] = Counter()
    kept = []
    for index, person in enumerate(identities.tolist()):
        seen[person] += 1
        if seen[person] <= most:
            kept.append(index)
    return np.array(kept, dtype=np.intp)


def thin(identities: npt.NDArray[np.str_], most: int = MOST_FACES, seed: int = 0) -> npt.NDArray[np.intp]:
    """Indices of at most ``most`` faces: whole people, in an order drawn with the seed."""
    if len(identities) <= most:
        return np.arange(len(identities), dtype=np.intp)
    people, owner = np.unique(identities, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(people))
    counts = np.bincount(owner, minlength=len(people))[order]
    chosen = order[: int(np.searchsorted(np.cumsum(counts), most, side="right"))]
    return np.flatnonzero(np.isin(owner, chosen))
