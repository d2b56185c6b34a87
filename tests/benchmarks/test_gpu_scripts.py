"""The benchmarks for a GPU without one: arithmetic, tables, refusals, and every case run on the host's fake."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_gpu_kernels
import bench_gpu_path
import gpu_cases
import gpu_environment
import gpu_timing
import numpy as np
import pytest
from common import Options
from fake_device import EmulatedCalls, name_as_code
from gpu_timing import Bench, Ceilings, Size, spread

from immunogate.kernels import compile as compiling
from immunogate.kernels.device import Device, probe
from immunogate.kernels.queued import Queued

ROOT = Path(__file__).resolve().parents[2]
TINY = Size(2, 1, 2, 4096, 1 << 14, 2)
PLAN = gpu_cases.Plan((9,), (5,), (1, 2), 6, ("int8",), (1, 2), (20, 24), (1,), (30,))
YARDSTICKS = {
    "wait_for": ["uint64"],
    "read_all": ["pointer", "uint64", "pointer"],
    "multiply_all": ["pointer", "int32"],
}


class FakeYardsticks(EmulatedCalls):
    """The fake device, whose yardsticks take no time and do nothing; a clock that ticks once a launch."""

    def function(self, module: Any, name: str) -> Any:
        if module == "yardsticks":
            return name, [(kind, f"argument {place}") for place, kind in enumerate(YARDSTICKS[name])]
        return super().function(module, name)

    def run(self, name: str, grid: Any, block: Any, shared: int, values: Any) -> None:
        if name not in YARDSTICKS:
            super().run(name, grid, block, shared, values)


@pytest.fixture
def bench(emulator_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    def code(name: str, architecture: str, folder: Path = compiling.SOURCES) -> compiling.Compiled:
        return name_as_code(name, architecture)

    monkeypatch.setattr(compiling, "cubin_for", code)
    monkeypatch.setattr(gpu_timing, "WARM_UPS", 1)
    with Device(FakeYardsticks(emulator_library), strict=True) as device:
        with Bench(TINY, device) as made:
            yield made
        assert device.live == {}


def test_spread() -> None:
    found = spread([float(value) for value in range(1, 101)])
    assert (found.p50_us, found.p90_us, found.p99_us, found.max_us, found.n) == (50.5, 90.1, 99.01, 100.0, 100)
    for bad in ([], [1.0, float("nan")], [-1.0], [float("inf")]):
        with pytest.raises(ValueError, match="samples"):
            spread(bad)


def test_the_floor_is_the_larger_of_bytes_and_products() -> None:
    best = Ceilings(4000.0, 4200.0, 1e13, 1.0)
    assert best.floor_us(4_000_000) == pytest.approx(1.0)
    assert best.floor_us(4_000_000, 2e7) == pytest.approx(2.0)


@pytest.mark.skipif(probe().usable, reason="there is a GPU")
@pytest.mark.parametrize("script", ["bench_gpu_kernels", "bench_gpu_path"])
def test_without_a_driver_one_line_says_so(script: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "NVIDIA driver" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(probe().usable, reason="there is a GPU")
def test_sanitizing_without_a_driver_says_so() -> None:
    done = subprocess.run([sys.executable, "tools/sanitize_kernels.py"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert "NVIDIA driver" in done.stderr


def test_every_case_of_the_kernels_runs_and_is_checked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the host: no time means anything, but every launch, check, row and table is made."""
    monkeypatch.setattr(gpu_cases, "QUICK", PLAN)
    monkeypatch.setattr(gpu_cases, "KEEP", 2)
    monkeypatch.setattr(bench_gpu_kernels, "why_not", lambda: "torch sees no GPU")
    measured = bench_gpu_kernels.measure(bench, Options(True, False, None))
    kernels = [found["kernel"] for found in measured["cases"]]
    assert {name: kernels.count(name) for name in kernels} == {
        "mutate-select": 2, "project": 2, "act": 4, "project+act": 2, "letterbox": 1, "warp": 1, "match": 2,
    }  # fmt: skip
    json.dumps(measured, allow_nan=False)
    table = bench_gpu_kernels.table(measured)
    assert table.count("\n") == len(kernels) + 3
    assert "n = 6, int8, B = 2, all chosen (dense)" in table
    for found in measured["cases"]:
        assert found["cold"]["n"] == TINY.rounds
        assert found["replayed"]["n"] == TINY.trains


def test_a_wrong_kernel_is_not_timed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    queued = Queued(bench.device)
    bench.at_the_end(queued.close)
    case = next(iter(gpu_cases.cases(bench, queued, replace(PLAN, genes=(40,)))))
    case.works[0]()
    case.check()
    case.works[1]()  # another set's result leaves the first one alone
    case.check()
    draws = queued.select_clones
    monkeypatch.setattr(
        queued, "select_clones", lambda stream, held, seed, *sizes: draws(stream, held, seed + 1, *sizes)
    )
    with pytest.raises(gpu_cases.WrongResultError, match="other clones"):
        bench_gpu_kernels.row(bench, case, Ceilings(1.0, 1.0, 1.0, 0.0), None)


def kernel_rows() -> dict[str, Any]:
    def row(key: list[Any], cold: float) -> dict[str, Any]:
        return {"key": key, "cold": {"p50_us": cold}, "bytes": 50_000_000}

    cases = [row(["select", 1500, 1000, 1], 9.0), row(["select", 1500, 1000, 8], 31.0)]
    cases += [row(["project+act", "fp16", 1], 15.0), row(["project+act", "fp16", 8], 24.0), row([], 1.0)]
    return {"ceilings": {"copy_gb_per_s": 4000.0}, "cases": cases}


def test_promises_of_the_kernels_are_of_one_kind_of_device() -> None:
    made = bench_gpu_kernels.targets(kernel_rows(), "NVIDIA H200")
    assert [target.met for target in made] == [True, False, True, True]
    assert made[2].measured == pytest.approx(1.2)
    assert made[3].measured == pytest.approx(1.6)
    assert bench_gpu_kernels.targets(kernel_rows(), "NVIDIA GeForce RTX 4060") == []


def path_case(host: float, tail: float, grown: float) -> dict[str, Any]:
    return {
        "analyzer": "paper", "recogniser": "ir50", "batch": 1, "floor_us": 70.0,
        "host": {"p50_us": host, "p99_us": host * tail, "tail": tail}, "device": {"p50_us": host, "p99_us": host},
        "growth": {"runs": 10, "device_mib": grown, "objects": 0},
    }  # fmt: skip


def test_promises_of_the_path() -> None:
    measured = {"cases": [path_case(900.0, 1.4, 2.0)]}
    made = bench_gpu_path.targets(measured, "NVIDIA H200")
    assert [(target.unit, target.met) for target in made] == [
        ("us", True), ("x", False), ("MiB", False), ("objects", True),
    ]  # fmt: skip
    assert len(bench_gpu_path.targets(measured, "another")) == 2
    assert "| paper | ir50 | 1 | 900 (1260, 1.40) |" in bench_gpu_path.table(measured)


def test_floors_of_the_path() -> None:
    best = Ceilings(4000.0, 4200.0, 1e13, 1.0)
    floors = bench_gpu_path.kernel_floors(best, 37_632_000, 0.5, 8)
    assert floors["project"] == pytest.approx(9.408)
    assert floors["act"] == pytest.approx(4.704)
    assert floors["select"] == pytest.approx(8 * 1000 * 375 * 20 / 1e13 * 1e6)


def test_the_state_of_a_gpu_is_nvidia_smis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'NVIDIA H200, 580.1, P0, 1980 MHz, 3201 MHz, 90.1 W, 30, 4 MiB'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert gpu_environment.gpu_state()["clocks.sm"] == "1980 MHz"
    script.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_environment.gpu_state() == {}


@pytest.mark.torch
def test_costs_of_networks_are_counted() -> None:
    torch = pytest.importorskip("torch")
    from gpu_networks import Cost, cost_of

    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1, bias=False), torch.nn.Flatten(), torch.nn.Linear(32, 5)
    )
    found = cost_of(network, (3, 4, 4), 2)
    assert found == Cost(2 * (3 * 8 * 9 + 32 * 5 + 5), 8 * 4 * 27 + 32 * 5)
    assert found.floor_us(10, 1.0, 1e6) == pytest.approx(10 * found.products)


@pytest.mark.torch
def test_a_network_runs_in_half_precision() -> None:
    torch = pytest.importorskip("torch")
    from gpu_networks import recogniser

    network, entry = recogniser("gateface", "cpu")
    with torch.inference_mode():
        found = network.run(torch.rand((1, 3, entry.height, entry.width)))
    assert found.shape == (1, entry.embedding_dimension)
    assert bool(torch.isfinite(found).all())
    assert network.cost.weight_bytes > 1e6
    assert np.isfinite(network.cost.floor_us(1, 4000.0, 4e14))
