from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import architectures  # noqa: E402 - needs torch
from verification import OWN  # noqa: E402


def rate(value: float) -> dict[str, float]:
    return {"rate": value, "low": value / 2, "high": 1.0}


COSTS: dict[str, dict[str, float]] = {
    "paper": {"parameters": 25_000_000, "mega_macs": 2650.0, "p50_ms": 40.0},
    "compact": {"parameters": 2_500_000, "mega_macs": 300.0, "p50_ms": 3.0},
    "products": {"p50_ms": 2.5},
}


def test_the_compact_network_has_to_be_ten_times_smaller() -> None:
    macs, parameters = architectures.targets(COSTS)
    assert (macs.measured, macs.met) == (8.83, False)
    assert (parameters.measured, parameters.met) == (10.0, True)
    assert architectures.targets({"spectral": {}}) == []


def test_the_table_has_a_row_for_each_and_leaves_unknown_costs_empty() -> None:
    rows: dict[str, Any] = {
        "clean": {"undefended": rate(0.7), "paper": rate(0.6)},
        "uniform noise 8/255": {"undefended": rate(0.1)},
        "adaptive": {"paper": rate(0.5)},
    }
    lines = architectures.table({"tar": {OWN: rows}, "cost": COSTS}).splitlines()
    assert lines[0].endswith("| clean | adaptive |")
    assert lines[2] == "| undefended |  |  |  | 0.700 (0.350..1.000) |  |"
    assert lines[3] == "| paper | 25,000,000 | 2650 | 40 | 0.600 (0.300..1.000) | 0.500 (0.250..1.000) |"
    assert "2.5 ms" in lines[-1]
