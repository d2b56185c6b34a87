"""Rates against the size of the attack and against latency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from immunogate.calib.robustness.document import Aim, Attacker, Document, Key, Rate, Row, Tier
from immunogate.calib.robustness.report.words import (
    GOAL_AXES,
    GOAL_TITLES,
    GOAL_WORDS,
    GOALS,
    LOOKS,
    TIERS,
    levels,
    names,
    share,
)
from immunogate.pages.markup import Html, element, join
from immunogate.pages.page import Section, figure, figures, paragraph
from immunogate.pages.svg import Axis, Point, Series, linear_axis, log_axis, plot

CaseKey: TypeAlias = "tuple[Tier, str, Attacker]"
_HOLLOW = "Filled marks are rates of the deployed bundle; hollow ones of the twin, where nothing was deployed."
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def curves_section(document: Document) -> Section:
    """One drawing for each attack that was run in two sizes or more, by goal."""
    parts: list[Html] = []
    for goal in GOALS:
        drawn = [_curve(document, case, rows) for case, rows in _cases(document.rows, goal).items() if _sizes(rows) > 1]
        if drawn:
            parts += [element("h3", f"{GOAL_TITLES[goal]}: {GOAL_WORDS[goal]}"), figures(drawn)]
    none = paragraph("No attack was run in more than one size.", class_="none")
    words = f"{_HOLLOW} Bars are 95 % Wilson intervals; configurations are moved apart a little sideways."
    return Section("curves", "Rate against size of the attack", join([paragraph(words), *parts] if parts else [none]))


def latency_section(document: Document) -> Section:
    """For each goal and size: the worst adaptive rate of each configuration beside its time."""
    timed = {each.key: each.ms_per_face for each in document.configurations if each.ms_per_face}
    drawn: list[Html] = []
    for goal in ("dodging", "impersonation"):
        rows = [row for row in document.rows if row.tier == "adaptive" and row.goal == goal and row.eps is not None]
        for eps in sorted({row.eps for row in rows if row.eps is not None}):
            worst = _worst([row for row in rows if row.eps == eps and row.configuration in timed], goal)
            if worst:
                drawn.append(_beside_latency(document, goal, eps, worst))
    words = (
        "The worst rate over all adaptive attacks of one size, beside the time of one face: the mark stands at p50, "
        f"the bar ends at p99. {_HOLLOW}"
    )
    missing = paragraph("Not run: no configuration has both a time and an adaptive rate.", class_="none")
    return Section(
        "latency", "Latency beside robustness", join([paragraph(words), figures(drawn)]) if drawn else missing
    )


def reading(row: Row) -> tuple[Rate, bool] | None:
    """A row's rate, and whether it is the twin's because nothing was deployed."""
    if row.deployed is not None:
        return row.deployed, False
    return None if row.twin is None else (row.twin, True)


def _cases(rows: Iterable[Row], goal: Aim) -> dict[CaseKey, list[Row]]:
    found: dict[CaseKey, list[Row]] = {}
    for row in rows:
        if row.goal == goal and row.eps is not None and row.tier != "retries" and reading(row):
            found.setdefault((row.tier, row.attack, row.attacker), []).append(row)
    return dict(sorted(found.items(), key=lambda case: TIERS.index(case[0][0])))


def _sizes(rows: Iterable[Row]) -> int:
    return len({row.eps for row in rows})


def _curve(document: Document, case: CaseKey, rows: Sequence[Row]) -> Html:
    tier, attack, attacker = case
    goal, called = rows[0].goal, names(document)
    series = [
        Series(called[key], [_point(row) for row in _of(rows, key)], LOOKS[key]) for key in LOOKS if _of(rows, key)
    ]
    spoken = "; ".join(
        f"{each.name} " + ", ".join(f"{share(point.y)} at {point.x:g}" for point in each.points) for each in series
    )
    x = linear_axis("eps in grey levels of 255", 0, max(row.eps or 0 for row in rows))
    drawing = plot(f"{attack}, {GOAL_TITLES[goal].lower()}: {spoken}.", x, _rates(goal), series, spread=2.5)
    return figure(drawing, f"{tier.capitalize()}, {attacker}", attack)


def _of(rows: Iterable[Row], key: Key) -> list[Row]:
    return sorted((row for row in rows if row.configuration == key), key=lambda row: row.eps or 0)


def _point(row: Row) -> Point:
    found = reading(row)
    assert found is not None  # _cases has left out rows without
    rate, twin = found
    return Point(row.eps or 0, rate.rate, (rate.low, rate.high), hollow=twin)


def _rates(goal: Aim) -> Axis:
    return Axis(GOAL_AXES[goal], 0, 1, _SHARES)


def _worst(rows: Iterable[Row], goal: Aim) -> dict[Key, tuple[Rate, bool]]:
    """The lowest rate of dodging, the highest of impersonation."""
    sign = 1 if goal == "dodging" else -1
    found: dict[Key, tuple[Rate, bool]] = {}
    for row in rows:
        here = reading(row)
        if here and (row.configuration not in found or sign * here[0].rate < sign * found[row.configuration][0].rate):
            found[row.configuration] = here
    return found


def _beside_latency(document: Document, goal: Aim, eps: float, worst: dict[Key, tuple[Rate, bool]]) -> Html:
    times = {each.key: each.ms_per_face for each in document.configurations}
    series, spoken, called = [], [], names(document)
    for key, (rate, twin) in worst.items():
        time = times[key]
        assert time is not None  # only configurations with a time were asked for
        point = Point(time.p50, rate.rate, (rate.low, rate.high), (time.p50, time.p99), hollow=twin)
        series.append(Series(called[key], [point], LOOKS[key], joined=False))
        spoken.append(f"{called[key]} {share(rate.rate)} in {time.p50:.4g} ms, p99 {time.p99:.4g} ms")
    ends = [end for key in worst if (time := times[key]) for end in (time.p50, time.p99)]
    drawing = plot(
        f"{GOAL_TITLES[goal]} at {levels(eps)}: {'; '.join(spoken)}.",
        log_axis("ms a face, p50 to p99", min(ends), max(ends)), _rates(goal), series,
    )  # fmt: skip
    return figure(drawing, GOAL_WORDS[goal], f"{GOAL_TITLES[goal]}, {levels(eps)} grey levels")
