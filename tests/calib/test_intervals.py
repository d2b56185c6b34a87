from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from immunogate.calib.intervals import Z95, wilson

trials_st = st.integers(1, 10_000_000)


@pytest.mark.parametrize(
    ("errors", "trials", "low", "high"),
    [
        (0, 100, 0.0, 0.036993),  # z^2 / (n + z^2)
        (5, 50, 0.043476, 0.213602),
        (50, 100, 0.403832, 0.596168),
        (9, 10, 0.595850, 0.982124),
        (1, 1, 0.206549, 1.0),
        (100, 100, 0.963006, 1.0),
    ],
)
def test_known_intervals(errors: int, trials: int, low: float, high: float) -> None:
    assert wilson(errors, trials) == pytest.approx((low, high), abs=2e-6)


@settings(deadline=None)
@given(trials_st, st.data())
def test_ends_solve_the_equation_they_come_from(trials: int, data: st.DataObject) -> None:
    """Wilson's ends are the rates p at which the observed rate is z standard errors away: |r - p| = z sqrt(p q / n)."""
    errors = data.draw(st.integers(0, trials))
    low, high = wilson(errors, trials)
    rate = errors / trials
    assert 0 <= low <= rate + 1e-12
    assert rate - 1e-12 <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert (rate - end) ** 2 == pytest.approx(Z95**2 * end * (1 - end) / trials, rel=1e-6, abs=1e-15)


@settings(deadline=None)
@given(trials_st, st.data())
def test_more_errors_raise_both_ends(trials: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, trials - 1))
    before, after = wilson(errors, trials), wilson(errors + 1, trials)
    assert before[0] < after[0]
    assert before[1] < after[1] or after[1] == 1.0 == before[1]


@settings(deadline=None)
@given(st.integers(1, 1000), st.integers(2, 50), st.data())
def test_more_trials_of_the_same_rate_narrow_it(trials: int, times: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, trials))
    few, many = wilson(errors, trials), wilson(errors * times, trials * times)
    assert many[1] - many[0] < few[1] - few[0]


@settings(deadline=None)
@given(trials_st, st.data())
def test_errors_and_successes_mirror_each_other(trials: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, trials))
    low, high = wilson(errors, trials)
    mirrored = wilson(trials - errors, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@settings(deadline=None)
@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_more_confidence_widens_it(one: float, other: float) -> None:
    narrow, wide = sorted((one, other))
    assume(wide - narrow > 1e-3)
    inner, outer = wilson(3, 40, narrow), wilson(3, 40, wide)
    assert outer[0] < inner[0]
    assert inner[1] < outer[1]


def test_z_is_the_quantile_it_says() -> None:
    """Z95 standard deviations on both sides hold 95 % of a normal distribution."""
    assert math.erf(Z95 / math.sqrt(2)) == pytest.approx(0.95, abs=1e-15)


@pytest.mark.parametrize(("errors", "trials"), [(0, 0), (-1, 5), (6, 5), (0, -1)])
def test_impossible_counts_are_refused(errors: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"got {errors} of {trials}"):
        wilson(errors, trials)
