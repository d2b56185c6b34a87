"""What the figures come to, by rules that stand here, in plain words.

FAULTY: a check of the attacks failed; no figure counts. Otherwise the worst adaptive rates of the bundle's own mode
decide, whatever the other tiers say:

- BROKEN: at the smallest size tried, a person is recognised less than half as often as without an attack, or an
  impostor gets in more often than not; both beyond the 95 % interval.
- HOLDS: at every size up to 4 of 255 a person is recognised at least 0.8 times as often as without an attack, and an
  impostor gets in at most once in ten, both at the pessimistic end of the interval.
- WEAK: anything between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from immunogate.calib.robustness.document import Rate, Row, Sanity, SettingFacts, Status, Verdict
from immunogate.calib.robustness.protocols import HOPELESS

BROKEN_SHARE, BROKEN_ENTRIES = 0.5, 0.5
HOLDING_SHARE, HOLDING_ENTRIES = 0.8, 0.1
DECISIVE_LEVELS = 4.0
LIVENESS = "Purification is not liveness: a photo or a mask before the camera passes through it."
QUICK = "This was a quick look with few pairs and steps: its figures are not to be quoted."


def verdict_of(rows: Sequence[Row], sanity: Sanity, setting: SettingFacts, flags: Sequence[str]) -> Verdict:
    """Status and sentences, the headline first."""
    clean = _clean(rows)
    dodging, entering = _worst(rows, "dodging", "bundle"), _worst(rows, "impersonation", "bundle")
    status = "FAULTY" if sanity.faulty else _status(clean, dodging, entering)
    words = [_headline(status, sanity, clean, dodging, entering)]
    words += [f"Flagged: {flag}" for flag in flags]
    words += _sizes(clean, dodging, entering)
    words += _against_fixed(rows)
    words += _flattered(rows, dodging)
    words += [QUICK] if setting.protocol == "quick" else []
    return Verdict(status, (*words, LIVENESS), tuple(flags))


def worst_rate(row: Row) -> Rate | None:
    """The rate of a row that is worse for the gate: by the twin or as deployed."""
    rates = [rate for rate in (row.twin, row.deployed) if rate is not None]
    choose = max if row.goal == "impersonation" else min
    return choose(rates, key=lambda rate: rate.rate) if rates else None


def _worst(rows: Sequence[Row], goal: str, key: str) -> dict[float, Rate]:
    """By size, the rate that is worst for the gate in the adaptive tier."""
    found: dict[float, Rate] = {}
    for row in rows:
        rate = worst_rate(row)
        if (row.tier, row.goal, row.configuration) != ("adaptive", goal, key) or rate is None or row.eps is None:
            continue
        if row.eps < HOPELESS:
            choose = max if goal == "impersonation" else min
            found[row.eps] = choose(found.get(row.eps, rate), rate, key=lambda one: one.rate)
    return dict(sorted(found.items()))


def _clean(rows: Sequence[Row]) -> Rate | None:
    for row in rows:
        if (row.tier, row.attack, row.configuration) == ("controls", "clean", "bundle"):
            return worst_rate(row)
    return None


def _status(clean: Rate | None, dodging: dict[float, Rate], entering: dict[float, Rate]) -> Status:
    least = min([*dodging, *entering], default=None)
    if clean is None or least is None or not dodging:
        return "WEAK"  # what was not tried does not hold
    if least in dodging and dodging[least].high < BROKEN_SHARE * clean.rate:
        return "BROKEN"
    if least in entering and entering[least].low > BROKEN_ENTRIES:
        return "BROKEN"
    held = [rate.low >= HOLDING_SHARE * clean.rate for size, rate in dodging.items() if size <= DECISIVE_LEVELS]
    shut = [rate.high <= HOLDING_ENTRIES for size, rate in entering.items() if size <= DECISIVE_LEVELS]
    return "HOLDS" if held and shut and all(held + shut) else "WEAK"


def _headline(
    status: Status, sanity: Sanity, clean: Rate | None, dodging: dict[float, Rate], entering: dict[float, Rate]
) -> str:
    if status == "FAULTY":
        failed = "; ".join(f"{check.name}: {check.words}" for check in sanity.checks if not check.passed)
        return f"FAULTY: the attacks did not work as they must, so no figure here counts. {failed}."
    if clean is None or not (dodging or entering):
        return f"{status}: no attack went through the whole defence, so nothing is known of an attacker who knows it."
    size, rate = next(iter((dodging or entering).items()))
    what = "a person is still recognised" if dodging else "an impostor gets in"
    meaning = {
        "BROKEN": "an attacker who knows the gate gets past it",
        "WEAK": "it does not hold against an attacker who knows the gate",
        "HOLDS": f"within {DECISIVE_LEVELS:g}/255 an attacker who knows the gate gains little",
    }[status]
    return f"{status}: {meaning}. At {size:g}/255 {what} in {_said(rate)} of tries, {_said(clean)} without an attack."


def _sizes(clean: Rate | None, dodging: dict[float, Rate], entering: dict[float, Rate]) -> Iterator[str]:
    for size, rate in dodging.items():
        yield f"Adaptive, {size:g}/255: a person who hides is recognised in {_said(rate)} of tries."
    for size, rate in entering.items():
        yield f"Adaptive, {size:g}/255: an impostor is accepted in {_said(rate)} of tries."


def _against_fixed(rows: Sequence[Row]) -> Iterator[str]:
    """Whether the antibody is better than the fixed projection, beyond both intervals."""
    for goal in ("dodging", "impersonation"):
        own, fixed = _worst(rows, goal, "bundle"), _worst(rows, goal, "fixed")
        for size in sorted(own.keys() & fixed.keys()):
            ours, theirs = own[size], fixed[size]
            better = ours.low > theirs.high if goal == "dodging" else ours.high < theirs.low
            said = f"at {size:g}/255, {goal}: {_said(ours)} against {_said(theirs)}"
            if better:
                yield f"The antibody beats the fixed projection beyond the interval {said}."
            else:
                yield f"The antibody does not beat the fixed projection beyond the interval {said}."


def _flattered(rows: Sequence[Row], dodging: dict[float, Rate]) -> Iterator[str]:
    """Easier tiers look better, which is no result."""
    for size, rate in dodging.items():
        easier = [
            found
            for row in rows
            if (row.tier, row.goal, row.configuration, row.eps) == ("oblivious", "dodging", "bundle", size)
            and (found := worst_rate(row)) is not None
        ]
        if easier and min(one.rate for one in easier) > rate.rate:
            best = min(easier, key=lambda one: one.rate)
            yield (
                f"Attacks that do not know the defence leave {_said(best)} at {size:g}/255; that flatters, "
                "the adaptive rows count."
            )


def _said(rate: Rate) -> str:
    return f"{100 * rate.rate:.0f} % ({100 * rate.low:.0f} to {100 * rate.high:.0f})"
