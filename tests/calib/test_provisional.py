from __future__ import annotations

from typing import Any

import pytest

from immunogate.calib.provisional import known_limits, provisional_calibration
from immunogate.manifest import DetectorEntry, FileEntry, Manifest, PurifierEntry, RecogniserEntry

KNOWN, OTHER = "a" * 64, "b" * 64


def manifest(top_k: int, mode: str = "fixed", recogniser: str | None = KNOWN) -> Manifest:
    provenance = {"checkpoints": {"recogniser": {"file": "r.pt", "sha256": recogniser}}} if recogniser else {}
    return Manifest(
        model_id="m",
        license="none",
        created="2026-01-01T00:00:00+00:00",
        files={name: FileEntry("0" * 64, 1) for name in ("d.onnx", "r.onnx", "b.npz")},
        detector=DetectorEntry("d.onnx", "yunet"),
        recogniser=RecogniserEntry("r.onnx", "x", 112, 96, 8, 127.5, 128.0, "RGB", 128, 18, "fp32"),
        purifier=PurifierEntry("b.npz", 1500, "float16", mode, top_k, 64, 4, 0),
        provenance=provenance,
    )


def entry(top_k: int, thresholds: dict[float, float], alarm: float, **changes: Any) -> dict[str, Any]:
    rows = [
        {"fmr": fmr, "threshold": value, "fmr_upper": fmr, "impostor_pairs": top_k, "tar": 0.5, "genuine_pairs": 10}
        for fmr, value in thresholds.items()
    ]
    measured = {"alarm": alarm, "alarm_rate": alarm / 1000, "measured_on": f"at {top_k}", "thresholds": rows}
    return {"recogniser_sha256": KNOWN, "top_k": top_k, **measured, **changes}


LIMITS = {
    "source": "made up",
    "entries": [
        entry(1000, {1e-2: 0.40, 1e-3: 0.50}, 0.4),
        entry(400, {1e-2: 0.42, 1e-3: 0.48}, 0.8),
        entry(1500, {1e-2: 0.30, 1e-3: 0.60, 1e-4: 0.7}, 0.2),
        entry(700, {1e-2: 0.9, 1e-3: 0.9}, 0.01, recogniser_sha256=OTHER),
    ],
}


def found(top_k: int) -> tuple[dict[float, float], float, float]:
    calibration = provisional_calibration(manifest(top_k), LIMITS)
    assert calibration is not None
    assert (calibration.status, calibration.source) == ("provisional", "made up")
    return {row.fmr: row.threshold for row in calibration.thresholds}, calibration.alarm, calibration.alarm_rate


@pytest.mark.parametrize(
    ("top_k", "thresholds", "alarm"),
    [
        (400, {1e-2: 0.42, 1e-3: 0.48}, 0.8),
        (1000, {1e-2: 0.40, 1e-3: 0.50}, 0.4),
        (1500, {1e-2: 0.30, 1e-3: 0.60, 1e-4: 0.7}, 0.2),
    ],
)
def test_a_measured_number_of_eigenfaces_gets_its_own_limits(
    top_k: int, thresholds: dict[float, float], alarm: float
) -> None:
    assert found(top_k) == (thresholds, alarm, alarm / 1000)


@pytest.mark.parametrize("top_k", [401, 700, 999])
def test_between_two_the_stricter_of_both_is_taken(top_k: int) -> None:
    """The higher threshold at each rate, the lower alarm, the higher rate of false alarms; no farther entry counts."""
    assert found(top_k) == ({1e-2: 0.42, 1e-3: 0.50}, 0.4, 0.8 / 1000)


def test_a_rate_that_only_one_neighbour_has_is_left_out() -> None:
    assert found(1200)[0] == {1e-2: 0.40, 1e-3: 0.60}


def test_a_threshold_brings_its_own_evidence() -> None:
    calibration = provisional_calibration(manifest(1200), LIMITS)
    assert calibration is not None
    assert [row.impostor_pairs for row in calibration.thresholds] == [1000, 1500]


@pytest.mark.parametrize("top_k", [1, 399, 1501])
def test_outside_of_what_was_measured_nothing_is_claimed(top_k: int) -> None:
    assert provisional_calibration(manifest(top_k), LIMITS) is None


@pytest.mark.parametrize("mode", ["expected", "threshold", "sample", "select"])
def test_other_modes_get_none(mode: str) -> None:
    assert provisional_calibration(manifest(1000, mode), LIMITS) is None


@pytest.mark.parametrize("recogniser", ["c" * 64, None])
def test_other_recognisers_get_none(recogniser: str | None) -> None:
    assert provisional_calibration(manifest(1000, recogniser=recogniser), LIMITS) is None


def test_each_recogniser_has_its_own() -> None:
    calibration = provisional_calibration(manifest(700, recogniser=OTHER), LIMITS)
    assert calibration is not None
    assert calibration.at(1e-2).threshold == 0.9


def test_the_limits_that_ship_are_fit_to_be_used() -> None:
    """Whatever stands in the packaged file: every entry makes a calibration, and stricter rates stricter limits."""
    limits = known_limits()
    assert limits["source"]
    for known in limits["entries"]:
        made = provisional_calibration(manifest(known["top_k"], recogniser=known["recogniser_sha256"]))
        assert made is not None
        assert 0 < made.alarm <= 2
        assert len(known["recogniser_sha256"]) == 64
        by_rate = sorted((row.fmr, row.threshold, row.fmr_upper) for row in made.thresholds)
        assert by_rate
        assert [threshold for _, threshold, _ in by_rate] == sorted(
            (threshold for _, threshold, _ in by_rate), reverse=True
        )
        assert all(upper <= fmr for fmr, _, upper in by_rate)
        assert all(0 < threshold < 1 for _, threshold, _ in by_rate)
