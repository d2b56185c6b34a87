"""Drawings of a profile that no axis of points can show: stacked frames, one frame's timeline, a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from immunogate.pages.markup import Html, Part, element
from immunogate.pages.style import LOOKS
from immunogate.pages.svg import linear_axis, tick_text

WIDTH, LEFT, RIGHT = 720, 170, 10
ROW, GAP = 20, 6
AXIS = 34
LETTER = 6.2
"""Pixels of a letter, to know whether a word fits into a bar."""


@dataclass(frozen=True)
class Bar:
    """A stretch of a row, in the units of the axis.

    Attributes:
        start: where it begins.
        length: how long it is.
        name: what it is.
        look: 0 to 9: its colour.
    """

    start: float
    length: float
    name: str
    look: int


def bars(description: str, label: str, rows: Mapping[str, Sequence[Bar]]) -> Html:
    """Rows of bars on one axis from 0.

    Args:
        description: what it shows, for who can not see it.
        label: of the axis, with its unit.
        rows: bars by the name of their row; bars that do not fit their name show it to who points at them.
    """
    end = max((bar.start + bar.length for row in rows.values() for bar in row), default=0.0) or 1.0
    axis = linear_axis(label, 0.0, end)
    scale = (WIDTH - LEFT - RIGHT) / axis.high
    bottom = len(rows) * (ROW + GAP) + GAP
    parts = []
    for tick in axis.ticks:
        at = LEFT + tick * scale
        parts.append(element("line", class_="grid", x1=at, x2=at, y1=0, y2=bottom))
        parts.append(element("text", tick_text(tick), x=at, y=bottom + 14, text_anchor="middle"))
    parts.append(element("text", label, x=(LEFT + WIDTH) / 2, y=bottom + 29, text_anchor="middle"))
    for number, (name, row) in enumerate(rows.items()):
        top = GAP + number * (ROW + GAP)
        parts.append(element("text", name, x=LEFT - 8, y=top + 14, text_anchor="end"))
        parts += [_bar(bar, LEFT + bar.start * scale, top, bar.length * scale) for bar in row]
    return element("svg", *parts, viewBox=f"0 0 {WIDTH} {bottom + AXIS}", role="img", aria_label=description)


def _bar(bar: Bar, left: float, top: float, width: float) -> Html:
    shown = element(
        "rect",
        element("title", f"{bar.name}: {bar.length:.3f}"),
        x=left,
        y=top,
        width=max(width, 0.6),
        height=ROW,
        style=f"fill:var(--s{bar.look % LOOKS});stroke:var(--ground);stroke-width:.6",
    )
    if width < LETTER * len(bar.name) + 6:
        return shown
    word = element("text", bar.name, x=left + 4, y=top + 14, style="fill:var(--ground)")
    return element("g", shown, word)


def heat_map(
    description: str, across: Sequence[str], down: Sequence[str], values: Mapping[tuple[int, int], float]
) -> Html:
    """Numbers on a grid, the larger the darker.

    Args:
        description: what it shows.
        across: names of the columns, the axis's own first: ``faces 1``.
        down: names of the rows.
        values: by column and row; what was not measured is left empty.
    """
    cell = min(90.0, (WIDTH - LEFT - RIGHT) / max(1, len(across)))
    most = max(values.values(), default=1.0) or 1.0
    parts = [
        element("text", name, x=LEFT + (column + 0.5) * cell, y=14, text_anchor="middle")
        for column, name in enumerate(across)
    ]
    parts += [
        element("text", name, x=LEFT - 8, y=22 + row * 30 + 19, text_anchor="end") for row, name in enumerate(down)
    ]
    for (column, row), value in values.items():
        left, top, share = LEFT + column * cell, 22 + row * 30, value / most
        parts.append(
            element("rect", x=left + 1, y=top + 1, width=cell - 2, height=28,
                    style=f"fill:var(--s0);fill-opacity:{0.08 + 0.6 * share:.2f}")
        )  # fmt: skip
        parts.append(
            element(
                "text", f"{value:.1f}", x=left + cell / 2, y=top + 19, text_anchor="middle", style="fill:var(--ink)"
            )
        )
    return element("svg", *parts, viewBox=f"0 0 {WIDTH} {30 + 30 * len(down)}", role="img", aria_label=description)


def wide_figure(drawing: Html, caption: Part, title: str) -> Html:
    """A drawing over the whole width of the page, unlike one on two axes, with heading and caption."""
    return element(
        "figure",
        element("h3", title),
        drawing,
        element("figcaption", caption),
        style="max-width:none;margin-top:1.6rem",
    )
