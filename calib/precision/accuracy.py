"""What a converted bundle loses against the one it was made from, on people who had no part in converting it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.calib.precision.search import cosines
from immunogate.calib.threshold import pair_scores, threshold_at
from immunogate.errors import BundleError, InputError
from immunogate.structs import Floats

FMR = 1e-3
MOST_TAR_LOST = {"fp16": 0.2, "int8": 1.0}
"""Default limits, in percentage points of the true accept rate at `FMR`."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a bundle made of N faces.

    Attributes:
        raw: (N, E) embeddings of the faces as they came.
        purified: (N, E) embeddings of the purified faces.
        probabilities: (N, n) of the analyzer, or None.
    """

    raw: Floats
    purified: Floats
    probabilities: Floats | None = None


@dataclass(frozen=True)
class Agreement:
    """Cosines between embeddings of the same faces with and without conversion.

    Attributes:
        least: of all.
        worst_percent: 1st percentile.
        mean: of all, which limits are on.
    """

    least: float
    worst_percent: float
    mean: float


@dataclass(frozen=True)
class Genes:
    """How far the analyzer's probabilities moved.

    Attributes:
        mean_change: mean difference of a probability.
        largest_change: likewise.
        flipped: share of genes on another side of one half, which mode threshold goes by.
    """

    mean_change: float
    largest_change: float
    flipped: float


@dataclass(frozen=True)
class Accuracy:
    """A converted bundle against the float one.

    Attributes:
        faces: judged.
        people: whose they are.
        raw: agreement of the faces as they came.
        purified: agreement after purification, which decides.
        tar_float: true accept rate of the float bundle, at its own threshold for `FMR`.
        tar_converted: likewise of the converted bundle.
        genuine_flipped: share of genuine pairs decided otherwise at the float bundle's threshold.
        impostor_flipped: likewise of pairs of two people.
        genes: None without an analyzer.
    """

    faces: int
    people: int
    raw: Agreement
    purified: Agreement
    tar_float: float
    tar_converted: float
    genuine_flipped: float
    impostor_flipped: float
    genes: Genes | None

    @property
    def tar_lost(self) -> float:
        """Percentage points of TAR; negative where it rose."""
        return 100 * (self.tar_float - self.tar_converted)

    def as_data(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "fmr": FMR, "tar_lost_points": round(self.tar_lost, 4)}


def agreement(found: Floats, reference: Floats) -> Agreement:
    """Of (N, E) embeddings with (N, E) others of the same faces."""
    values = cosines(found, reference)
    return Agreement(float(values.min()), float(np.quantile(values, 0.01)), float(values.mean()))


def compare(before: Seen, after: Seen, identities: npt.NDArray[np.str_]) -> Accuracy:
    """Judge a converted bundle.

    Args:
        before: what the float bundle made of the faces.
        after: what the converted bundle made of the same faces.
        identities: (N,) whose faces they are.

    Raises:
        InputError: the faces are too few for a threshold at `FMR`, or nobody is there twice.
    """
    one, other = (pair_scores(part.purified, identities) for part in (before, after))
    own, its = threshold_at(one, FMR), threshold_at(other, FMR)
    if own is None or its is None or not len(one.genuine):
        raise InputError(
            f"{len(one.impostor):,} comparisons of different people and {len(one.genuine):,} of one person do not "
            f"support a judgement at a false match rate of {FMR:g}",
            "Give more faces: 200 people with two or more faces each will do",
        )
    genuine, impostor = _flipped(before, after, identities, own.threshold)
    return Accuracy(
        faces=len(identities),
        people=len(np.unique(identities)),
        raw=agreement(after.raw, before.raw),
        purified=agreement(after.purified, before.purified),
        tar_float=own.tar,
        tar_converted=its.tar,
        genuine_flipped=genuine,
        impostor_flipped=impostor,
        genes=_genes(before, after),
    )


def _flipped(before: Seen, after: Seen, identities: npt.NDArray[np.str_], threshold: float) -> tuple[float, float]:
    rows, columns = np.triu_indices(len(identities), k=1)
    same = identities[rows] == identities[columns]
    sides = [(part.purified @ part.purified.T)[rows, columns] >= threshold for part in (before, after)]
    changed = sides[0] != sides[1]
    return float(changed[same].mean()), float(changed[~same].mean())


def _genes(before: Seen, after: Seen) -> Genes | None:
    if before.probabilities is None or after.probabilities is None:
        return None
    change = np.abs(before.probabilities - after.probabilities)
    flipped = (before.probabilities > 0.5) != (after.probabilities > 0.5)
    return Genes(float(change.mean()), float(change.max()), float(flipped.mean()))


def refuse_below(accuracy: Accuracy, least_cosine: float, most_tar_lost: float) -> None:
    """Let no bundle through that lost more than was allowed.

    Raises:
        BundleError: it did; names what was measured, the limit, and how to mend it.
    """
    mean = min(accuracy.raw.mean, accuracy.purified.mean)
    if not mean >= least_cosine:
        raise BundleError(
            f"the converted bundle is refused: the mean cosine with the float embeddings of {accuracy.faces} faces is "
            f"{mean:.5f}, the limit is {least_cosine:g}",
            "Try another --method or --percentile, more --calibration-faces, fewer networks, or a lower --limit",
        )
    if not accuracy.tar_lost <= most_tar_lost:
        raise BundleError(
            f"the converted bundle is refused: its TAR at FMR {FMR:g} fell by {accuracy.tar_lost:.2f} points "
            f"({accuracy.tar_float:.4f} to {accuracy.tar_converted:.4f}), the limit is {most_tar_lost:g}",
            "Try another --method or --percentile, more --calibration-faces, fewer networks, or a higher --tar-limit",
        )
