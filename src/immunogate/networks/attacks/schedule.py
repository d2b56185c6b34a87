"""When APGD looks back and when it halves its step; source: Croce and Hein, ICML 2020, section 3."""

from __future__ import annotations

import math

from torch import Tensor

RISES = 0.75
"""rho: the share of steps that must have gained for the step size to stay."""

FIRST, SHRINKING, LEAST = 0.22, 0.03, 0.06


def checkpoints(steps: int) -> list[int]:
    """The steps w_1 < w_2 < ... <= N at which APGD looks back, w_j = ceil(p_j N).

    p_0 = 0, p_1 = 0.22 and p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06).

    Raises:
        ValueError: steps is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    before, now = 0.0, FIRST
    found: list[int] = []
    while now <= 1 + 1e-9:
        step = math.ceil(round(now * steps, 9))  # sums of hundredths are not exact; 0.41 N must not become more
        if not found or step > found[-1]:
            found.append(step)
        before, now = now, now + max(now - before - SHRINKING, LEAST)
    return found


def halves(rises: Tensor, length: int, kept_size: Tensor, peak_before: Tensor, peak: Tensor) -> Tensor:
    """(b,) bool: whose step is halved at a checkpoint.

    Args:
        rises: (b,) steps since the last checkpoint that gained.
        length: steps since then.
        kept_size: (b,) whether the step was not halved there.
        peak_before: (b,) the highest gain known then.
        peak: (b,) the highest gain known now.
    """
    return (rises < RISES * length) | (kept_size & (peak <= peak_before))
