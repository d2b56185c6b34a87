"""What a threshold trades: the detection error trade-off curve, and rates by the quality of the pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from immunogate.calib.intervals import wilson
from immunogate.calib.threshold import PairScores
from immunogate.structs import Floats, Pixels

POINTS = 60
FEWEST = 30
"""Comparisons below which a slice states no rate."""

NO_POSE = "not sliced by pose: aligned faces come without landmarks"


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % Wilson interval.

    Attributes:
        accepted: comparisons at or above the threshold.
        of: comparisons.
        rate, low, high: in [0, 1]; all None where there are too few comparisons to say anything.
    """

    accepted: int
    of: int
    rate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Slice:
    """The comparisons of one third of the pictures by quality.

    Attributes:
        by: sharpness (variance of the Laplacian), brightness (mean grey level) or contrast (its standard deviation).
        part: low, middle or high.
        least, most: values of the measure there; a comparison belongs where the lower one of its two faces does.
        tar: of one person with himself.
        fmr: of different people.
    """

    by: str
    part: str
    least: float
    most: float
    tar: Rate
    fmr: Rate


def det_curve(scores: PairScores) -> dict[str, list[float]]:
    """The DET curve (ISO/IEC 19795-1): ``fmr``, ``fnmr`` and ``threshold`` lists, FMR falling by even factors.

    From half of all impostor pairs matching down to one. Each point lies just above the strongest pair left out.
    """
    trials = len(scores.impostor)
    wanted = np.unique(np.geomspace(max(1, trials // 2), 1, POINTS).astype(np.int64))[::-1]
    thresholds = [float(np.nextafter(scores.impostor[trials - 1 - count], np.float32(2))) for count in wanted]
    return {
        "fmr": [scores.false_matches(value) / trials for value in thresholds],
        "fnmr": [1 - scores.tar(value) for value in thresholds],
        "threshold": thresholds,
    }


def measures(images: Pixels) -> dict[str, Floats]:
    """Quality of (N, 112, 112) uint8 grey faces, each (N,): sharpness, brightness, contrast; see `Slice`."""
    grey = images.astype(np.float32)
    inside = grey[:, 1:-1, 1:-1]
    second = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inside
    return {
        "sharpness": second.var(axis=(1, 2)),
        "brightness": grey.mean(axis=(1, 2)),
        "contrast": grey.std(axis=(1, 2)),
    }


def slices(embeddings: Floats, identities: npt.NDArray[np.str_], images: Pixels, threshold: float) -> list[Slice]:
    """TAR and FMR at a threshold by thirds of each measure of quality.

    Args:
        embeddings: (N, E) of purified faces, of unit length.
        identities: (N,) whose faces they are.
        images: (N, 112, 112) uint8, the same faces.
        threshold: cosine.
    """
    rows, columns = np.triu_indices(len(embeddings), k=1)
    accepted = (embeddings @ embeddings.T)[rows, columns] >= threshold
    same = identities[rows] == identities[columns]
    found = []
    for name, values in measures(images).items():
        lower = np.minimum(values[rows], values[columns])
        ends = np.quantile(values, [0, 1 / 3, 2 / 3, 1])
        for part, least, most in zip(("low", "middle", "high"), ends[:-1], ends[1:], strict=True):
            inside = (lower >= least) & ((lower < most) | (part == "high"))
            tar, fmr = (rate_of(accepted[inside & kind], FEWEST) for kind in (same, ~same))
            found.append(Slice(name, part, round(float(least), 2), round(float(most), 2), tar, fmr))
    return found


def rate_of(accepted: npt.NDArray[np.bool_], fewest: int = 1) -> Rate:
    """The share of (N,) comparisons that were accepted; nothing is stated of fewer than ``fewest``."""
    errors, trials = int(accepted.sum()), len(accepted)
    if trials < max(fewest, 1):
        return Rate(errors, trials, None, None, None)
    return Rate(errors, trials, errors / trials, *wilson(errors, trials))
