"""project and act: close to float64 for every implementation, and the same bits always for the CPU's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import ThreadpoolController

from immunogate.kernels import reference
from immunogate.kernels.cpu import CHUNK, DENSE, CpuKernels

MakeBasis = Callable[..., tuple[Any, Any]]

GREY = 127.5
"""Grey levels in one unit of a face."""

TOLERANCE = 1e-3
"""Grey levels by which float32 may differ from float64. Real faces, 1,500 eigenfaces: 6e-4 in c, 1e-4 in x_hat."""

GENES, PIXELS = 2 * CHUNK + 44, 1031  # a short last chunk, and rows that start at no round address


@pytest.fixture(scope="module")
def parts(make_basis: MakeBasis) -> tuple[Any, Any, Any, Any]:
    """Faces, mean, basis, and antibodies (8, 3, n) with dense, sparse, empty and soft rows among them."""
    mean, basis = make_basis(GENES, PIXELS)
    draw = np.random.default_rng(1)
    faces = draw.uniform(-1, 1, (8, PIXELS)).astype(np.float32)
    weights = (draw.random((8, 3, GENES)) < draw.random((8, 3, 1))).astype(np.float32)
    weights[0, 0] = 0
    weights[1, 0] = 1
    weights[2] = draw.random((3, GENES))
    return faces, mean, basis, weights


@pytest.fixture(scope="module")
def cpu(parts: tuple[Any, Any, Any, Any]) -> Iterator[CpuKernels]:
    with CpuKernels(parts[1], parts[2], threads=2) as kernels:
        yield kernels


def test_project_and_act_are_close_to_float64(backend: Any, parts: tuple[Any, Any, Any, Any]) -> None:
    faces, mean, basis, weights = parts
    want = reference.project(faces, mean, basis)
    found = backend.project(faces, mean, basis)
    assert found.shape == (8, GENES)
    assert np.abs(found - want).max() * GREY < TOLERANCE  # rows are of unit length: an error in c is one in x
    purified = backend.act(found, weights, mean, basis)
    assert purified.shape == (8, 3, PIXELS)
    assert np.abs(purified - reference.act(want, weights, mean, basis)).max() * GREY < TOLERANCE


def test_full_size_is_close_to_float64(backend: Any) -> None:
    """1,200 rows of unit length and 12,544 pixels; orthonormal or not does not matter to a product."""
    draw = np.random.default_rng(2)
    basis = draw.normal(size=(1200, 12544)).astype(np.float32)
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    mean, faces = draw.uniform(-0.5, 0.5, 12544).astype(np.float32), draw.uniform(-1, 1, (2, 12544)).astype(np.float32)
    want = reference.project(faces, mean, basis)
    assert np.abs(backend.project(faces, mean, basis) - want).max() * GREY < TOLERANCE
    weights = (draw.random((2, 1, 1200)) < 0.6).astype(np.float32)
    purified = backend.act(want, weights, mean, basis)
    assert np.abs(purified - reference.act(want, weights, mean, basis)).max() * GREY < TOLERANCE


def test_the_empty_antibody_gives_the_mean_and_the_full_one_the_face(backend: Any, make_basis: MakeBasis) -> None:
    mean, basis = make_basis(97, 97)
    faces = np.random.default_rng(3).uniform(-1, 1, (2, 97)).astype(np.float32)
    weights = np.stack([np.zeros((2, 97)), np.ones((2, 97))], axis=1).astype(np.float32)
    purified = backend.act(backend.project(faces, mean, basis), weights, mean, basis)
    assert np.array_equal(purified[:, 0], np.tile(mean, (2, 1)))
    assert np.abs(purified[:, 1] - faces).max() * GREY < TOLERANCE


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.data())
def test_residual_needs_no_reconstruction(
    backend: Any, make_basis: MakeBasis, state: int, pixels: int, data: st.DataObject
) -> None:
    """|x - mu - E^T (a c)|^2 = |x - mu|^2 - sum a c^2 for a in {0, 1}, for the rows of E are orthonormal."""
    genes = data.draw(st.integers(1, pixels))
    mean, basis = make_basis(genes, pixels, state)
    draw = np.random.default_rng(state)
    faces = draw.uniform(-1, 1, (1, pixels)).astype(np.float32)
    weights = (draw.random((1, 1, genes)) < 0.5).astype(np.float32)
    coefficients = backend.project(faces, mean, basis)
    residual = faces - backend.act(coefficients, weights, mean, basis)[:, 0]
    explained = (weights[0, 0] * coefficients[0].astype(np.float64) ** 2).sum()
    identity = ((faces - mean).astype(np.float64) ** 2).sum() - explained
    assert (residual.astype(np.float64) ** 2).sum() == pytest.approx(identity, abs=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, None])
def test_bits_do_not_depend_on_the_threads(parts: tuple[Any, Any, Any, Any], cpu: CpuKernels, threads: int) -> None:
    faces, mean, basis, weights = parts
    coefficients = cpu.project(faces)
    with CpuKernels(mean, basis, threads) as kernels:
        assert np.array_equal(kernels.project(faces), coefficients)
        assert np.array_equal(kernels.act(coefficients, weights), cpu.act(coefficients, weights))


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
def test_bits_do_not_depend_on_the_batch(parts: tuple[Any, Any, Any, Any], cpu: CpuKernels, batch: int) -> None:
    faces, _, _, weights = parts
    coefficients = cpu.project(faces)
    purified = cpu.act(coefficients, weights)
    for start in range(8 - batch + 1):
        rows = slice(start, start + batch)
        assert np.array_equal(cpu.project(faces[rows]), coefficients[rows])
        assert np.array_equal(cpu.act(coefficients[rows], weights[rows]), purified[rows])
    order = np.random.default_rng(batch).permutation(8)[:batch]
    assert np.array_equal(cpu.project(faces[order]), coefficients[order])
    assert np.array_equal(cpu.act(coefficients[order], weights[order]), purified[order])
    assert np.array_equal(cpu.act(coefficients, weights[:, 1:2]), purified[:, 1:2])


@pytest.fixture(scope="module")
def long_rows() -> tuple[Any, Any]:
    """A mean and 100 rows that OpenBLAS sums differently on two threads: a lifted limit shows in the bits."""
    draw = np.random.default_rng(11)
    rows = draw.normal(size=(100, 12544)).astype(np.float32) / np.float32(112)
    return draw.uniform(-0.5, 0.5, 12544).astype(np.float32), rows


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_bits_do_not_depend_on_the_threads_of_blas(long_rows: tuple[Any, Any], limit: int) -> None:
    mean, basis = long_rows
    faces = np.random.default_rng(9).uniform(-1, 1, (3, 12544)).astype(np.float32)
    coefficients = np.random.default_rng(10).normal(size=(3, 100)).astype(np.float32)
    weights = np.ones((3, 1, 100), np.float32)
    blas = ThreadpoolController()
    with blas.limit(limits=1, user_api="blas"):
        products = [basis @ (face - mean) for face in faces], [mean + row @ basis for row in coefficients]
    with blas.limit(limits=limit, user_api="blas"), CpuKernels(mean, basis, threads=2) as kernels:
        assert np.array_equal(kernels.project(faces), products[0])
        assert np.array_equal(kernels.act(coefficients, weights)[:, 0], products[1])


def test_bits_do_not_depend_on_who_else_computes(long_rows: tuple[Any, Any]) -> None:
    """A short product that ends in the middle of a long one must not give the rest of it more BLAS threads."""
    mean, basis = long_rows
    faces = np.random.default_rng(4).uniform(-1, 1, (120, 12544)).astype(np.float32)
    before = [library["num_threads"] for library in ThreadpoolController().info()]
    with CpuKernels(mean, basis, threads=1) as long, CpuKernels(mean, basis, threads=1) as short:
        want = long.project(faces)
        for _ in range(15):
            other = threading.Thread(target=short.project, args=(faces[:60],))
            other.start()
            time.sleep(0.002)  # until it holds the limit
            found = long.project(faces)
            other.join()
            assert np.array_equal(found, want)
    assert [library["num_threads"] for library in ThreadpoolController().info()] == before


def test_one_object_serves_several_threads(parts: tuple[Any, Any, Any, Any], cpu: CpuKernels) -> None:
    faces, _, _, weights = parts
    coefficients = cpu.project(faces)
    purified = cpu.act(coefficients, weights)
    with ThreadPoolExecutor(4) as pool:
        projected = list(pool.map(lambda row: cpu.project(faces[row : row + 1]), list(range(8)) * 4))
        acted = list(
            pool.map(lambda row: cpu.act(coefficients[row : row + 1], weights[row : row + 1]), list(range(8)) * 4)
        )
    assert np.array_equal(np.concatenate(projected), np.tile(coefficients, (4, 1)))
    assert np.array_equal(np.concatenate(acted), np.tile(purified, (4, 1, 1)))


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_reading_all_rows_and_gathering_some_agree(make_basis: MakeBasis, more: int) -> None:
    """On both sides of the boundary the result is that of float64; rows left out are never even looked at."""
    mean, basis = make_basis(CHUNK, 600)
    chosen = int(DENSE * CHUNK) + more
    weights = np.zeros((1, 1, CHUNK), np.float32)
    weights[0, 0, np.random.default_rng(5).permutation(CHUNK)[:chosen]] = 1
    coefficients = np.random.default_rng(6).normal(0, 5, (1, CHUNK)).astype(np.float32)
    want = reference.act(coefficients, weights, mean, basis)
    with CpuKernels(mean, basis, threads=1) as kernels:
        assert np.abs(kernels.act(coefficients, weights) - want).max() * GREY < TOLERANCE
    basis[weights[0, 0] == 0] = np.nan
    with CpuKernels(mean, basis, threads=1) as kernels:
        gathered = bool(np.isfinite(kernels.act(coefficients, weights)).all())
    assert gathered == (chosen <= DENSE * CHUNK)


def test_no_faces_are_no_work(cpu: CpuKernels) -> None:
    coefficients = cpu.project(np.zeros((0, PIXELS), np.float32))
    assert coefficients.shape == (0, GENES)
    assert cpu.act(coefficients, np.zeros((0, 2, GENES), np.float32)).shape == (0, 2, PIXELS)


def test_inputs_stay_as_they_are(parts: tuple[Any, Any, Any, Any], cpu: CpuKernels) -> None:
    faces, mean, _, weights = (array.copy() for array in parts)
    coefficients = cpu.project(parts[0])
    kept = coefficients.copy()
    cpu.act(coefficients, parts[3])
    assert np.array_equal(parts[0], faces)
    assert np.array_equal(parts[1], mean)
    assert np.array_equal(parts[3], weights)
    assert np.array_equal(coefficients, kept)


def test_arrays_that_are_not_contiguous_give_the_same_bits(parts: tuple[Any, Any, Any, Any], cpu: CpuKernels) -> None:
    faces, mean, basis, weights = parts
    coefficients = cpu.project(faces)
    assert np.array_equal(cpu.project(np.asfortranarray(faces)), coefficients)
    assert np.array_equal(cpu.act(coefficients, np.asfortranarray(weights)), cpu.act(coefficients, weights))
    with CpuKernels(np.repeat(mean, 2)[::2], np.asfortranarray(basis), threads=1) as kernels:
        assert np.array_equal(kernels.project(faces), coefficients)


@pytest.mark.parametrize("threads", [1, 2])
def test_close_ends_the_workers_and_may_be_called_twice(make_basis: MakeBasis, threads: int) -> None:
    def workers() -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread.name.startswith("immunogate-kernels")}

    before = workers()
    mean, basis = make_basis(300, 320)
    kernels = CpuKernels(mean, basis, threads)
    kernels.project(np.zeros((1, 320), np.float32))
    kernels.close()
    kernels.close()
    assert workers() <= before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, f, c, w: k.project(f[0]), r"faces: expected shape \(None, 1031\), got \(1031,\)"),
        (lambda k, f, c, w: k.project(f[:, 1:]), r"faces: expected shape \(None, 1031\), got \(8, 1030\)"),
        (lambda k, f, c, w: k.project(f.astype(np.uint8)), "faces: expected dtype float32, got uint8"),
        (
            lambda k, f, c, w: k.act(c[:, 1:], w),
            rf"coefficients: expected shape \(None, {GENES}\), got \(8, {GENES - 1}\)",
        ),
        (lambda k, f, c, w: k.act(c[:, 1:], w[:, :, 1:]), rf"coefficients: expected shape \(None, {GENES}\)"),
        (lambda k, f, c, w: k.act(c, w[:, 0]), rf"weights: expected shape \(8, None, {GENES}\), got \(8, {GENES}\)"),
        (lambda k, f, c, w: k.act(c[:1], w), rf"weights: expected shape \(1, None, {GENES}\), got \(8, 3, {GENES}\)"),
        (lambda k, f, c, w: k.act(c, w[:1]), rf"weights: expected shape \(8, None, {GENES}\), got \(1, 3, {GENES}\)"),
        (lambda k, f, c, w: k.act(c.astype(np.float64), w), "coefficients: expected dtype float32, got float64"),
        (lambda k, f, c, w: k.act(c, w > 0), "weights: expected dtype float32, got bool"),
    ],
)
def test_other_shapes_and_dtypes_are_refused(
    parts: tuple[Any, Any, Any, Any], cpu: CpuKernels, call: Callable[..., Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(cpu, parts[0], cpu.project(parts[0]), parts[3])


@pytest.mark.parametrize(
    ("mean", "basis", "message"),
    [
        (np.zeros(5, np.float32), np.zeros((3, 6), np.float32), r"mean: expected shape \(6,\), got \(5,\)"),
        (np.zeros(6, np.float32), np.zeros(6, np.float32), r"basis: expected shape \(None, None\), got \(6,\)"),
        (np.zeros(6, np.float32), np.zeros((3, 6)), "basis: expected dtype float32, got float64"),
    ],
)
def test_another_basis_is_refused(mean: Any, basis: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CpuKernels(mean, basis)
