from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from immunogate.calib.alarms import HALVES, measure_alarms
from immunogate.calib.intervals import wilson
from immunogate.errors import InputError
from immunogate.faces_file import identity_split
from immunogate.structs import SIGNALS

NAMES = np.repeat([f"person {i}" for i in range(600)], 5)


def drawn(seed: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    return {name: draw.gamma(4, 0.02, len(NAMES)).astype(np.float32) for name in SIGNALS}


def test_limits_are_of_one_half_and_rates_of_the_other() -> None:
    signals = drawn()
    found = measure_alarms(signals, NAMES, 0.03)
    setting, judging = identity_split(NAMES, *HALVES)
    together = np.zeros(judging.sum(), bool)
    for signal in found.signals:
        values = signals[signal.name]
        above = values[setting] > signal.limit
        assert 0.005 < above.mean() <= 0.01  # a third of the rate each
        over = values[judging] > signal.limit
        assert (signal.flagged, signal.of, signal.asked) == (over.sum(), judging.sum(), 0.01)
        assert (signal.low, signal.high) == wilson(int(over.sum()), len(over))
        together |= over
    assert (found.flagged, found.of) == (together.sum(), judging.sum())
    assert found.people == len(set(NAMES[judging].tolist()))
    assert found.low <= 0.03 <= found.high + 0.01
    assert found.note == ""


def test_what_the_judging_half_says_moves_no_limit() -> None:
    signals = drawn()
    _, judging = identity_split(NAMES, *HALVES)
    louder = {name: np.where(judging, values + 1, values) for name, values in signals.items()}
    one, other = (measure_alarms(some, NAMES, 0.03) for some in (signals, louder))
    assert [signal.limit for signal in one.signals] == [signal.limit for signal in other.signals]
    assert other.flagged == other.of


def test_a_signal_that_is_not_there_leaves_its_share_to_the_others() -> None:
    signals = drawn()
    found = measure_alarms({**signals, SIGNALS[1]: None}, NAMES, 0.03)
    assert [signal.name for signal in found.signals] == [SIGNALS[0], SIGNALS[2]]
    assert {signal.asked for signal in found.signals} == {0.015}
    assert found.limit(SIGNALS[1]) is None


def test_too_few_faces_for_the_rate_are_said() -> None:
    few = {name: values[:300] for name, values in drawn().items()}
    found = measure_alarms(few, NAMES[:300], 1e-3, "how it came about")
    assert found.note.startswith("how it came about; ")
    assert "does not support a rate of 0.00033" in found.note
    setting, _ = identity_split(NAMES[:300], *HALVES)
    assert [signal.limit for signal in found.signals] == [float(few[name][setting].max()) for name in SIGNALS]


def test_one_person_alone_is_refused() -> None:
    with pytest.raises(InputError, match="two halves of people"):
        measure_alarms({name: values[:5] for name, values in drawn().items()}, NAMES[:5], 0.1)
