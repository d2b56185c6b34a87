from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunogate.profiling.quantiles import jitter, least_samples, quantiles, spread_percent

TIMES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300)


def test_a_percentile_needs_samples_enough() -> None:
    assert [least_samples(percent) for percent in (50, 90, 99, 99.9)] == [1, 10, 100, 1000]
    for count, told in ((1, 1), (9, 1), (10, 2), (99, 2), (100, 3), (999, 3), (1000, 4)):
        row = quantiles(np.arange(count, dtype=np.float64))
        assert sum(row[name] is not None for name in ("p50", "p90", "p99", "p99_9")) == told, count
        assert row["n"] == count


@given(TIMES)
def test_percentiles_rise_and_never_leave_the_samples(values: list[float]) -> None:
    row = quantiles(np.array(values))
    told = [row[name] for name in ("p50", "p90", "p99", "p99_9", "max") if row[name] is not None]
    assert told == sorted(told)
    assert min(values) - 1e-3 <= told[0]
    assert told[-1] == pytest.approx(max(values), abs=1e-3)
    assert row["mean"] == pytest.approx(np.mean(values), rel=1e-6, abs=1e-3)


def test_percentiles_are_numpys() -> None:
    values = np.random.default_rng(3).gamma(2, 5, 5000)
    row = quantiles(values)
    for name, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("p99_9", 99.9)):
        assert row[name] == pytest.approx(np.percentile(values, percent), abs=1e-4)


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        quantiles(np.zeros(0))


def test_jitter_and_spread() -> None:
    assert jitter(np.array([1.0, 3.0, 2.0])) == 1.5
    assert jitter(np.array([1.0])) is None
    assert spread_percent([9.0, 11.0]) == 20.0
    assert spread_percent([5.0]) is None
    assert spread_percent([0.0, 0.0]) is None
