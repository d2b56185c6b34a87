"""Signs of attack, retries, and whether the attacks themselves can be believed."""

from __future__ import annotations

from immunogate.calib.robustness.document import Check, Document, Row, Signal
from immunogate.calib.robustness.report.words import (
    GOAL_TITLES,
    GOAL_WORDS,
    GOALS,
    NOT_RUN,
    levels,
    names,
    rate_drawn,
    rate_line,
    rate_text,
)
from immunogate.pages.markup import Part, element, join
from immunogate.pages.page import Section, paragraph
from immunogate.pages.svg import scale
from immunogate.pages.table import Column, Group, table


def alarm_section(document: Document) -> Section:
    """For each signal its limit, its false alarms, and what it flags."""
    signals = document.alarm.signals
    if not signals:
        return Section("alarm", "Alarm", paragraph("No signal was measured.", class_="none"))
    columns = [Column("Attack"), Column("Size")]
    columns += [
        Column(title, head=scale()) for title in ("Flagged", "Flagged or neutralised", "Of those that fool no defence")
    ]
    words = (
        "Flagged: share of attacked faces that raise the signal. Neutralised: not flagged, but the gate decides "
        "rightly. The last column counts only faces that get their way with the recogniser alone. False alarms are of "
        "clean faces."
    )
    shown = table("Share of attacked faces, by signal", columns, [_signal(signal) for signal in signals])
    return Section("alarm", "Alarm", join([paragraph(words), shown]))


def retries_section(document: Document) -> Section:
    """What comes of trying again until the gate locks."""
    lockout = document.setting.lockout
    rows = [row for row in document.rows if row.tier == "retries"]
    if not rows:
        return Section("retries", "Retries", paragraph(f"Not run. The lock-out is at {lockout} tries.", class_="none"))
    columns = [
        Column("Attack"), Column("Defence"), Column("Size"), Column("Tries", number=True), Column("Twin", number=True),
        Column("Deployed", number=True),
    ]  # fmt: skip
    called = names(document)
    tables = [
        table(f"{GOAL_TITLES[goal]}: {GOAL_WORDS[goal]}", columns, [Group([_retry(row, called[row.configuration])
              for row in rows if row.goal == goal])])
        for goal in GOALS if any(row.goal == goal for row in rows)
    ]  # fmt: skip
    words = f"The same attack may be shown several times; the gate locks after {lockout} tries."
    return Section("retries", "Retries", join([paragraph(words), *tables]))


def sanity_section(document: Document) -> Section:
    """Checks that tell a broken attack from a strong defence."""
    columns = [Column("Check"), Column("Result"), Column("Found", number=True), Column("Limit", number=True)]
    checks = document.sanity.checks
    words = (
        "Attacks that are broken make any defence look strong. These checks look for that; where they fail, the "
        "figures above must not be relied on."
    )
    outcome = "The attacks are judged faulty." if document.sanity.faulty else "The attacks are not judged faulty."
    shown = (
        table("Checks of the attacks", columns, [Group([_check(check) for check in checks])])
        if checks
        else paragraph("No check was run.", class_="none")
    )
    return Section("sanity", "Sanity", join([paragraph(words), paragraph(outcome), shown]))


def _signal(signal: Signal) -> Group:
    limit = "" if signal.limit is None else f"limit {signal.limit:.4g}; "
    alarms = element("span", f"{limit}false alarms {rate_line(signal.false_alarms)}", class_="detail")
    rows: list[list[Part]] = [
        [
            row.attack,
            levels(row.eps),
            *(
                rate_drawn(rate, 0)
                for rate in (row.flagged, row.flagged_or_neutralised, row.of_those_that_fool_the_bare)
            ),
        ]
        for row in signal.rows
    ]
    return Group(rows or [[NOT_RUN] * 5], join([signal.name, alarms]))


def _retry(row: Row, name: str) -> list[Part]:
    tries = NOT_RUN if row.tries is None else str(row.tries)
    return [row.attack, name, levels(row.eps), tries, rate_text(row.twin), rate_text(row.deployed)]


def _found(value: float | None) -> str:
    """A check without one number says what it found in its words."""
    return "\u2013" if value is None else f"{value:.4g}"


def _check(check: Check) -> list[Part]:
    kind, sign, word = ("good", "\u2713", "passed") if check.passed else ("bad", "\u2715", "failed")
    result = element("span", element("span", sign, aria_hidden="true"), f" {word}", class_=kind)
    about = element("span", check.words, class_="detail wrapped")
    return [join([check.name, about]), result, _found(check.found), _found(check.limit)]
