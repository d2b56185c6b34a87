"""The rows that count most: attackers who know the whole defence, and the bundle beside none and a fixed filter."""

from __future__ import annotations

from immunogate.calib.robustness.document import Aim, Attacker, Document, Key, Row
from immunogate.calib.robustness.report.words import (
    GOAL_TITLES,
    GOAL_WORDS,
    GOALS,
    LOOKS,
    NOT_RUN,
    levels,
    names,
    rate_drawn,
)
from immunogate.pages.markup import Html, Part, escape, join
from immunogate.pages.page import Section, paragraph
from immunogate.pages.svg import scale
from immunogate.pages.table import Column, Group, table

SHOWN: tuple[Key, ...] = ("bundle", "fixed", "none")
_WORDS = (
    "The attacker knows the whole defence and goes through all of it. The twin is the torch model whose gradients the "
    "attacker followed; deployed are the very pictures that were found, judged by the exported bundle on its runner. "
    "Bars are 95 % Wilson intervals, on a scale from 0 to 1."
)
Case = tuple[float, str, Attacker]


def adaptive_section(document: Document) -> Section:
    """One table for each goal; a goal's rates are never mixed with the other's."""
    rows = [row for row in document.rows if row.tier == "adaptive"]
    tables = [_table(document, goal, rows) for goal in GOALS if any(row.goal == goal for row in rows)]
    body = tables or [paragraph("No adaptive attack was run.", class_="none")]
    return Section("adaptive", "Attackers who know the defence", join([paragraph(_WORDS), *body]))


def _table(document: Document, goal: Aim, rows: list[Row]) -> Html:
    cases: dict[Case, dict[Key, Row]] = {}
    for row in rows:
        if row.goal == goal:
            case = (float("inf") if row.eps is None else row.eps, row.attack, row.attacker)
            cases.setdefault(case, {})[row.configuration] = row
    called = names(document)
    groups = [_group(case, cases[case], called) for case in sorted(cases, key=lambda case: case[0])]
    caption = join([f"{GOAL_TITLES[goal]}: ", GOAL_WORDS[goal]])
    return table(caption, [Column("Defence"), Column("Twin", head=scale()), Column("Deployed", head=scale())], groups)


def _group(case: Case, found: dict[Key, Row], called: dict[Key, str]) -> Group:
    eps, attack, attacker = case
    rows = [_row(key, called[key], found.get(key)) for key in SHOWN]
    title = f"{attack}, {levels(None if eps == float('inf') else eps)} grey levels, {attacker}"
    return Group(rows, escape(title), frozenset({SHOWN.index("bundle")}))


def _row(key: Key, name: str, row: Row | None) -> list[Part]:
    if row is None:
        return [name, NOT_RUN, NOT_RUN]
    return [name, rate_drawn(row.twin, LOOKS[key], hollow=True), rate_drawn(row.deployed, LOOKS[key])]
