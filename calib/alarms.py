"""Limits of the signals that raise alarms, each at its share of a stated rate of false alarms.

Half of the people set the limits, the other half says how often clean faces pass any of them: a limit that is judged
by the faces that set it looks better than it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from immunogate.calib.intervals import wilson
from immunogate.errors import InputError
from immunogate.faces_file import identity_split
from immunogate.manifest import Alarms, AlarmSignal
from immunogate.structs import SIGNALS, Floats

HALVES = (20, 0.5)
"""Seed and share of the people who judge the limits."""


def measure_alarms(
    signals: Mapping[str, Floats | None], identities: npt.NDArray[np.str_], rate: float, note: str = ""
) -> Alarms:
    """Limits of the signals that are there, and how often clean faces of other people pass them.

    The stated rate is split evenly: the share of faces that pass any limit is at most the sum of the shares. A limit
    is the least value of the faces that set it with no more than its share above it; of fewer faces than the rate asks
    for, that is the largest of them, and the note says so.

    Args:
        signals: (N,) values of clean faces by name, see `immunogate.structs.SIGNALS`; None where a signal is not there.
        identities: (N,) whose faces they are.
        rate: share of clean faces that may raise an alarm, above 0 and below 1.
        note: how the values came about.

    Raises:
        InputError: people for one half only.
    """
    there = {name: values for name in SIGNALS if (values := signals.get(name)) is not None}
    try:
        setting, judging = identity_split(identities, *HALVES)
    except InputError as error:
        raise InputError(
            f"alarm limits need two halves of people: {error.what}", "Give faces of more people"
        ) from error
    each = rate / len(there)
    limits = {name: float(np.quantile(values[setting], 1 - each, method="higher")) for name, values in there.items()}
    passed = {name: values[judging] > limits[name] for name, values in there.items()}
    found = [
        AlarmSignal(name, limits[name], each, int(over.sum()), len(over), *wilson(int(over.sum()), len(over)))
        for name, over in passed.items()
    ]
    together = np.any(list(passed.values()), axis=0)
    flagged, of = int(together.sum()), len(together)
    words = [note] if note else []
    if int(setting.sum()) * each < 1:
        words.append(
            f"{int(setting.sum())} faces set the limits, which does not support a rate of {each:.2g} for each signal: "
            "limits are the largest values seen"
        )
    people = len(np.unique(identities[judging]))
    return Alarms(found, rate, flagged, of, people, *wilson(flagged, of), "; ".join(words))
