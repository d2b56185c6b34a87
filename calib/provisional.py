"""Thresholds for a bundle that was exported a moment ago and not calibrated yet.

They were measured with the same recogniser weights and the same number of eigenfaces, but another eigenbasis, by
``python benchmarks/provisional.py`` on development people. They make a first run possible; a gate that guards
something is calibrated on its own faces.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from immunogate.manifest import Calibration, Manifest, Threshold


def known_limits() -> dict[str, Any]:
    """What was measured: ``source`` in words, and ``entries`` for recognisers and numbers of eigenfaces."""
    text = files("immunogate.calib").joinpath("provisional.json").read_text(encoding="utf-8")
    limits: dict[str, Any] = json.loads(text)
    return limits


def provisional_calibration(manifest: Manifest, limits: dict[str, Any] | None = None) -> Calibration | None:
    """Limits for a bundle of mode fixed and one view whose recogniser weights are known here, else None.

    Between two measured numbers of eigenfaces, the stricter limits of both neighbours are taken. Below the least
    measured number and above the largest nothing is known, so nothing is claimed.

    Args:
        manifest: of the bundle.
        limits: as `known_limits` gives them, which is the default.
    """
    limits = known_limits() if limits is None else limits
    checkpoints = manifest.provenance.get("checkpoints", {})
    sha256 = checkpoints.get("recogniser", {}).get("sha256")
    known = [entry for entry in limits["entries"] if entry["recogniser_sha256"] == sha256]
    top_k = manifest.purifier.top_k
    below = max((e["top_k"] for e in known if e["top_k"] <= top_k), default=None)
    above = min((e["top_k"] for e in known if e["top_k"] >= top_k), default=None)
    if manifest.purifier.mode != "fixed" or manifest.recogniser.views > 1 or below is None or above is None:
        return None
    near = [entry for entry in known if entry["top_k"] in (below, above)]
    rates = [row["fmr"] for row in near[0]["thresholds"] if all(_rows(entry, row["fmr"]) for entry in near)]
    return Calibration(
        status="provisional",
        thresholds=[_strictest(near, rate) for rate in rates],
        alarm=min(entry["alarm"] for entry in near),
        alarm_rate=max(entry["alarm_rate"] for entry in near),
        measured_on=near[0]["measured_on"],
        source=limits["source"],
    )


def _rows(entry: dict[str, Any], fmr: float) -> list[dict[str, Any]]:
    return [row for row in entry["thresholds"] if row["fmr"] == fmr]


def _strictest(entries: list[dict[str, Any]], fmr: float) -> Threshold:
    rows = [row for entry in entries for row in _rows(entry, fmr)]
    return Threshold(**max(rows, key=lambda row: row["threshold"]))
