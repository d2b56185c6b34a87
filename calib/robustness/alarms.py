"""What the gate's alarms say of the pictures that it is shown: each signal by itself, and all of them together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from immunogate.calib.robustness.deployed import Answer
from immunogate.manifest import Calibration
from immunogate.structs import CLONE_DISAGREEMENT, RAW_AGAINST_PURIFIED, Floats

ANY = "any of them"
Bools = npt.NDArray[np.bool_]


def limits_of(calibration: Calibration | None) -> dict[str, float]:
    """The limits of the signals that one picture has; that of consecutive frames needs several."""
    if calibration is None:
        return {}
    found = {RAW_AGAINST_PURIFIED: calibration.alarm}
    clones = None if calibration.alarms is None else calibration.alarms.limit(CLONE_DISAGREEMENT)
    return found if clones is None else {**found, CLONE_DISAGREEMENT: clones}


def raised_by(limits: Mapping[str, float], answer: Answer) -> dict[str, Bools]:
    """(B,) bool for each signal, and for any of them; empty where the gate does not purify.

    What can not be compared is an alarm, as at the gate.
    """
    values = _values(answer)
    found = {name: ~(values[name] <= limit) for name, limit in limits.items() if name in values}
    return {**found, ANY: np.logical_or.reduce(list(found.values()))} if found else {}


def _values(answer: Answer) -> dict[str, Floats]:
    values: dict[str, Floats] = {}
    if answer.raw is not None:
        values[RAW_AGAINST_PURIFIED] = np.asarray(1 - np.einsum("ij,ij->i", answer.raw, answer.embeddings), np.float32)
    if answer.spreads is not None:
        values[CLONE_DISAGREEMENT] = answer.spreads
    return values
