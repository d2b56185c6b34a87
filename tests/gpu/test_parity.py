"""Every operation on a real device against its definition, over random shapes. Masks and winners bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from immunogate.kernels import clones, reference
from immunogate.kernels.backend import check_against_cpu
from immunogate.kernels.device import Device
from immunogate.kernels.launch import CudaKernels
from immunogate.kernels.reference import CloneKey

TOLERANCE = 1e-3 / 127.5
"""A thousandth of a grey level."""

SHAPES = [(1, 1, 1), (1, 40, 300), (2, 333, 12544), (5, 77, 1793), (8, 1500, 12544), (9, 64, 100), (64, 130, 4097)]
CLONES = [(1, 1, 1, 1), (1, 64, 1500, 4), (3, 1000, 1501, 16), (8, 4096, 333, 16), (64, 9, 4096, 9), (2, 40, 50, 20)]


@cache
def parts(batch: int, genes: int, pixels: int) -> tuple[Any, Any, Any]:
    """Faces, mean face and eigenfaces; a large basis takes seconds to make orthonormal."""
    draw = np.random.default_rng(genes)
    basis = np.ascontiguousarray(np.linalg.qr(draw.normal(size=(max(genes, pixels), genes)))[0][:pixels].T, np.float32)
    mean = draw.uniform(-0.5, 0.5, pixels).astype(np.float32)
    faces = draw.uniform(-1, 1, (batch, pixels)).astype(np.float32)
    return faces, mean, basis


@pytest.fixture(params=SHAPES, ids=str)
def made(request: pytest.FixtureRequest, device: Device) -> Iterator[tuple[CudaKernels, Any, Any, Any]]:
    faces, mean, basis = parts(*request.param)
    with CudaKernels(mean, basis, device) as kernels:
        yield kernels, faces, mean, basis


def test_project_and_spectrum(made: Any) -> None:
    kernels, faces, mean, basis = made
    found = kernels.project(faces)
    np.testing.assert_allclose(found, reference.project(faces, mean, basis), atol=1e-4)
    assert np.array_equal(found, kernels.project(faces))
    for row in range(min(len(faces), 3)):  # the bits do not depend on the batch
        assert np.array_equal(kernels.project(faces[row : row + 1])[0], found[row])
    np.testing.assert_allclose(kernels.spectrum(faces, found), reference.spectrum(faces, mean, found), rtol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0, None])
def test_act(made: Any, gated: bool, share: float | None) -> None:
    kernels, faces, mean, basis = made
    draw = np.random.default_rng(3)
    c = reference.project(faces, mean, basis).astype(np.float32)
    weights = draw.random((len(faces), 3, len(basis) + gated)).astype(np.float32)
    weights = weights if share is None else (weights < share).astype(np.float32)
    found = kernels.act(c, weights, faces if gated else None)
    assert np.abs(found - reference.act(c, weights, mean, basis, faces)).max() < TOLERANCE


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_compute_with_the_rows_that_are_stored(device: Device, precision: str) -> None:
    from immunogate.kernels.launch import stored_rows

    draw = np.random.default_rng(5)
    basis = np.linalg.qr(draw.normal(size=(1000, 90)))[0].T.astype(np.float32)
    mean, faces = np.zeros(1000, np.float32), draw.uniform(-1, 1, (3, 1000)).astype(np.float32)
    stored, scales = stored_rows(basis, precision)
    rows = stored[:, :1000].astype(np.float64) * (1 if scales is None else scales[:, None])
    with CudaKernels(mean, basis, device, precision) as kernels:
        c = kernels.project(faces)
        np.testing.assert_allclose(c, reference.project(faces, mean, rows), atol=1e-4)
        weights = (draw.random((3, 2, 90)) < 0.3).astype(np.float32)
        for antibodies in (weights, weights * np.float32(0.5)):
            assert np.abs(kernels.act(c, antibodies) - reference.act(c, antibodies, mean, rows)).max() < TOLERANCE


@pytest.mark.parametrize(("batch", "count", "genes", "keep"), CLONES)
def test_clones(device: Device, batch: int, count: int, genes: int, keep: int) -> None:
    draw = np.random.default_rng(count)
    basis = np.eye(2, 30, dtype=np.float32)
    p = draw.random((batch, genes)).astype(np.float32)
    p[:, ::7], p[:, 3::7] = 0, 1
    weights = draw.integers(-40, 41, (batch, genes))
    key = CloneKey(int(draw.integers(0, 2**63)), *draw.integers(0, 2**32, (2, batch)).astype(np.uint32))
    with CudaKernels(np.zeros(30, np.float32), basis, device) as kernels:
        scores = clones.mutate_score(p, weights, count, key)
        for _ in range(2):
            assert np.array_equal(kernels.mutate_score(p, weights, count, key), scores)
            winners, masks = kernels.select_clones(p, weights, count, keep, key)
            assert np.array_equal(winners, reference.select(scores, keep))
            assert np.array_equal(masks, reference.mutate(p, winners, key))


def test_the_check_before_a_gate_starts(made: Any) -> None:
    kernels, _, _, basis = made
    if len(basis) > 1:
        check_against_cpu(kernels, basis)
