"""The rows that count most: attackers who know the whole defence, and the bundle beside none and a fixed filter."""

from __future__ import annotations

from immunogate.calib.robustness.document import Aim, Document, Key, Row
from immunogate.calib.robustness.report.words import (
    GOAL_TITLES,
    GOAL_WORDS,
    GOALS,
    LOOKS,
    NOT_RUN,
    case_of,
    case_title,
    is_result,
    names,
    rate_drawn,
)
from immunogate.pages.markup import Html, Part, join
from immunogate.pages.page import Section, paragraph
from immunogate.pages.svg import scale
from immunogate.pages.table import Column, Group, table

SHOWN: tuple[Key, ...] = ("bundle", "fixed", "none")
_WORDS = (
    "The attacker knows the whole defence and goes through all of it. The twin is the torch model whose gradients the "
    "attacker followed; deployed are the very pictures that were found, judged by the exported bundle on its runner. "
    "Bars are 95 % Wilson intervals, on a scale from 0 to 1."
)


def adaptive_section(document: Document) -> Section:
    """One table for each goal; a goal's rates are never mixed with the other's."""
    rows = [row for row in document.rows if row.tier == "adaptive" and is_result(row)]
    tables = [_table(document, goal, [row for row in rows if row.goal == goal]) for goal in GOALS]
    body = [each for each in tables if each] or [paragraph("No adaptive attack was run.", class_="none")]
    return Section("adaptive", "Attackers who know the defence", join([paragraph(_WORDS), *body]))


def _table(document: Document, goal: Aim, rows: list[Row]) -> Html | None:
    called = names(document)
    groups = []
    for case in sorted(dict.fromkeys(map(case_of, rows)), key=lambda case: case[0]):
        found = [row for row in rows if case_of(row) == case]
        groups.append(_group(found, called))
    columns = [Column("Defence"), Column("Twin", head=scale()), Column("Deployed", head=scale())]
    return table(f"{GOAL_TITLES[goal]}: {GOAL_WORDS[goal]}", columns, groups) if groups else None


def _group(found: list[Row], called: dict[Key, str]) -> Group:
    """The three configurations, each with as many rows as there are; one without says that it was not run."""
    rows: list[list[Part]] = []
    for key in SHOWN:
        own = [row for row in found if row.configuration == key]
        rows += [_row(row, called[key]) for row in own] or [[called[key], NOT_RUN, NOT_RUN]]
    strong = frozenset(index for index, row in enumerate(rows) if row[0] == called["bundle"])
    return Group(rows, case_title(found[0]), strong)


def _row(row: Row, name: str) -> list[Part]:
    look = LOOKS[row.configuration]
    return [name, rate_drawn(row.twin, look, hollow=True), rate_drawn(row.deployed, look)]
