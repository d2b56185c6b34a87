"""Every row of the document, by tier, goal and attack."""

from __future__ import annotations

from immunogate.calib.robustness.document import Aim, Document, Key, Row, Tier
from immunogate.calib.robustness.report.words import (
    GOAL_TITLES,
    GOAL_WORDS,
    GOALS,
    TIERS,
    case_of,
    case_title,
    names,
    plural,
    rate_text,
    share,
    span,
)
from immunogate.pages.markup import Html, Part, element, join
from immunogate.pages.page import Section, paragraph
from immunogate.pages.table import Column, Group, table

_COLUMNS = [
    Column("Defence"), Column("Twin", number=True), Column("Deployed", number=True), Column("Undecided", number=True),
    Column("More"),
]  # fmt: skip


def rows_section(document: Document) -> Section:
    """Tables of all rows: one for each tier and goal."""
    parts: list[Html] = []
    for tier in TIERS:
        rows = [row for row in document.rows if row.tier == tier]
        if rows:
            parts.append(element("h3", f"{tier.capitalize()}: {plural(len(rows), 'row')}"))
        parts += [_table(document, tier, goal, rows) for goal in GOALS if any(row.goal == goal for row in rows)]
    words = (
        f"{plural(len(document.rows), 'row')} in all. Sizes are bounds in grey levels of 255, intervals are "
        "Wilson, 95 %. Undecided pairs are those that the gate could not judge."
    )
    return Section("rows", "All rows", join([paragraph(words), *parts]))


def _table(document: Document, tier: Tier, goal: Aim, rows: list[Row]) -> Html:
    called = names(document)
    chosen = [row for row in rows if row.goal == goal]
    groups = []
    for case in dict.fromkeys(map(case_of, chosen)):
        found = [row for row in chosen if case_of(row) == case]
        strong = frozenset(index for index, row in enumerate(found) if row.configuration == "bundle")
        groups.append(Group([_row(row, called) for row in found], case_title(found[0]), strong))
    return table(f"{tier.capitalize()}, {GOAL_TITLES[goal].lower()}: {GOAL_WORDS[goal]}", _COLUMNS, groups)


def _row(row: Row, called: dict[Key, str]) -> list[Part]:
    judged = row.twin is not None or row.deployed is not None
    undecided = str(row.undecided) if judged else "\u2013"
    return [called[row.configuration], rate_text(row.twin), rate_text(row.deployed), undecided, _more(row)]


def _more(row: Row) -> Html:
    lines: list[str] = []
    if row.tries is not None:
        lines.append(f"tries: {row.tries}")
    if row.queries is not None:
        lines.append(f"queries: median {row.queries.median:g}, most {row.queries.most}")
    lines += [f"{name}: {share(rate.rate)} ({span(rate)})" for name, rate in (row.variants or {}).items()]
    if row.note is not None:
        lines.append(row.note)
    return join(element("span", line, class_="detail wrapped") for line in lines)
