"""Rates against the size of the attack and against latency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from immunogate.calib.robustness.document import Aim, Attacker, Document, Key, Rate, Row, Tier
from immunogate.calib.robustness.report.words import (
    GOAL_AXES,
    GOAL_TITLES,
    GOAL_WORDS,
    GOALS,
    LARGEST_RESULT,
    LOOKS,
    TIERS,
    is_result,
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
    words = (
        f"{_HOLLOW} Bars are 95 % Wilson intervals; configurations are moved apart a little "
        "sideways. At eps 0 of genuine pairs stands the rate without an attack. Attacks larger than "
        f"{LARGEST_RESULT:g} of 255, which only show that attacks work, stand in the full table."
    )
    return Section("curves", "Rate against size of the attack", join([paragraph(words), *parts] if parts else [none]))


def latency_section(document: Document) -> Section:
    """For each goal and size: the worst adaptive rate of each configuration beside its time."""
    timed = {each.key for each in document.configurations if each.ms_per_face}
    rows = [
        row
        for row in document.rows
        if row.tier == "adaptive" and row.eps is not None and is_result(row) and reading(row)
    ]
    rows = [row for row in rows if row.configuration in timed]
    parts: list[Html] = []
    for goal in GOALS:
        chosen = [row for row in rows if row.goal == goal]
        sizes = sorted({row.eps for row in chosen if row.eps is not None})
        drawn = [_beside_latency(document, [row for row in chosen if row.eps == eps]) for eps in sizes]
        if drawn:
            parts += [element("h3", f"{GOAL_TITLES[goal]}: {GOAL_WORDS[goal]}"), figures(drawn)]
    words = (
        "The worst rate for the gate over all adaptive attacks of one size, by the twin (hollow) or as deployed "
        "(filled), beside the time of one face: the mark stands at p50, the bar ends at p99."
    )
    none = paragraph("Not run: no configuration has both a time and an adaptive rate.", class_="none")
    return Section("latency", "Latency beside robustness", join([paragraph(words), *parts] if parts else [none]))


def reading(row: Row) -> tuple[Rate, bool] | None:
    """A row's rate, and whether it is the twin's because nothing was deployed."""
    if row.deployed is not None:
        return row.deployed, False
    return None if row.twin is None else (row.twin, True)


def _cases(rows: Iterable[Row], goal: Aim) -> dict[CaseKey, list[Row]]:
    found: dict[CaseKey, list[Row]] = {}
    for row in filter(is_result, rows):
        if row.goal == goal and row.eps is not None and row.tier != "retries" and reading(row):
            found.setdefault((row.tier, row.attack, row.attacker), []).append(row)
    return dict(sorted(found.items(), key=lambda case: TIERS.index(case[0][0])))


def _sizes(rows: Iterable[Row]) -> int:
    return len({row.eps for row in rows})


def _curve(document: Document, case: CaseKey, rows: Sequence[Row]) -> Html:
    tier, attack, attacker = case
    goal, called = rows[0].goal, names(document)
    clean = [row for row in document.rows if (row.tier, row.attack) == ("controls", "clean") and reading(row)]
    begin = [row for row in clean if row.attacker == attacker and goal != "impersonation"]
    found = {key: _of(rows, key) for key in LOOKS}
    series = [
        Series(called[key], [_point(row) for row in (*_of(begin, key), *own)], LOOKS[key])
        for key, own in found.items()
        if own
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


def _worst(rows: Iterable[Row]) -> dict[Key, Point]:
    """Of each configuration the lowest rate of dodging, or the highest of impersonation; x is not yet a time."""
    found: dict[Key, Point] = {}
    for row in rows:
        sign = 1 if row.goal == "impersonation" else -1
        for rate, twin in ((row.deployed, False), (row.twin, True)):
            if rate is None:
                continue
            before = found.get(row.configuration)
            if before is None or sign * rate.rate > sign * before.y:
                found[row.configuration] = Point(0, rate.rate, (rate.low, rate.high), hollow=twin)
    return {key: found[key] for key in LOOKS if key in found}


def _beside_latency(document: Document, rows: Sequence[Row]) -> Html:
    times = {each.key: each.ms_per_face for each in document.configurations}
    goal, size, called = rows[0].goal, levels(rows[0].eps), names(document)
    series, spoken, ends = [], [], []
    for key, worst in _worst(rows).items():
        time = times[key]
        assert time is not None  # latency_section has left out configurations without
        point = replace(worst, x=time.p50, x_interval=(time.p50, time.p99))
        series.append(Series(called[key], [point], LOOKS[key], joined=False))
        spoken.append(f"{called[key]} {share(point.y)} in {time.p50:.4g} ms, p99 {time.p99:.4g} ms")
        ends += [time.p50, time.p99]
    x = log_axis("ms a face, p50 to p99", min(ends), max(ends))
    drawing = plot(f"{GOAL_TITLES[goal]} at {size}: {'; '.join(spoken)}.", x, _rates(goal), series)
    attacks = ", ".join(dict.fromkeys(row.attack for row in rows))
    return figure(drawing, f"Worst of {attacks}", f"{size} grey levels")
