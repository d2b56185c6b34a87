"""Which mode, and how many clones, within a budget of time: the settings, the front of the best, and the choice.

Robustness costs time. What is measured of each setting is the latency of the real chain, and the true accept rate at
the setting's own threshold: clean, under an attack that knows the recogniser alone, and under one that goes through
the whole defence. The front follows Pareto: settings that no other one beats in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from immunogate.calib.curves import Rate
from immunogate.errors import ImmunogateError, UsageError
from immunogate.kernels.antibody import MODES
from immunogate.manifest import PurifierEntry

CLONES = (1, 4, 16, 64, 256, 1000)
KEPT = (1, 2, 4, 8)
RANDOM = ("sample", "select")


@dataclass(frozen=True)
class Setting:
    """One way to make antibodies.

    Attributes:
        mode: of `immunogate.kernels.antibody.MODES`.
        clones: drawn, K; 0 where none are, 1 in mode sample.
        keep: antibodies whose embeddings are averaged, m.
        components: eigenfaces that may be kept.
    """

    mode: str
    clones: int
    keep: int
    components: int

    def __str__(self) -> str:
        if self.mode == "fixed":
            return f"fixed, top {self.components}"
        return f"select, {self.keep} of {self.clones}" if self.mode == "select" else self.mode

    @property
    def is_random(self) -> bool:
        """Whether clones are drawn: who may try again gains by it."""
        return self.mode in RANDOM

    def entry(self, entry: PurifierEntry) -> PurifierEntry:
        """A bundle's purifier with this setting; numbers that the mode does not use stay as they are."""
        if self.mode == "fixed":
            return replace(entry, mode=self.mode, top_k=self.components)
        if self.mode == "select":
            return replace(entry, mode=self.mode, clones=self.clones, keep=self.keep)
        return replace(entry, mode=self.mode)


def settings_of(
    entry: PurifierEntry,
    has_analyzer: bool,
    modes: Sequence[str] | None = None,
    clones: Iterable[int] = CLONES,
    kept: Iterable[int] = KEPT,
    components: Iterable[int] | None = None,
) -> list[Setting]:
    """All settings to try, deterministic ones first.

    Clones and kept ones matter to mode select, the number of components to mode fixed: the other modes weigh all
    eigenfaces that the analyzer knows.

    Args:
        entry: of the bundle.
        has_analyzer: whether it has one; without it there is mode fixed alone.
        modes: by default all that the bundle can run.
        clones: drawn, to combine with
        kept: kept; no more are kept than drawn.
        components: by default a quarter, a half, three quarters and all of the eigenfaces, and the bundle's own.

    Raises:
        UsageError: an unknown mode, one that needs an analyzer, a number out of range, or nothing is left.
    """
    possible = MODES if has_analyzer else ("fixed",)
    for mode in modes or ():
        if mode not in MODES:
            raise UsageError(f"unknown mode {mode!r}", f"Use some of: {', '.join(MODES)}")
        if mode not in possible:
            raise UsageError(f"mode {mode} needs an analyzer and this bundle has none", "Use --modes fixed")
    most = entry.components
    usual = {most // 4, most // 2, 3 * most // 4, most, entry.top_k} - {0}
    tops = sorted(set(components)) if components is not None else sorted(usual)
    numbers = [("--components", tops, most), ("--clones", clones, 4096), ("--kept", kept, 4096)]
    for name, values, limit in numbers:
        if wrong := [value for value in values if not 1 <= value <= limit]:
            raise UsageError(f"{name} must be in 1 .. {limit}, got {wrong[0]}")
    found = {
        "fixed": [Setting("fixed", 0, 1, top) for top in tops],
        "expected": [Setting("expected", 0, 1, most)],
        "threshold": [Setting("threshold", 0, 1, most)],
        "sample": [Setting("sample", 1, 1, most)],
        "select": [Setting("select", k, m, most) for k in sorted(set(clones)) for m in sorted(set(kept)) if m <= k],
    }
    settings = [setting for mode in possible if mode in (modes or possible) for setting in found[mode]]
    if not settings:
        raise UsageError("no setting is left to try", "Keep no more clones than are drawn")
    return settings


@dataclass(frozen=True)
class Tried:
    """What was measured of a setting.

    Attributes:
        setting: which.
        p50_ms, p99_ms: milliseconds for one face through purifier and recogniser.
        faces: timed.
        threshold: its own, at the false match rate asked for; of other people than the rates below.
        clean: true accept rate.
        replayed: under an attack on the recogniser alone, or noise of the same size.
        adaptive: under an attack through this very defence, its pictures shown to the deployed chain; None where it
            was not run.
    """

    setting: Setting
    p50_ms: float
    p99_ms: float
    faces: int
    threshold: float
    clean: Rate
    replayed: Rate
    adaptive: Rate | None = None

    @property
    def robustness(self) -> tuple[float, float, float]:
        """What is compared: adaptive first, replayed next, clean last; what was not run is the worst."""
        adaptive = -1.0 if self.adaptive is None else self.adaptive.rate or 0.0
        return adaptive, self.replayed.rate or 0.0, self.clean.rate or 0.0


def on_front(tried: Sequence[Tried]) -> list[bool]:
    """Which no other one beats: at most as slow (p99) and at least as robust, and better in one of the two."""

    def beats(other: Tried, one: Tried) -> bool:
        as_good = other.p99_ms <= one.p99_ms and other.robustness >= one.robustness
        return as_good and (other.p99_ms < one.p99_ms or other.robustness > one.robustness)

    return [not any(beats(other, one) for other in tried) for one in tried]


def choose(tried: Sequence[Tried], budget_ms: float, *, was_attacked: bool) -> Tried:
    """The most robust setting whose p99 is within the budget; of equals the fastest.

    Clones that are drawn make an attacker's gradients noisy, so that a small attack flatters them, and whoever may try
    again gains by every draw. A setting that draws is therefore chosen over the best deterministic one only where its
    interval under the adaptive attack lies wholly above that one's; and never where no such attack was run.

    Args:
        tried: all settings.
        budget_ms: milliseconds.
        was_attacked: whether the adaptive attack was run on those within the budget.

    Raises:
        ImmunogateError: nothing meets the budget (it names the fastest), or nothing but random settings does and
            they were not attacked.
    """
    within = [one for one in tried if one.p99_ms <= budget_ms]
    if not within:
        fastest = min(tried, key=lambda one: one.p99_ms)
        raise ImmunogateError(
            f"no setting meets {budget_ms:g} ms for one face here; the fastest is {fastest.setting} with p99 "
            f"{fastest.p99_ms:.1f} ms (p50 {fastest.p50_ms:.1f} ms)",
            "Allow more time, or make the networks faster: immunogate calibrate precision",
        )
    plain, drawing = ([one for one in within if one.setting.is_random == drawn] for drawn in (False, True))
    if not plain and not was_attacked:
        raise ImmunogateError(
            "only modes that draw clones meet the budget, and no adaptive attack was run on them",
            "Name the checkpoints (--basis, --recogniser, --purifier), or allow more time",
        )
    best = _best(plain or drawing)
    if not was_attacked:
        return best
    better = [one for one in drawing if _ends(one)[0] > _ends(best)[1]]
    return _best(better) if better else best


def _best(tried: Sequence[Tried]) -> Tried:
    return max(tried, key=lambda one: (one.robustness, -one.p99_ms))


def _ends(one: Tried) -> tuple[float, float]:
    """Of the interval under attack: the adaptive one where it was run."""
    rate = one.adaptive or one.replayed
    return rate.low or 0.0, rate.high or 0.0


def alike(tried: Sequence[Tried], best: Tried, budget_ms: float) -> list[Tried]:
    """Others within the budget whose adaptive (or else replayed) interval overlaps the best one's."""
    low, high = _ends(best)
    return [
        one
        for one in tried
        if one is not best
        and one.p99_ms <= budget_ms
        and (one.adaptive is None) == (best.adaptive is None)
        and _ends(one)[1] >= low
        and _ends(one)[0] <= high
    ]
