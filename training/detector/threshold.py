"""What a score means: the gate's usual limit should seldom pass what is no face."""

from __future__ import annotations

import numpy as np

from immunogate.structs import Floats

USUAL = 0.6
"""Score from which the gate reports a face."""

MOST_EXTRA = 0.009
"""Share of what is reported at that score that may be no face."""

LOWEST, HIGHEST = 0.3, 0.97
"""Scores between which a limit is looked for: one stubborn mistake must not cost half of the faces."""


def caution(faces: Floats, extra: Floats) -> float:
    """How much the logits of all scores must fall, or below 0 may rise, so that few mistakes exceed the usual limit.

    The limit is the lowest, from `LOWEST` to `HIGHEST`, that leaves a share of at most `MOST_EXTRA` mistakes.

    Args:
        faces: scores of what was found and is a face, from `LOWEST` on.
        extra: scores of what was found and is none, likewise.
    """
    limit = LOWEST
    for score in np.sort(extra):
        if (extra > limit).sum() <= MOST_EXTRA * ((extra > limit).sum() + (faces > limit).sum()):
            break
        limit = min(max(limit, float(score) + 1e-3), HIGHEST)
    return float(np.log(limit / (1 - limit)) - np.log(USUAL / (1 - USUAL)))
