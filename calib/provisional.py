"""Thresholds for a bundle that was exported a moment ago and not calibrated yet.

They were measured with the same recogniser weights and the same number of eigenfaces, but another eigenbasis, by
``python benchmarks/provisional.py`` on development people. They make a first run possible; a gate that guards
something is calibrated on its own faces.
"""

from __future__ import annotations

import json
from importlib.resources import files

from immunogate.manifest import Calibration, Manifest, Threshold


def provisional_calibration(manifest: Manifest) -> Calibration | None:
    """Limits for a bundle of mode fixed whose recogniser weights are known here, else None.

    Between two measured numbers of eigenfaces, the stricter limits of both neighbours are taken.
    """
    checkpoints = manifest.provenance.get("checkpoints", {})
    sha256 = checkpoints.get("recogniser", {}).get("sha256")
    entries = json.loads(files("immunogate.calib").joinpath("provisional.json").read_text(encoding="utf-8"))
    known = [entry for entry in entries["entries"] if entry["recogniser_sha256"] == sha256]
    if manifest.purifier.mode != "fixed" or not known:
        return None
    top_k = manifest.purifier.top_k
    below = max((e["top_k"] for e in known if e["top_k"] <= top_k), default=None)
    above = min((e["top_k"] for e in known if e["top_k"] >= top_k), default=None)
    near = [entry for entry in known if entry["top_k"] in (below, above)]
    rates = [entry["fmr"] for entry in near[0]["thresholds"]]
    return Calibration(
        status="provisional",
        thresholds=[_strictest(near, rate) for rate in rates],
        alarm=min(entry["alarm"] for entry in near),
        alarm_rate=max(entry["alarm_rate"] for entry in near),
        measured_on=near[0]["measured_on"],
        source=entries["source"],
    )


def _strictest(entries: list[dict[str, list[dict[str, float]]]], fmr: float) -> Threshold:
    rows = [row for entry in entries for row in entry["thresholds"] if row["fmr"] == fmr]
    return Threshold(**max(rows, key=lambda row: row["threshold"]))  # type: ignore[arg-type]
