"""Where points lie on their axes, and that drawings are whole."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunogate.pages.svg import (
    HEIGHT,
    WIDTH,
    Axis,
    Point,
    Series,
    interval,
    linear_axis,
    log_axis,
    plot,
    probit_axis,
    tick_text,
)

RATES = st.floats(1e-5, 0.999)


def test_places_on_each_scale() -> None:
    assert Axis("", 0, 10, ()).place(2.5) == 0.25
    assert Axis("", 1, 100, (), "log").place(10) == pytest.approx(0.5)
    probit = Axis("", 0.01, 0.99, (), "probit")
    assert probit.place(0.5) == pytest.approx(0.5)
    # One and two standard deviations: 0.8413 and 0.97725 of the normal distribution.
    wide = Axis("", 0.0227501, 0.9772499, (), "probit")
    assert wide.place(0.8413447) == pytest.approx(0.75, abs=1e-5)


@pytest.mark.parametrize(("scale", "value"), [("log", 0.0), ("probit", 0.0), ("probit", 1.0)])
def test_a_value_that_a_scale_has_no_place_for_is_refused(scale: str, value: float) -> None:
    with pytest.raises(ValueError):
        Axis("", 0.1, 0.9, (), scale).place(value)  # type: ignore[arg-type]


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_linear_axes_hold_their_values_and_their_ticks_are_few(low: float, span: float) -> None:
    axis = linear_axis("x", low, low + span)
    slack = 1e-6 * (abs(low) + span) + 1e-300
    assert axis.low <= low + slack
    assert axis.high >= low + span - slack
    assert 2 <= len(axis.ticks) <= 12


@given(RATES, RATES)
def test_log_and_probit_axes_hold_their_values(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    for axis in (log_axis("x", low, high), probit_axis("x", low, high)):
        assert axis.low <= low <= high <= axis.high
        assert all(-1e-9 <= axis.place(tick) <= 1 + 1e-9 for tick in axis.ticks)


def test_ticks_are_written_short() -> None:
    assert [tick_text(tick) for tick in (0, 0.5, 1e-4, 20, 0.01, 200000)] == ["0", "0.5", "1e-4", "20", "0.01", "2e5"]


def test_a_drawing_is_well_formed_says_what_it_shows_and_draws_every_point() -> None:
    points = [Point(2, 0.5, (0.4, 0.6)), Point(4, 0.25, (0.2, 0.3), hollow=True)]
    drawn = plot(
        "rate <falls>", linear_axis("eps", 0, 8), linear_axis("rate", 0, 1), [Series("bundle & co", points, 0)]
    )
    root = ElementTree.fromstring(f"<div>{drawn}</div>")
    svg = root.find("svg")
    assert svg is not None
    assert svg.attrib["aria-label"] == "rate <falls>"
    classes = [part.attrib.get("class", "") for part in svg.iter()]
    assert classes.count("mark l0") == 1
    assert classes.count("mark l0 hollow") == 1
    assert classes.count("whisker l0") == 2
    assert "bundle & co" in "".join(root.itertext())


def test_a_higher_value_lies_higher_and_a_larger_one_further_right() -> None:
    x, y = linear_axis("x", 0, 1), linear_axis("y", 0, 1)
    drawn = plot("", x, y, [Series("s", [Point(0, 0), Point(1, 1)], 0)])
    path = re.search(r'class="line l0" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', drawn)
    assert path
    left, low, right, high = map(float, path.groups())
    assert 0 <= left < right <= WIDTH
    assert 0 <= high < low <= HEIGHT


def test_an_interval_stands_where_its_rate_is() -> None:
    assert 'd="M5.0 3v8M5.0 7H75.0M75.0 3v8"' in interval(0.25, 0, 0.5)


def test_a_curve_of_thousands_of_points_is_thinned_and_keeps_its_ends() -> None:
    points = [Point(index / 9999, index / 9999) for index in range(10000)]
    drawn = plot("", linear_axis("", 0, 1), linear_axis("", 0, 1), [Series("", points, 0, marked=False)])
    assert len(drawn) < 30000
    assert re.search(r"M64\.0 228\.0.*L344\.0 10\.0", drawn)
