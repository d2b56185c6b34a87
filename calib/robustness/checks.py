"""Whether the attacks worked at all: the signs of masked gradients and of a search that stopped too early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from immunogate.calib.robustness.document import Check, Sanity
from immunogate.calib.robustness.outcome import Attempt
from immunogate.networks.attacks.sanity import Run, verdicts

MOST_FLAT = 0.1
"""Share of gradients without any direction, of the stand-in that has fewest."""

MOST_KEPT = 0.1
"""Share of the pairs won on the twin that the deployed gate may still hold: rounding costs an attack little."""

QUESTIONED = "black box"
KNOWS_MORE = "who knows more does at least as well"


def sanity_of(attempts: Sequence[Attempt]) -> tuple[Sanity, list[str]]:
    """All checks that could be made, and sentences on those that could not."""
    checks: list[Check] = []
    missing: set[str] = set()
    for aim in ("dodging", "impersonation"):
        own = [attempt for attempt in attempts if attempt.aim == aim]
        if not any(attempt.knowledge == "white box" for attempt in own):
            missing.add(f"Attacks by gradients on the bundle's own mode ({aim}) were not run, so nothing was checked.")
            continue
        checks += [*_known(own, aim, missing), *_flat(own, aim), *_replayed(own, aim)]
    return Sanity(any(not check.passed for check in checks), tuple(checks)), sorted(missing)


def _known(attempts: list[Attempt], aim: str, missing: set[str]) -> Iterator[Check]:
    """The library's checks; attacks by questions are compared on the pairs that they were tried on."""
    full = [one for one in attempts if one.knowledge != QUESTIONED]
    few = [one for one in attempts if one.knowledge == QUESTIONED]
    judged = verdicts([_run(one) for one in full], _tolerance(full))
    if few:
        count = min(len(one.won) for one in attempts)
        judged = [one for one in judged if one.check != KNOWS_MORE or one.outcome != "not run"]
        asked = [one for one in attempts if one.knowledge in (QUESTIONED, "white box")]
        same = verdicts([_run(one, count) for one in asked], 1 / count)
        judged += [one for one in same if one.check == KNOWS_MORE]
    for verdict in judged:
        if verdict.outcome == "not run":
            # Noise and JPEG are tried on genuine pairs alone: that is no gap.
            if aim == "dodging":
                missing.add(f"Not checked: {verdict.check} ({verdict.reason}).")
        else:
            yield Check(f"{verdict.check} ({aim})", verdict.outcome == "fine", None, None, verdict.reason)


def _flat(attempts: list[Attempt], aim: str) -> Iterator[Check]:
    shares = [one.flat for one in attempts if one.flat is not None and one.knowledge == "white box"]
    if shares:
        most = max(shares)
        words = f"at the most {100 * most:.1f} % of an attack's gradients had no direction"
        yield Check(f"gradients have a direction ({aim})", most <= MOST_FLAT, most, MOST_FLAT, words)


def _replayed(attempts: list[Attempt], aim: str) -> Iterator[Check]:
    there = [one for one in attempts if one.kept_by_gate is not None and sum(one.won)]
    if there:
        worst = max(there, key=lambda one: (one.kept_by_gate or 0) / sum(one.won))
        held, won = worst.kept_by_gate or 0, sum(worst.won)
        share = held / won
        # One pair at the edge is no sign of anything, however few there are.
        passed = held <= 1 or share <= MOST_KEPT
        words = f"{worst.attack}, {worst.levels:g} levels: of {won} pairs won on the twin the deployed gate held {held}"
        yield Check(f"what fools the twin fools the gate ({aim})", passed, share, MOST_KEPT, words)


def _run(attempt: Attempt, count: int | None = None) -> Run:
    rate = float(np.mean(attempt.won[:count]))
    return Run(attempt.attack, attempt.knowledge, attempt.levels, rate, attempt.steps, attempt.draws)


def _tolerance(attempts: list[Attempt]) -> float:
    """One pair."""
    return 1 / min(len(one.won) for one in attempts)
