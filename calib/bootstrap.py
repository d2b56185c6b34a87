"""How sure a false match rate is, when comparisons share people: a bootstrap by person.

Each face is in many comparisons, and whoever looks like many others makes many errors at once, so comparisons are not
independent and Wilson's interval is too narrow. Drawing whole people anew, with all their comparisons, keeps those
dependencies: the subsets bootstrap (Bolle, Ratha, Pankanti, "Error analysis of pattern recognition systems: the subsets
bootstrap", CVIU 2004); ISO/IEC 19795-1 asks for the same wherever test subjects contribute several attempts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

REPLICATES = 1000
SEED = 0
HIGHEST_RATE = 0.1
"""Largest false match rate that is supported; of the impostor pairs, so many are kept with their owners."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Blocks:
    """Whose the strongest comparisons of different people are.

    Attributes:
        faces: (P,) int64, faces of each person.
        first, second: (K,) int64, the two people of the K strongest comparisons, strongest first.
    """

    faces: Counts
    first: Counts
    second: Counts

    @cached_property
    def drawn(self) -> Counts:
        """(R, P) how often each replicate draws each person; seeded."""
        people = len(self.faces)
        draw = np.random.default_rng(SEED)
        return draw.multinomial(people, np.full(people, 1 / people), size=REPLICATES)

    @cached_property
    def comparisons(self) -> Counts:
        """(R,) comparisons of different people in each replicate; those of a person with his own copies are none."""
        weighted = self.drawn * self.faces
        found: Counts = (weighted.sum(axis=1) ** 2 - np.square(weighted).sum(axis=1)) // 2
        return found

    def upper(self, errors: Counts) -> npt.NDArray[np.float64]:
        """The upper ends of 95 % of the false match rate, where so many of the strongest comparisons are errors.

        Percentiles of the replicates' rates; a replicate without any comparison counts as a rate of 1. They grow with
        the number of errors, since each replicate's own rate does.

        Args:
            errors: (N,) in 0 .. K, ascending.
        """
        most = int(errors.max(initial=0))
        first, second = self.first[:most], self.second[:most]
        rates = np.empty((len(self.drawn), len(errors)))
        for row, (people, total) in enumerate(zip(self.drawn, self.comparisons, strict=True)):
            found = np.concatenate([[0], np.cumsum(people[first] * people[second])])[errors]
            rates[row] = found / total if total else 1.0
        upper: npt.NDArray[np.float64] = np.quantile(rates, 0.975, axis=0, method="higher")
        return upper


def most_errors(blocks: Blocks, rate: float, most: int, grid: int = 200) -> int:
    """The most of the strongest comparisons that may be errors with the upper end of the rate still within ``rate``.

    Args:
        blocks: whose the comparisons are.
        rate: target.
        most: no more are asked about.
        grid: how finely each of the rounds looks.
    """
    low, high = 0, most
    while low < high:
        asked = np.unique(np.linspace(low + 1, high, min(grid, high - low)).astype(np.int64))
        fits = blocks.upper(asked) <= rate
        low, high = (int(asked[fits][-1]) if fits.any() else low), (int(asked[~fits][0]) - 1 if not fits.all() else low)
        if bool(fits.all()):
            return int(asked[-1])
    return low
