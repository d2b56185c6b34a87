"""Drawings of points, lines and intervals on linear, logarithmic or probit axes, as SVG inside a page.

Drawings are made for the width of a phone and grow a little on a desk, so that their letters stay readable. Colours
come from the page's sheet (`style`): a drawing outside a page has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from immunogate.pages.markup import Html, element
from immunogate.pages.style import LOOKS

Scale = Literal["linear", "log", "probit"]
WIDTH, HEIGHT = 360, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 4, 10, 42
CLOSE = (26, 12)
"""Labels of ticks that are closer than this, in pixels across and up, are left out."""

INSET = 12
"""Pixels between the ends of the horizontal axis and its first and last value: marks stand inside the frame."""

PROBITS = (1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999)


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: what it shows, with its unit.
        low: value at the left or lower end.
        high: value at the right or upper end, above ``low``.
        ticks: values that get a label, within the ends.
        scale: ``log`` needs positive values; ``probit`` needs values inside (0, 1) and is the normal deviate, on which
            a detection error trade-off curve is drawn (ISO/IEC 19795-1).
    """

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    scale: Scale = "linear"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"expected low < high, got {self.low:g} and {self.high:g}")

    def place(self, value: float) -> float:
        """Where a value lies, 0 at ``low`` and 1 at ``high``; not clipped.

        Raises:
            ValueError: the scale has no place for it.
        """
        low, high, here = (_stretched(self.scale, each) for each in (self.low, self.high, value))
        return (here - low) / (high - low)


@dataclass(frozen=True)
class Point:
    """A point, with intervals where they are known, in the units of its axes."""

    x: float
    y: float
    y_interval: tuple[float, float] | None = None
    x_interval: tuple[float, float] | None = None
    hollow: bool = False


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Attributes:
        name: in the legend.
        points: in the order in which they are joined.
        look: 0 to 9: colour, mark and dash.
        joined: by a line.
        marked: each point by a mark.
    """

    name: str
    points: Sequence[Point]
    look: int
    joined: bool = True
    marked: bool = True


def linear_axis(label: str, low: float, high: float, count: int = 5) -> Axis:
    """An axis from at most ``low`` to at least ``high`` with about ``count`` round steps of 1, 2 or 5 times 10^n."""
    # Values that are all but one still get an axis on which their digits differ.
    span = max(high - low, 1e-6 * max(abs(low), abs(high)))
    span = span if span > 1e-300 else 1.0
    raw = span / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = unit * next(factor for factor in (1, 2, 5, 10) if factor * unit >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil((low + span) / step - 1e-9)
    ticks = tuple(float(f"{index * step:.12g}") for index in range(first, last + 1))
    return Axis(label, ticks[0], ticks[-1], ticks)


def log_axis(label: str, low: float, high: float) -> Axis:
    """A logarithmic axis around ``low`` to ``high`` (positive): steps of 1, 2, 5, of decades where it is long."""
    low, high = low / 1.15, high * 1.15
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = tuple(f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high)
        if len(ticks) <= 7:
            break
    return Axis(label, low, high, ticks, "log")


def probit_axis(label: str, low: float, high: float) -> Axis:
    """A probit axis around ``low`` to ``high``, rates inside (0, 1)."""
    below = max((rate for rate in PROBITS if rate <= low), default=low)
    above = min((rate for rate in PROBITS if rate >= high and rate > below), default=(1 + high) / 2)
    return Axis(label, below, above, tuple(rate for rate in PROBITS if below <= rate <= above), "probit")


def tick_text(value: float) -> str:
    """A tick's label: 0.01, 20, 1e-4."""
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e5):
        mantissa, _, exponent = f"{value:.0e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.6g}"


def plot(description: str, x: Axis, y: Axis, series: Sequence[Series], *, spread: float = 0, guide: float | None = None,
         keyed: bool = True) -> Html:  # fmt: skip
    """A drawing of series on two axes, and their legend below it.

    Args:
        description: what it shows, for who can not see it.
        x: the horizontal axis.
        y: the vertical axis.
        series: the first one lies on top of the others.
        spread: pixels by which series are moved apart sideways, so that intervals at one x do not hide each other.
        guide: an x at which a dashed line stands.
        keyed: whether the legend is drawn.
    """
    parts = [*_grid(x, y)]
    if guide is not None:
        parts.append(element("line", class_="guide", x1=_across(x, guide), x2=_across(x, guide), y1=TOP, y2=_bottom()))
    for index, each in reversed(list(enumerate(series))):
        parts.append(_series(x, y, each, spread * (index - (len(series) - 1) / 2)))
    drawing = element("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=description)
    return Html(drawing + legend(series)) if keyed else drawing


def legend(series: Sequence[Series]) -> Html:
    """The names of series, each behind a sample of its look."""
    return element(
        "ul", *(element("li", _sample(each), element("span", each.name)) for each in series), class_="legend"
    )


def interval(rate: float, low: float, high: float, look: int = 0, *, hollow: bool = False) -> Html:
    """A rate and its interval on a scale from 0 to 1, to stand beside the numbers in a table.

    Args:
        rate: in [0, 1].
        low: lower end, at most ``rate``.
        high: upper end, at least ``rate``.
        look: colour and mark.
        hollow: whether the mark is not filled.
    """
    at = [5 + 140 * value for value in (low, rate, high)]
    ticks = [element("line", class_="grid", x1=5 + 35 * i, x2=5 + 35 * i, y1=0, y2=14) for i in range(5)]
    whisker = element(
        "path", class_=f"whisker l{look}", d=f"M{at[0]:.1f} 3v8M{at[0]:.1f} 7H{at[2]:.1f}M{at[2]:.1f} 3v8"
    )
    return element("svg", *ticks, whisker, _mark(at[1], 7, look, hollow), class_="interval",
                   viewBox="0 0 150 14", preserveAspectRatio="xMinYMid", aria_hidden="true")  # fmt: skip


def scale() -> Html:
    """The scale above a column of `interval`."""
    texts = (element("text", tick_text(value), x=5 + 140 * value, y=11, text_anchor="middle") for value in (0, 0.5, 1))
    return element("svg", *texts, class_="interval", viewBox="0 0 150 14", preserveAspectRatio="xMinYMid",
                   aria_hidden="true")  # fmt: skip


def _stretched(scale: Scale, value: float) -> float:
    if scale == "log":
        return math.log10(value)
    return NormalDist().inv_cdf(value) if scale == "probit" else value


def _across(axis: Axis, value: float) -> float:
    return LEFT + INSET + axis.place(value) * (WIDTH - LEFT - RIGHT - 2 * INSET)


def _up(axis: Axis, value: float) -> float:
    return _bottom() - axis.place(value) * (HEIGHT - TOP - BOTTOM)


def _bottom() -> float:
    return HEIGHT - BOTTOM


def _grid(x: Axis, y: Axis) -> list[Html]:
    parts = []
    before = math.inf
    for tick in y.ticks:
        at = _up(y, tick)
        parts.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at))
        if before - at >= CLOSE[1]:
            parts.append(element("text", tick_text(tick), x=LEFT - 6, y=at + 3.5, text_anchor="end"))
            before = at
    before = -math.inf
    for tick in x.ticks:
        at = _across(x, tick)
        parts.append(element("line", class_="axis", x1=at, x2=at, y1=_bottom(), y2=_bottom() + 4))
        if at - before >= CLOSE[0]:
            parts.append(element("text", tick_text(tick), x=at, y=_bottom() + 16, text_anchor="middle"))
            before = at
    middle = (TOP + _bottom()) / 2
    parts.append(element("line", class_="axis", x1=LEFT, x2=WIDTH - RIGHT, y1=_bottom(), y2=_bottom()))
    parts.append(element("text", x.label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 8, text_anchor="middle"))
    parts.append(element("text", y.label, transform=f"translate(11 {middle:g}) rotate(-90)", text_anchor="middle"))
    return parts


def _series(x: Axis, y: Axis, series: Series, shift: float) -> Html:
    look = series.look % LOOKS
    places = [(_across(x, point.x) + shift, _up(y, point.y)) for point in series.points]
    parts = []
    if series.joined and len(places) > 1:
        path = "".join(f"{'L' if index else 'M'}{at[0]:.1f} {at[1]:.1f}" for index, at in enumerate(_thinned(places)))
        parts.append(element("path", class_=f"line l{look}", d=path))
    for point, (across, up) in zip(series.points, places, strict=True):
        if point.y_interval:
            low, high = (_up(y, end) for end in point.y_interval)
            parts.append(element("path", class_=f"whisker l{look}", d=f"M{across:.1f} {low:.1f}V{high:.1f}"))
        if point.x_interval:
            left, right = (_across(x, end) + shift for end in point.x_interval)
            parts.append(element("path", class_=f"whisker l{look}", d=f"M{left:.1f} {up:.1f}H{right:.1f}"))
        if series.marked:
            parts.append(_mark(across, up, look, point.hollow))
    return element("g", *parts)


def _thinned(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Places that differ by at least half a pixel from the one before; a curve of thousands has few of them."""
    kept = [places[0]]
    for place in places[1:]:
        if math.dist(place, kept[-1]) >= 0.5:
            kept.append(place)
    return kept if kept[-1] == places[-1] else [*kept, places[-1]]


def _sample(series: Series) -> Html:
    look = series.look % LOOKS
    line = element("path", class_=f"line l{look}", d="M1 6H33") if series.joined else None
    hollow = bool(series.points) and all(point.hollow for point in series.points)
    mark = _mark(17, 6, look, hollow) if series.marked else None
    return element("svg", line, mark, viewBox="0 0 34 12" if series.joined else "10 0 14 12", aria_hidden="true")


_SHAPES = (
    "M{x} {y}m-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0",  # disc
    "M{x} {y}m-3.2 -3.2h6.4v6.4h-6.4z",  # square
    "M{x} {y}m0 -4.2l4 7h-8z",  # triangle
    "M{x} {y}m0 -4.4l4.4 4.4l-4.4 4.4l-4.4 -4.4z",  # diamond
    "M{x} {y}m0 4.2l4 -7h-8z",  # triangle on its point
    "M{x} {y}m0 -4.2l4 2.9l-1.5 4.7h-5l-1.5 -4.7z",  # pentagon
    "M{x} {y}m-1.7 -4.2h3.4v8.4h-3.4z",  # upright bar
    "M{x} {y}m-3.6 -3.8h7.2l-7.2 7.6h7.2z",  # hourglass
    "M{x} {y}m-4.2 -1.7h8.4v3.4h-8.4z",  # lying bar
    "M{x} {y}m-1.4 -4.2h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8z",  # cross
)


def _mark(x: float, y: float, look: int, hollow: bool) -> Html:
    shape = _SHAPES[look % len(_SHAPES)].format(x=f"{x:.1f}", y=f"{y:.1f}")
    return element("path", class_=f"mark l{look}{' hollow' if hollow else ''}", d=shape)
