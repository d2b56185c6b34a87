"""The Square attack: a search at random, by the gate's similarities alone.

Source: Andriushchenko, Croce, Flammarion, Hein, "Square Attack: a query-efficient black-box adversarial attack via
random search", ECCV 2020, algorithms 1 and 2. Written out here because a library's asks the gate two or three times a
step, which a count of questions can not have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from immunogate.networks.attacks.oracle import Rows, VerificationOracle
from immunogate.structs import CROP_SIZE, Floats

FIRST_SHARE = 0.8
"""p_init: the share of pixels of the first squares; the paper's choice for margin losses."""

HALVINGS = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)
"""Steps of 10,000 after which the share is halved."""


@dataclass(frozen=True, eq=False)
class Answered:
    """What an attack by questions came by.

    Attributes:
        points: (B, D) in [-1, 1], the best found.
        scores: (B,) the gate's similarity to the template when it was asked about them.
        lost: (B,) bool.
        queries: (B,) int64 questions asked about each sample.
    """

    points: Floats
    scores: Floats
    lost: npt.NDArray[np.bool_]
    queries: Rows


def share_at(step: int, steps: int) -> float:
    """The share of pixels that a square covers at a step, from 0; the schedule is stretched to ``steps``."""
    passed = sum(step * 10_000 / steps > mark for mark in HALVINGS)
    return float(FIRST_SHARE * 0.5**passed)


def square(
    oracle: VerificationOracle,
    clean: Floats,
    eps: float,
    queries: int,
    *,
    seed: int = 0,
    batch: int = 16,
    watch: Callable[[int, int], None] | None = None,
) -> Answered:
    """Attack grey faces within the L-infinity ball. A sample that is lost is asked about no more.

    It begins with vertical stripes of +-eps; each step sets one square to +eps or -eps and stays if that gains. Where a
    square has that value already the other is taken, so no question is wasted. Each sample has its own generator, and
    a batch or another sample's loss changes nothing.

    Args:
        oracle: the gate.
        clean: (B, D) float32 in [-1, 1].
        eps: on the scale of [-1, 1].
        queries: most questions about each sample.
        seed: of all draws.
        batch: samples asked about at once.
        watch: is told after each step: steps done and in all.

    Raises:
        ValueError: queries is below 1 or eps is not in [0, 2].
    """
    if queries < 1 or not 0 <= eps <= 2:
        raise ValueError(f"expected queries of at least 1 and eps in [0, 2], got {queries} and {eps}")
    draws = [np.random.default_rng([seed, row]) for row in range(len(clean))]
    pictures = clean.reshape(-1, CROP_SIZE, CROP_SIZE)
    stripes = np.stack([draw.choice([-eps, eps], size=(1, CROP_SIZE)) for draw in draws]).astype(np.float32)
    best = np.clip(pictures + stripes, -1, 1)
    scores = np.full(len(clean), np.nan, np.float32)
    lost = np.zeros(len(clean), np.bool_)
    for step in range(queries):
        holding = np.flatnonzero(~lost)
        if not len(holding):
            break
        for begin in range(0, len(holding), batch):
            rows = holding[begin : begin + batch]
            tried = best[rows]
            if step:
                side = max(1, round((share_at(step - 1, queries) ** 0.5) * CROP_SIZE))
                tried = np.stack([_squared(best[row], pictures[row], eps, side, draws[row]) for row in rows])
            found = oracle.scores(tried.reshape(len(rows), -1), rows)
            gains = oracle.advantage(found, rows) > oracle.advantage(scores[rows], rows) if step else np.isfinite(found)
            best[rows[gains]], scores[rows[gains]] = tried[gains], found[gains]
            lost[rows] = oracle.lost(scores[rows], rows)
        if watch is not None:
            watch(step + 1, queries)
    return Answered(best.reshape(clean.shape), scores, lost, oracle.queries.copy())


def _squared(best: Floats, clean: Floats, eps: float, side: int, draw: np.random.Generator) -> Floats:
    """(112, 112) the best picture with one more square."""
    top, left = draw.integers(0, CROP_SIZE - side + 1, size=2)
    place = np.s_[top : top + side, left : left + side]
    change = draw.choice([-eps, eps])
    for value in (change, -change):
        new = np.clip(clean[place] + np.float32(value), -1, 1)
        if not np.array_equal(new, best[place]):
            break
    tried = best.copy()
    tried[place] = new
    return np.asarray(tried, np.float32)
