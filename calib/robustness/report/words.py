"""How the report says numbers: with units, with intervals, and "not run" where there is none."""

from __future__ import annotations

from immunogate.calib.robustness.document import Aim, Attacker, Document, Key, Rate, Row, Tier
from immunogate.pages.markup import Html, element, join
from immunogate.pages.svg import interval
from immunogate.pages.table import beside

NOT_RUN = element("span", "not run", class_="none")
LOOKS: dict[Key, int] = {
    "bundle": 0, "none": 1, "fixed": 2, "jpeg": 3, "blur": 4,
    "bits": 5, "expected": 6, "threshold": 7, "sample": 8, "select": 9,
}  # fmt: skip
"""How each configuration is drawn, everywhere alike."""

TIERS: tuple[Tier, ...] = ("adaptive", "oblivious", "black box", "patch", "retries", "controls")
"""The strongest attacker first."""

LARGEST_RESULT = 32.0
"""Grey levels; larger attacks are there to show that they work, and stand in the full table alone."""

GOALS: tuple[Aim, ...] = ("dodging", "impersonation", "none")
GOAL_TITLES: dict[Aim, str] = {"dodging": "Dodging", "impersonation": "Impersonation", "none": "No attack"}
GOAL_WORDS: dict[Aim, str] = {
    "dodging": "share of genuine pairs that the gate still accepts (true accept rate under attack); higher is better",
    "impersonation": "share of impostor pairs that the gate accepts (attack acceptance rate); lower is better",
    "none": "share of genuine pairs that the gate accepts (true accept rate); higher is better",
}
GOAL_AXES: dict[Aim, str] = {
    "dodging": "genuine pairs accepted (more is better)",
    "impersonation": "impostor pairs accepted (less is better)",
    "none": "pairs accepted",
}


def names(document: Document) -> dict[Key, str]:
    """What each configuration is called; one that is not described goes by its key."""
    described = {each.key: each.name for each in document.configurations}
    return {key: described.get(key, key) for key in LOOKS}


def share(value: float) -> str:
    """A rate in [0, 1] with three digits behind the point, or two significant ones where it is small."""
    # What is below 1e-9 is 0 but for rounding.
    return f"{value:.2g}".replace("e-0", "e-") if 1e-9 < value < 1e-2 else f"{value:.3f}"


def number(value: float | None, unit: str = "") -> Html:
    """A number of four significant digits and its unit."""
    return NOT_RUN if value is None else join([f"{value:.4g}{f' {unit}' if unit else ''}"])


def span(rate: Rate) -> str:
    """The interval of a rate."""
    return f"{share(rate.low)} to {share(rate.high)}"


def rate_text(rate: Rate | None) -> Html:
    """A rate, and below it its interval and counts."""
    if rate is None:
        return NOT_RUN
    return join([share(rate.rate), element("span", f"{span(rate)}; {rate.accepted} of {rate.of}", class_="detail")])


def rate_line(rate: Rate) -> str:
    """A rate with its interval and counts in one line."""
    return f"{share(rate.rate)} ({span(rate)}; {rate.accepted} of {rate.of})"


def rate_drawn(rate: Rate | None, look: int, *, hollow: bool = False) -> Html:
    """A rate as `rate_text`, with its interval drawn on the scale of the column."""
    if rate is None:
        return NOT_RUN
    drawing = interval(rate.rate, rate.low, rate.high, look, hollow=hollow)
    return beside(rate_text(rate), drawing)


def levels(eps: float | None) -> str:
    """A bound in grey levels."""
    return "no bound" if eps is None else f"{eps:g}\u00a0of\u00a0255"


def is_result(row: Row) -> bool:
    """Whether a row says something about the gate, and not only about the attack."""
    return row.eps is None or row.eps <= LARGEST_RESULT


def case_of(row: Row) -> tuple[float, str, Attacker]:
    """What rows have in common that differ in their configuration alone; sorts by size, no bound last."""
    return (float("inf") if row.eps is None else row.eps, row.attack, row.attacker)


def case_title(row: Row) -> str:
    """What `case_of` is, in words."""
    size = f"{row.eps:g} of 255 grey levels" if row.eps is not None else "no bound"
    return f"{row.attack}, {size}, {row.attacker}"


def plural(count: int, word: str) -> str:
    """A count and what is counted."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def moment(written: str) -> str:
    """A time as ISO 8601 writes it, a little easier to read."""
    return written.replace("T", " ", 1).replace("+00:00", " UTC")


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
