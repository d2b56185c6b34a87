"""The gate's alarms over pictures: each signal at its limit, and all together."""

from __future__ import annotations

import numpy as np

from immunogate.calib.robustness.alarms import ANY, limits_of, raised_by
from immunogate.calib.robustness.deployed import Answer
from immunogate.manifest import Alarms, AlarmSignal, Calibration
from immunogate.structs import CLONE_DISAGREEMENT, CONSECUTIVE_FRAMES, RAW_AGAINST_PURIFIED

RAW = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
PURIFIED = np.array([[1, 0], [1, 0], [1, 0], [np.nan, 0]], np.float32)


def measured(*names: str) -> Calibration:
    signals = [AlarmSignal(name, 0.25, 1e-3, 0, 100, 0.0, 0.04) for name in names]
    alarms = Alarms(signals, 1e-3, 0, 100, 50, 0.0, 0.04, "here") if names else None
    return Calibration("measured", [], 0.5, 1e-3, "ab" * 32, "others", alarms=alarms)


def test_only_signals_of_one_picture_have_limits_here() -> None:
    assert limits_of(None) == {}
    assert limits_of(measured()) == {RAW_AGAINST_PURIFIED: 0.5}
    every = measured(RAW_AGAINST_PURIFIED, CLONE_DISAGREEMENT, CONSECUTIVE_FRAMES)
    assert limits_of(every) == {RAW_AGAINST_PURIFIED: 0.5, CLONE_DISAGREEMENT: 0.25}


def test_any_of_them_is_an_alarm_and_so_is_what_can_not_be_compared() -> None:
    answer = Answer(PURIFIED, RAW, None, np.array([0.25, 0.1, 0.3, 0.1], np.float32))
    found = raised_by({RAW_AGAINST_PURIFIED: 0.5, CLONE_DISAGREEMENT: 0.25}, answer)
    assert found[RAW_AGAINST_PURIFIED].tolist() == [False, True, False, True]
    assert found[CLONE_DISAGREEMENT].tolist() == [False, False, True, False]
    assert found[ANY].tolist() == [False, True, True, True]


def test_a_gate_that_does_not_purify_has_no_alarms() -> None:
    assert raised_by({RAW_AGAINST_PURIFIED: 0.5}, Answer(PURIFIED)) == {}
