"""Whether a table of attacks can be believed; the signs of a broken attack or of gradients that are merely hidden.

Source: Athalye, Carlini, Wagner, ICML 2018, section 3.1, and Carlini et al., "On Evaluating Adversarial Robustness",
2019. All rates are of the same pairs, at the same threshold.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Knowledge = Literal["clean", "noise", "transfer", "black box", "white box"]
Outcome = Literal["fine", "FAULTY", "not run"]

CONVERGED = 0.01
"""What twice the steps or draws may change a rate by, and still count as converged."""

HOPELESS_LEVELS = 64.0
"""Grey levels at which no defence can hold: the face can be painted over."""

ALL = 0.99
NOISE_COST = 0.10
"""What noise of an attack's size may add to the rate of clean faces."""


@dataclass(frozen=True)
class Run:
    """One attack's rate.

    Attributes:
        attack: its name, the same for all sizes of one attack.
        knowledge: what the attacker has; ``clean`` is no attack and ``noise`` random noise.
        levels: eps in grey levels of 255; infinity for no bound.
        rate: share of pairs that the attacker won, 0 to 1.
        steps: gradient steps, or questions; 0 where there are none.
        draws: gradients averaged a step.

    Raises:
        ValueError: a value is out of its range.
    """

    attack: str
    knowledge: Knowledge
    levels: float
    rate: float
    steps: int = 0
    draws: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.rate <= 1 and self.levels >= 0 and self.steps >= 0 and self.draws >= 1):
            raise ValueError(f"expected rate in [0, 1], levels and steps of at least 0 and draws of at least 1: {self}")


@dataclass(frozen=True)
class Verdict:
    """One check.

    Attributes:
        check: what was asked.
        outcome: fine, FAULTY, or not run, which is no better.
        reason: with the figures.
    """

    check: str
    outcome: Outcome
    reason: str


def verdicts(runs: Sequence[Run], tolerance: float = 0.0) -> list[Verdict]:
    """All checks, each at least once; a check without the runs that it needs says so.

    Args:
        runs: of one defence.
        tolerance: what a rate may fall short by before it is called faulty, for instance 1 / pairs.
    """
    checks = (_more_effort, _hopeless, _larger_eps, _white_box, _noise)
    return [verdict for check in checks for verdict in check(runs, tolerance)]


def _more_effort(runs: Sequence[Run], tolerance: float) -> Iterator[Verdict]:
    check, asked = "twice the effort is at least as strong, and changes nothing", False
    for run in runs:
        twice = {(run.attack, run.levels, 2 * run.steps, run.draws), (run.attack, run.levels, run.steps, 2 * run.draws)}
        for more in runs:
            if run.steps and (more.attack, more.levels, more.steps, more.draws) in twice:
                asked, change = True, more.rate - run.rate
                words = f"{_named(run)}, doubled: {run.rate:.3f} became {more.rate:.3f}"
                if change < -tolerance - 1e-9:
                    yield Verdict(check, "FAULTY", f"{words}: weaker, the search is broken")
                elif change > max(CONVERGED, tolerance) + 1e-9:
                    yield Verdict(check, "FAULTY", f"{words}: not converged, double again")
                else:
                    yield Verdict(check, "fine", words)
    if not asked:
        yield Verdict(check, "not run", "no attack was run with twice its steps or draws")


def _hopeless(runs: Sequence[Run], tolerance: float) -> Iterator[Verdict]:
    check = "without a bound nothing holds"
    found = [run for run in runs if run.knowledge == "white box" and run.levels >= HOPELESS_LEVELS]
    if not found:
        yield Verdict(check, "not run", f"no white-box attack of {HOPELESS_LEVELS:g} levels or more")
    for run in found:
        enough = run.rate >= ALL - tolerance - 1e-9
        reason = f"{_named(run)}: {run.rate:.3f}" + ("" if enough else f", expected {ALL}: gradients are masked")
        yield Verdict(check, "fine" if enough else "FAULTY", reason)


def _larger_eps(runs: Sequence[Run], tolerance: float) -> Iterator[Verdict]:
    check, asked = "a larger bound is at least as strong", False
    alike = sorted((run for run in runs if run.steps), key=lambda run: (run.attack, run.steps, run.draws, run.levels))
    for _, group in itertools.groupby(alike, key=lambda run: (run.attack, run.steps, run.draws)):
        for less, more in itertools.pairwise(group):
            asked = True
            fine = more.rate >= less.rate - tolerance - 1e-9
            reason = f"{_named(less)}: {less.rate:.3f}, with {more.levels:g} levels {more.rate:.3f}"
            yield Verdict(check, "fine" if fine else "FAULTY", reason)
    if not asked:
        yield Verdict(check, "not run", "no attack was run with two bounds")


def _white_box(runs: Sequence[Run], tolerance: float) -> Iterator[Verdict]:
    check, asked = "who knows more does at least as well", False
    for run in runs:
        if run.knowledge in ("transfer", "black box"):
            knowing = [other for other in runs if other.knowledge == "white box" and other.levels == run.levels]
            if knowing:
                asked, best = True, max(knowing, key=lambda other: other.rate)
                fine = best.rate >= run.rate - tolerance - 1e-9
                reason = f"{_named(run)} ({run.knowledge}): {run.rate:.3f}; {_named(best)}: {best.rate:.3f}"
                words = reason if fine else f"{reason}: gradients are masked"
                yield Verdict(check, "fine" if fine else "FAULTY", words)
    if not asked:
        yield Verdict(check, "not run", "no white-box attack of the same bound as a black-box or transferred one")


def _noise(runs: Sequence[Run], tolerance: float) -> Iterator[Verdict]:
    check = "noise is no attack"
    clean = [run.rate for run in runs if run.knowledge == "clean"]
    noise = [run for run in runs if run.knowledge == "noise"]
    if not clean or not noise:
        yield Verdict(check, "not run", "clean faces and faces with noise are both needed")
        return
    for run in noise:
        fine = run.rate <= max(clean) + NOISE_COST + tolerance + 1e-9
        reason = f"{_named(run)}: {run.rate:.3f}, clean {max(clean):.3f}"
        words = reason if fine else f"{reason}: the gate fails at noise, so attacks at this size say little"
        yield Verdict(check, "fine" if fine else "FAULTY", words)


def _named(run: Run) -> str:
    effort = f", {run.steps} steps" if run.steps else ""
    draws = f" of {run.draws} draws" if run.draws > 1 else ""
    size = "no bound" if math.isinf(run.levels) else f"{run.levels:g} levels"
    return f"{run.attack}, {size}{effort}{draws}"
