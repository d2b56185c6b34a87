"""The benchmark of the face path on the fake device: it counts and looks at memory; its times mean nothing here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import bench_gpu_path


class FakeBench:
    """Does what is to be timed and says that each took 7 microseconds."""

    def events(self, works: Any, *, cold: bool, stream: Any) -> list[float]:
        works[0]()
        stream.synchronize()
        return [7.0]


def test_a_bucket_is_timed_and_leaves_nothing_behind(both: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_gpu_path, "WARM_UPS", 2)
    with both("select") as made:
        found = bench_gpu_path.times(FakeBench(), made.path, 1, bench_gpu_path.Rounds(3, 4))  # type: ignore[arg-type]
        assert made.recogniser.runs > 10
    assert found["captured"]
    assert (found["host"]["n"], found["device"]["p50_us"]) == (3, 7.0)
    assert 0 < found["chosen"] < 1
    assert found["faults"] == []
    assert found["growth"]["runs"] == 4
    assert (found["growth"]["device_mib"], found["growth"]["objects"]) == (0, 0)


def test_growth_is_seen(both: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    with both("select") as made:
        device, held = made.path.stream.device, []
        crops = [np.zeros((1, 112, 112), np.uint8)]
        once = made.path.recognise

        def leaking(*given: Any) -> Any:
            held.append(device.empty((1 << 20,), np.uint8))
            return once(*given)

        once(crops[0], [0], [0])
        monkeypatch.setattr(made.path, "recognise", leaking)
        grown = bench_gpu_path.growth(made.path, crops, 3)
        assert (grown["device_mib"], grown["objects"]) == (3.0, 3)
        for buffer in held:
            buffer.close()
