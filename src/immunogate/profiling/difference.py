"""Two profiles compared: what became slower, and what noise can explain."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from immunogate.errors import InputError
from immunogate.profiling.bootstrap import LEVEL, ratio_interval
from immunogate.profiling.recording import AGE, FRAME, NOT_WORK
from immunogate.profiling.summary import share_of_frame

LEAST_SAMPLES = 20
"""In each profile; a median of fewer is not compared."""

LEAST_SHARE = 0.05
"""Of the work on a frame, which a stage must take in one of the profiles to fail a comparison by itself."""

COMPARED = ("faces", "batch", "mode", "clones", "top_k", "backend", "runner", "looks", "rate", "threads", "source")
"""Settings that both should share."""


@dataclass(frozen=True)
class Change:
    """One stage in both profiles.

    Attributes:
        stage: its path.
        before_ms: median.
        after_ms: likewise.
        ratio: after over before; 1.1 is ten percent slower.
        low: end of the ratio's 99 % interval.
        high: its other end.
        verdict: slower, faster, no difference, or too few samples.
        decides: whether it may fail the comparison: end to end, all work on a frame, and stages of some weight.
        fails: slower beyond what was allowed, the whole interval.
    """

    stage: str
    before_ms: float
    after_ms: float
    ratio: float | None
    low: float | None
    high: float | None
    verdict: str
    decides: bool
    fails: bool


def compare(before: dict[str, Any], after: dict[str, Any], allowed: float) -> dict[str, Any]:
    """What changed between two documents of `load_profile`.

    Args:
        before: the first.
        after: the second.
        allowed: share by which a median may grow; 0.05 for five percent.

    Raises:
        InputError: they have no stage in common, or samples that are no numbers.
    """
    shared = [name for name in before["samples_ms"] if name in after["samples_ms"]]
    if not shared:
        raise InputError("the two profiles have no stage in common", "Compare profiles of the same source and settings")
    changes = [_change(name, before, after, allowed) for name in shared]
    return {
        "allowed": allowed,
        "level": LEVEL,
        "fails": any(change.fails for change in changes),
        "warnings": _warnings(before, after),
        "only_before": [name for name in before["samples_ms"] if name not in shared],
        "only_after": [name for name in after["samples_ms"] if name not in shared],
        "stages": [asdict(change) for change in changes],
    }


def _change(name: str, before: dict[str, Any], after: dict[str, Any], allowed: float) -> Change:
    first, second = _runs(before, name), _runs(after, name)
    earlier, later = (
        float(np.median(np.concatenate(runs))) if sum(map(len, runs)) else 0.0 for runs in (first, second)
    )
    weight = max(share_of_frame(document["stages"], name) for document in (before, after))
    decides = name in (AGE, FRAME) or (weight >= LEAST_SHARE and name not in NOT_WORK)
    if min(sum(map(len, first)), sum(map(len, second))) < LEAST_SAMPLES or min(earlier, later) <= 0:
        return Change(name, earlier, later, None, None, None, "too few samples", decides, False)
    ratio, low, high = ratio_interval(first, second)
    verdict = "slower" if low > 1 else "faster" if high < 1 else "no difference"
    return Change(name, earlier, later, ratio, low, high, verdict, decides, decides and low > 1 + allowed)


def _runs(document: dict[str, Any], name: str) -> list[Any]:
    try:
        runs = [np.array(run, np.float64) for run in document["samples_ms"][name]]
    except (TypeError, ValueError) as error:
        raise InputError(f"the samples of {name} are no numbers", "Take the profile again") from error
    if not all(run.ndim == 1 and np.isfinite(run).all() for run in runs):
        raise InputError(f"the samples of {name} are no numbers", "Take the profile again")
    return runs


def _warnings(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Reasons for which the two may not be comparable."""
    said = [
        f"{name} differs: {before['settings'].get(name)} before, {after['settings'].get(name)} after"
        for name in COMPARED
        if before["settings"].get(name) != after["settings"].get(name)
    ]
    for name in ("cpu", "processors", "gpu"):
        first, second = before["environment"].get(name), after["environment"].get(name)
        if first != second:
            said.append(f"another machine: {name} {first} before, {second} after")
    for when, document in (("before", before), ("after", after)):
        said += [f"{when}: {warning}" for warning in document.get("warnings", [])]
    return said


def difference_to_text(found: dict[str, Any]) -> str:
    """A table for people."""
    lines = [f"{'stage':<26}{'before ms':>11}{'after ms':>11}{'change':>9}{'99 % interval':>19}  verdict"]
    for row in found["stages"]:
        change = interval = ""
        if row["ratio"] is not None:
            change = f"{100 * (row['ratio'] - 1):+.1f} %"
            interval = f"{100 * (row['low'] - 1):+.1f} .. {100 * (row['high'] - 1):+.1f} %"
        verdict = f"{row['verdict']}, beyond {100 * found['allowed']:g} %" if row["fails"] else row["verdict"]
        lines.append(
            f"{row['stage']:<26}{row['before_ms']:>11.3f}{row['after_ms']:>11.3f}{change:>9}{interval:>19}  {verdict}"
        )
    lines += [f"only before: {', '.join(found['only_before'])}"] if found["only_before"] else []
    lines += [f"only after: {', '.join(found['only_after'])}"] if found["only_after"] else []
    lines += [f"warning: {warning}" for warning in found["warnings"]]
    verdict = f"slower by more than {100 * found['allowed']:g} %" if found["fails"] else "not slower than allowed"
    return "\n".join([*lines, "", verdict])
