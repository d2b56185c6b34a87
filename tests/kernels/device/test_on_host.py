"""The GPU's operations from end to end without a GPU: the real launches, and the real kernels run on the host.

What is left for a GPU to show: the driver, the machine code, and races between threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from immunogate.kernels import reference
from immunogate.kernels.backend import check_against_cpu
from immunogate.kernels.cpu import CpuKernels
from immunogate.kernels.device import Device
from immunogate.kernels.launch import CudaKernels
from immunogate.kernels.reference import CloneKey, unpack

KINDS = {
    "pointer": ctypes.c_void_p,
    "int32": ctypes.c_int32,
    "uint32": ctypes.c_uint32,
    "int64": ctypes.c_int64,
    "uint64": ctypes.c_uint64,
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
}


@pytest.fixture
def device(fake_calls: Any, emulator: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """The fake driver, whose kernels are the real ones."""

    def launch(function: Any, grid: Any, block: Any, shared: int, stream: Any, arguments: Any) -> None:
        name, parameters = function
        assert [kind for kind, _ in arguments] == [kind for kind, _ in parameters], name
        values = [KINDS[kind](value.item() if hasattr(value, "item") else value) for kind, value in arguments]
        emulator.launch(name, grid, block, *values, shared=shared)

    monkeypatch.setattr(fake_calls, "launch", launch)
    with Device(fake_calls, strict=True) as opened:
        yield opened


def parts(batch: int, genes: int, pixels: int) -> tuple[Any, Any, Any]:
    draw = np.random.default_rng(genes)
    faces = draw.uniform(-1, 1, (batch, pixels)).astype(np.float32)
    basis = np.linalg.qr(draw.normal(size=(pixels, genes)))[0].T.astype(np.float32)
    return faces, draw.uniform(-0.5, 0.5, pixels).astype(np.float32), np.ascontiguousarray(basis)


def test_the_check_before_a_gate_starts(device: Device) -> None:
    _, mean, basis = parts(1, 45, 230)
    with CudaKernels(mean, basis, device) as kernels:
        check_against_cpu(kernels, basis)


@pytest.mark.parametrize(("precision", "levels"), [("fp32", 1e-3), ("fp16", 0.5), ("int8", 8)])
@pytest.mark.parametrize("batch", [1, 3, 9])
def test_every_operation(device: Device, precision: str, levels: float, batch: int) -> None:
    """Masks, scores and winners to the bit; pixels to so many grey levels."""
    genes, pixels, keep = 41, 333, 3
    faces, mean, basis = parts(batch, genes, pixels)
    draw = np.random.default_rng(0)
    p = draw.random((batch, genes), dtype=np.float32)
    weights = draw.integers(-9, 9, (batch, genes))
    key = CloneKey(2**63 + 1, *draw.integers(0, 2**32, (2, batch), dtype=np.uint32))
    with CudaKernels(mean, basis, device, precision) as kernels, CpuKernels(mean, basis, threads=1) as cpu:
        coefficients = kernels.project(faces)
        assert np.abs(coefficients - cpu.project(faces)).max() * 127.5 < levels
        assert np.allclose(kernels.spectrum(faces, coefficients), cpu.spectrum(faces, coefficients), rtol=1e-6)
        masks = reference.mutate(p, np.broadcast_to(np.arange(20), (batch, 20)), key)
        scores = reference.score(masks, weights)
        winners = reference.select(scores, keep)
        assert np.array_equal(kernels.mutate_score(p, weights, 20, key), scores)
        found = kernels.select_clones(p, weights, 20, keep, key)
        assert np.array_equal(found[0], winners)
        assert np.array_equal(found[1], np.take_along_axis(masks, winners[:, :, None], axis=1))
        assert np.array_equal(kernels.mutate(p, winners, key), found[1])
        hard = unpack(found[1], genes).astype(np.float32)
        gated = np.concatenate([hard, draw.integers(0, 2, (batch, keep, 1)).astype(np.float32)], axis=-1)
        soft = draw.random((batch, keep, genes + 1), dtype=np.float32)
        for antibodies in (hard, gated, soft):
            difference = kernels.act(coefficients, antibodies, faces) - cpu.act(coefficients, antibodies, faces)
            assert np.abs(difference).max() * 127.5 < levels
