from __future__ import annotations

import pytest

from immunogate.profiling.devices import DEVICES, predicted
from immunogate.profiling.layers import Layer, cost_of, slowest
from immunogate.profiling.roofline import Rates, Work, stage_row


def test_multiply_accumulates_are_counted_by_hand() -> None:
    conv = Layer("c", "Conv", ((1, 3, 112, 96), (32, 3, 3, 3), (32,)), ((1, 32, 56, 48),), 3584, 1.0)
    assert conv.macs == 32 * 56 * 48 * 27
    depthwise = Layer("d", "Conv", ((2, 64, 56, 48), (64, 1, 3, 3)), ((2, 64, 56, 48),), 2304, 1.0)
    assert depthwise.macs == 2 * 64 * 56 * 48 * 9
    product = Layer("m", "Gemm", ((4, 1002), (1002, 512), (512,)), ((4, 512),), 1002 * 2048, 1.0)
    assert product.macs == 4 * 1002 * 512
    relu = Layer("r", "Relu", ((4, 512),), ((4, 512),), 0, 0.1)
    assert (relu.macs, relu.flops) == (0, 2048)
    assert Layer("v", "Reshape", ((4, 512), (2,)), ((2048,),), 0, 0.1).flops == 0
    cost = cost_of([conv, relu], 100)
    assert cost.flops == 2 * conv.macs + 2048
    assert cost.bytes == 3584 + 400


def test_the_slowest_layers_by_their_medians() -> None:
    def run(factor: float) -> list[Layer]:
        return [Layer(f"layer {i}", "Relu", ((i,),), ((i,),), 0, factor * i) for i in range(15)]

    found = slowest([run(1), run(1), run(50)])
    assert (found["layers"], found["runs"], len(found["top"])) == (15, 3, 10)
    assert [row["name"] for row in found["top"][:2]] == ["layer 14", "layer 13"]
    assert found["top"][0]["ms"] == 14
    assert found["top"][0]["share"] == pytest.approx(14 / 105, abs=1e-4)


RATES = Rates(10e9, {"fp32": 100e9, "fp16": 100e9, "int8": 400e9})


def test_the_longer_of_the_two_bounds_a_stage() -> None:
    by_memory, by_work = Work("a", 50e6, 1e6), Work("b", 1e6, 500e6)
    assert (RATES.floor_ms(by_memory), RATES.bound(by_memory)) == (5.0, "memory")
    assert (RATES.floor_ms(by_work), RATES.bound(by_work)) == (5.0, "arithmetic")
    assert RATES.floor_ms(Work("c", 0, 400e6, "int8")) == 1.0


def test_a_row_says_the_gap_and_does_not_hide_a_cache() -> None:
    row = stage_row(Work("a", 50e6, 0), RATES, 15.0)
    assert (row["floor_ms"], row["gap_ms"], row["times_floor"], row["bound"]) == (5.0, 10.0, 3.0, "memory")
    assert stage_row(Work("a", 50e6, 0), RATES, 2.0)["bound"] == "memory, from a cache"
    unseen = stage_row(Work("a", 50e6, 0), RATES, None)
    assert (unseen["measured_ms"], unseen["gap_ms"], unseen["times_floor"]) == (None, None, None)


def test_predictions_say_that_they_are_and_agree_with_the_sheets() -> None:
    found = predicted([Work("act", 50.2e6, 50e6), Work("recogniser", 2e6, 12.6e9, "fp16")])
    assert set(found) == set(DEVICES)
    assert {"Orin Nano Super", "Orin NX 16GB", "AGX Orin 64GB", "RTX 4060", "RTX 4090", "H200"} == set(DEVICES)
    for name, row in found.items():
        assert row["kind"] == "prediction from data sheets"
        assert "NVIDIA" in row["source"]
        sheet = DEVICES[name]
        assert row["stages_ms"]["act"] == pytest.approx(50.2 / sheet.bandwidth_gb_s, rel=1e-3)
        assert row["stages_ms"]["recogniser"] == pytest.approx(12.6 / sheet.fp16, rel=1e-3)
        assert row["total_ms"] == pytest.approx(sum(row["stages_ms"].values()))
        assert sheet.tf32 <= sheet.fp16 <= sheet.int8
