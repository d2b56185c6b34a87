"""Thresholds from clean pairs of the complete defended chain.

Terms as in ISO/IEC 19795-1: the false match rate (FMR) is the share of comparisons of different people at or above
the threshold; the true accept rate (TAR) the share of comparisons of one person with himself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from immunogate.calib.bootstrap import HIGHEST_RATE, Blocks, most_errors
from immunogate.calib.intervals import wilson
from immunogate.errors import InputError
from immunogate.manifest import Alarms, Calibration, Threshold
from immunogate.structs import RAW_AGAINST_PURIFIED, Floats

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
        blocks: whose the strongest of these are; None where only the scores are known.
    """

    genuine: Floats
    impostor: Floats
    blocks: Blocks | None = None

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
    people, owner = np.unique(identities, return_inverse=True)
    rows, columns = owner[rows], owner[columns]
    same = rows == columns
    impostor = scores[~same]
    order = np.argsort(impostor, kind="stable")
    kept = np.flatnonzero(~same)[order[::-1][: math.ceil(HIGHEST_RATE * len(impostor)) + 1]]
    faces = np.bincount(owner, minlength=len(people)).astype(np.int64)
    return PairScores(scores[same], impostor[order], Blocks(faces, rows[kept], columns[kept]))


def threshold_at(scores: PairScores, fmr: float) -> Threshold | None:
    """The smallest threshold whose FMR is, with 95 % confidence, not above ``fmr``; None where the pairs are too few.

    Two intervals have to agree, so the wider one decides. Wilson's takes pairs for independent, which they are not:
    each face is in many. The bootstrap by person allows for that (`immunogate.calib.bootstrap`), but is empty where no
    pair matched, and too narrow where few did: there Wilson's is the wider.
    """
    trials = len(scores.impostor)
    if trials == 0 or wilson(0, trials)[1] > fmr:
        return None
    # The upper bound grows with the number of errors: find the most errors that still keep it below.
    low, high = 0, int(fmr * trials) + 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if wilson(min(middle, trials), trials)[1] <= fmr else (low, middle - 1)
    if scores.blocks is not None:
        low = most_errors(scores.blocks, fmr, min(low, len(scores.blocks.first)))
    # Just above the strongest impostor that must not match.
    threshold = float(np.nextafter(scores.impostor[trials - 1 - low], np.float32(2)))
    errors = scores.false_matches(threshold)
    of_pairs = wilson(errors, trials)[1]
    of_people = None if scores.blocks is None else float(scores.blocks.upper(np.array([errors]))[0])
    return Threshold(
        fmr=fmr,
        threshold=threshold,
        fmr_upper=max(of_pairs, of_people or 0.0),
        impostor_pairs=trials,
        tar=scores.tar(threshold),
        genuine_pairs=len(scores.genuine),
        upper_of_pairs=of_pairs,
        upper_of_people=of_people,
    )


def support_in_words(scores: PairScores, fmr: float) -> str:
    """Why a rate is not supported by so many comparisons of different people: the rule of three."""
    return (
        f"{len(scores.impostor)} comparisons of different people do not support a false match rate of {fmr:g}: no "
        f"error in N comparisons says, with 95 % confidence, no more than that the rate is below 3/N"
    )


def calibrate(
    raw: Floats,
    purified: Floats,
    identities: npt.NDArray[np.str_],
    embedding_hash: str,
    source: str,
    *,
    rates: Sequence[float] = RATES,
    needed: Sequence[float] = (),
    alarms: Alarms | None = None,
) -> Calibration:
    """Thresholds and alarm limit of a bundle.

    Args:
        raw: (N, E) embeddings of clean faces as they came.
        purified: (N, E) embeddings of the same faces after the bundle's own purification.
        identities: (N,) whose faces they are.
        embedding_hash: of the bundle.
        source: what the faces are, in words.
        rates: false match rates to find thresholds for, where the pairs support them.
        needed: rates that must be supported.
        alarms: limits of all signals; without them, the alarm limit is that of the attack score of all faces.

    Raises:
        InputError: the pairs do not support a rate that is needed, or not even the loosest one.
    """
    scores = pair_scores(purified, identities)
    for rate in needed:
        if threshold_at(scores, rate) is None:
            raise InputError(support_in_words(scores, rate), f"Give faces for {round(4 / rate):,} comparisons")
    found = [threshold_at(scores, rate) for rate in sorted({*rates, *needed}, reverse=True)]
    thresholds = [entry for entry in found if entry is not None]
    if not thresholds:
        raise InputError(
            support_in_words(scores, max(rates)),
            f"It takes a few more: give faces for {round(4 / max(rates))} comparisons",
        )
    attack_scores = distances(raw, purified)
    limit = None if alarms is None else alarms.limit(RAW_AGAINST_PURIFIED)
    alarm = float(np.quantile(attack_scores, 1 - ALARM_RATE, method="higher")) if limit is None else limit
    return Calibration(
        status="measured",
        thresholds=thresholds,
        alarm=alarm,
        alarm_rate=float(np.mean(attack_scores > alarm)),
        measured_on=embedding_hash,
        source=source,
        alarms=alarms,
    )


def distances(one: Floats, other: Floats) -> Floats:
    """1 - cosine of (N, E) embeddings of unit length, row by row: (N,) in [0, 2], which rounding may leave."""
    return np.asarray(np.clip(1 - np.einsum("ij,ij->i", one, other), 0, 2), np.float32)


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
