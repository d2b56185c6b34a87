"""Clean faces through every configuration: thresholds, false match rates, error curves, time."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from immunogate.calib.robustness.deployed import TEMPLATE_FRAME, Deployed
from immunogate.calib.robustness.document import Det, Key, Milliseconds, Rate, rate_of
from immunogate.calib.threshold import PairScores, pair_scores, threshold_at
from immunogate.structs import Floats, Pixels

RATES = tuple(float(rate) for rate in np.geomspace(1e-4, 1e-1, 13))
"""False match rates at which an error curve is given."""

DRAWS, LOWEST = 2000, 0.025
Texts = npt.NDArray[np.str_]


def threshold_on(scores: PairScores, fmr: float) -> tuple[float, str]:
    """A threshold from clean pairs and words on where it comes from; not as safe where pairs are few, and says so."""
    trials = len(scores.impostor)
    found = threshold_at(scores, fmr)
    if found is not None:
        return found.threshold, f"{trials:,} impostor pairs of people who are not reported on"
    highest = float(np.nextafter(scores.impostor[-1], np.float32(2)))
    return highest, f"above the most alike of only {trials:,} impostor pairs, too few for a rate of {fmr:g}"


def false_matches(scores: PairScores, threshold: float) -> Rate:
    """The false match rate of clean impostor pairs."""
    return rate_of(scores.false_matches(threshold), len(scores.impostor))


def curve(key: Key, scores: PairScores) -> Det:
    """Points of the detection error trade-off, as far as the pairs go."""
    trials = len(scores.impostor)
    rates = [rate for rate in RATES if rate * trials >= 1]
    thresholds = [np.nextafter(scores.impostor[trials - 1 - int(rate * trials)], np.float32(2)) for rate in rates]
    return Det(key, tuple(rates), tuple(1 - scores.tar(float(threshold)) for threshold in thresholds))


def lowest_rate(embeddings: Floats, identities: Texts, threshold: float, seed: int) -> float:
    """Lower end (2.5 %) of the false match rate when people, not pairs, are drawn anew.

    Pairs of one person depend on each other, which makes intervals over pairs too narrow to accuse a calibration by.
    Source: the subset bootstrap, Bolle, Ratha, Pankanti, "Error analysis of pattern recognition systems - the subsets
    bootstrap", CVIU 2004.
    """
    people, owner = np.unique(identities, return_inverse=True)
    member = np.eye(len(people))[owner]
    matched = member.T @ (embeddings @ embeddings.T >= threshold).astype(np.float64) @ member
    compared = np.outer(member.sum(axis=0), member.sum(axis=0))
    for table in (matched, compared):
        np.fill_diagonal(table, 0)
    weights = np.random.default_rng(seed).multinomial(len(people), np.full(len(people), 1 / len(people)), DRAWS)
    rates = np.einsum("di,ij,dj->d", weights, matched, weights, optimize=True) / np.maximum(
        np.einsum("di,ij,dj->d", weights, compared, weights, optimize=True), 1
    )
    return float(np.quantile(rates, LOWEST))


def timed(gate: Deployed, crops: Pixels) -> Milliseconds:
    """Time of one face at a time, the first one left out."""
    taken = []
    for place in range(len(crops)):
        start = time.perf_counter()
        gate(crops[place : place + 1], [TEMPLATE_FRAME], [place])
        taken.append(1e3 * (time.perf_counter() - start))
    counted = taken[1:] or taken
    p50, p99 = np.quantile(counted, (0.5, 0.99))
    return Milliseconds(round(float(p50), 3), round(float(p99), 3), len(counted))


def scores_of(embeddings: Floats, identities: Texts, rows: Sequence[int] | npt.NDArray[np.intp]) -> PairScores:
    """All pairs among some rows."""
    return pair_scores(embeddings[rows], identities[rows])
