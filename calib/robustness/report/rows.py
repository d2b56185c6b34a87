"""Every row of the document, by tier and goal."""

from __future__ import annotations

from immunogate.calib.robustness.document import Aim, Document, Key, Row, Tier
from immunogate.calib.robustness.report.words import (
    GOAL_TITLES,
    GOAL_WORDS,
    GOALS,
    TIERS,
    counted,
    levels,
    names,
    rate_text,
    share,
    span,
)
from immunogate.pages.markup import Html, Part, element, join
from immunogate.pages.page import Section, paragraph
from immunogate.pages.table import Column, Group, table

_COLUMNS = [
    Column("Attack"), Column("Defence"), Column("Size"), Column("Twin", number=True), Column("Deployed", number=True),
    Column("Undecided", number=True), Column("More"),
]  # fmt: skip


def rows_section(document: Document) -> Section:
    """Tables of all rows: one for each tier and goal."""
    parts: list[Html] = []
    for tier in TIERS:
        rows = [row for row in document.rows if row.tier == tier]
        if rows:
            parts.append(element("h3", f"{tier.capitalize()}: {counted(rows)}"))
        parts += [_table(document, tier, goal, rows) for goal in GOALS if any(row.goal == goal for row in rows)]
    words = (
        f"{counted(list(document.rows))} in all. Size is the bound in grey levels of 255; intervals are Wilson, 95 %."
    )
    return Section("rows", "All rows", join([paragraph(words), *parts]))


def _table(document: Document, tier: Tier, goal: Aim, rows: list[Row]) -> Html:
    called = names(document)
    chosen = [_row(row, called) for row in rows if row.goal == goal]
    return table(f"{tier.capitalize()}, {GOAL_TITLES[goal].lower()}: {GOAL_WORDS[goal]}", _COLUMNS, [Group(chosen)])


def _row(row: Row, called: dict[Key, str]) -> list[Part]:
    name = join([row.attack, element("span", row.attacker, class_="detail")])
    judged = row.twin is not None or row.deployed is not None
    return [
        name, called[row.configuration], levels(row.eps), rate_text(row.twin), rate_text(row.deployed),
        str(row.undecided) if judged else "\u2013", _more(row),
    ]  # fmt: skip


def _more(row: Row) -> Html:
    lines: list[str] = []
    if row.tries is not None:
        lines.append(f"{row.tries} tries")
    if row.queries is not None:
        lines.append(f"queries: median {row.queries.median:g}, most {row.queries.most}")
    for name, rate in (row.variants or {}).items():
        lines.append(f"{name}: {share(rate.rate)} ({span(rate)}; {rate.accepted} of {rate.of})")
    if row.note is not None:
        lines.append(row.note)
    return join(element("div", line) for line in lines)
