"""spectrum and the gated act: the fast ones against their definition, and what a gate means at its ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import ThreadpoolController

from immunogate.basis import LEAST_REMAINDER, MOST_GRAIN
from immunogate.kernels import reference
from immunogate.kernels.antibody import AntibodySettings, make_antibodies
from immunogate.kernels.cpu import CHUNK, CpuKernels

MakeBasis = Callable[..., tuple[Any, Any]]

GREY = 127.5
TOLERANCE = 1e-3
"""Grey levels, as in the tests of the products."""

GENES, PIXELS = CHUNK + 30, 1031


@pytest.fixture(scope="module")
def parts(make_basis: MakeBasis) -> tuple[Any, Any, Any, Any]:
    """Faces, mean, basis, and gated antibodies (6, 3, n + 1): soft, drawn, and with the gate shut or open."""
    mean, basis = make_basis(GENES, PIXELS)
    draw = np.random.default_rng(1)
    faces = draw.uniform(-1, 1, (6, PIXELS)).astype(np.float32)
    weights = draw.random((6, 3, GENES + 1)).astype(np.float32)
    weights[2:] = np.round(weights[2:])
    weights[2:4, :, -1], weights[4:, :, -1] = 0, 1
    return faces, mean, basis, weights


@pytest.fixture(scope="module")
def cpu(parts: tuple[Any, Any, Any, Any]) -> Iterator[CpuKernels]:
    with CpuKernels(parts[1], parts[2], threads=2) as kernels:
        yield kernels


def test_the_spectrum_is_the_coefficients_and_the_length_of_what_is_left(parts: Any) -> None:
    faces, mean, basis, _ = parts
    c = reference.project(faces, mean, basis)
    found = reference.spectrum(faces, mean, c)
    remainder = faces - mean.astype(np.float64) - c @ basis.astype(np.float64)
    assert found.shape == (6, GENES + 1)
    assert np.array_equal(found[:, :-1], c)
    np.testing.assert_allclose(found[:, -1], np.linalg.norm(remainder, axis=1), rtol=1e-6)


def test_the_fast_spectrum_is_close_to_the_definition(parts: Any, cpu: CpuKernels) -> None:
    faces, mean, _, _ = parts
    c = cpu.project(faces)
    found = cpu.spectrum(faces, c)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference.spectrum(faces, mean, c), rtol=1e-5)
    for row in range(6):
        assert np.array_equal(cpu.spectrum(faces[row : row + 1], c[row : row + 1])[0], found[row])
    assert cpu.spectrum(faces[:0], c[:0]).shape == (0, GENES + 1)


def test_a_face_of_eigenfaces_has_the_least_remainder_and_never_none(parts: Any, cpu: CpuKernels) -> None:
    _, mean, basis, _ = parts
    faces = np.stack([mean, mean + 0.3 * basis[0]]).astype(np.float32)
    for found in (cpu.spectrum(faces, cpu.project(faces)), reference.spectrum(faces, mean, cpu.project(faces))):
        assert np.array_equal(found[:, -1], np.full(2, LEAST_REMAINDER, found.dtype))


def test_the_bits_of_a_remainder_do_not_depend_on_the_threads_of_blas() -> None:
    """12,544 pixels are enough for OpenBLAS to split a sum; |x - mu|^2 and |c|^2 nearly cancel, so it would show."""
    faces = np.random.default_rng(6).uniform(-1, 1, (300, 12544)).astype(np.float32)
    lengths = np.linalg.norm(faces.astype(np.float64), axis=1).astype(np.float32)
    coefficients = np.nextafter(lengths, np.float32(0))[:, None]
    with CpuKernels(np.zeros(12544, np.float32), np.eye(1, 12544, dtype=np.float32), threads=1) as kernels:
        found = []
        for limit in (1, 2, 3):
            with ThreadpoolController().limit(limits=limit, user_api="blas"):
                found.append(kernels.spectrum(faces, coefficients))
    assert 0.01 < found[0][:, 1].max() < 0.1
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_gated_act_is_close_to_the_definition(parts: Any, cpu: CpuKernels) -> None:
    faces, mean, basis, weights = parts
    c = cpu.project(faces)
    found = cpu.act(c, weights, faces)
    assert (found.shape, found.dtype) == ((6, 3, PIXELS), np.float32)
    assert np.abs(found - reference.act(c, weights, mean, basis, faces)).max() * GREY < TOLERANCE
    by_hand = mean + (weights[..., :-1] * c[:, None]) @ basis + weights[..., -1:] * (faces - mean - c @ basis)[:, None]
    assert np.abs(found - by_hand).max() * GREY < 10 * TOLERANCE


def test_gate_1_and_mask_1_give_the_face_back(parts: Any, cpu: CpuKernels) -> None:
    faces, mean, basis, _ = parts
    ones = np.ones((6, 2, GENES + 1), np.float32)
    for found in (cpu.act(cpu.project(faces), ones, faces),
                  reference.act(reference.project(faces, mean, basis), ones, mean, basis, faces)):  # fmt: skip
        assert np.abs(found - faces[:, None]).max() < 1e-6


def test_gate_0_is_the_ungated_act(parts: Any, cpu: CpuKernels) -> None:
    faces, mean, basis, weights = parts
    c, kept = cpu.project(faces), weights[..., :-1]
    shut = np.concatenate([kept, np.zeros_like(weights[..., -1:])], axis=2)
    assert np.array_equal(cpu.act(c, shut, faces), cpu.act(c, kept))
    assert np.array_equal(cpu.act(c, kept, faces), cpu.act(c, kept))
    exact = reference.act(c, kept, mean, basis)
    np.testing.assert_allclose(reference.act(c, shut, mean, basis, faces), exact, atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1, width=32))
@settings(max_examples=20, deadline=None)
def test_a_gate_lets_its_share_of_the_remainder_through(make_basis: MakeBasis, state: int, gate: float) -> None:
    mean, basis = make_basis(9, 40, 3)
    faces = np.random.default_rng(state).uniform(-1, 1, (2, 40)).astype(np.float32)
    weights = np.zeros((2, 1, 10), np.float32)
    weights[..., -1] = gate
    length = reference.spectrum(faces, mean, reference.project(faces, mean, basis))[:, -1]
    with CpuKernels(mean, basis, threads=1) as kernels:
        purified = kernels.act(kernels.project(faces), weights, faces)[:, 0]
    np.testing.assert_allclose(np.linalg.norm(purified - mean, axis=1), gate * length, atol=1e-5)


def test_bits_do_not_depend_on_batch_or_threads(parts: Any, cpu: CpuKernels) -> None:
    faces, mean, basis, weights = parts
    c = cpu.project(faces)
    found = cpu.act(c, weights, faces)
    for row in range(6):
        one = slice(row, row + 1)
        assert np.array_equal(cpu.act(c[one], weights[one], faces[one]), found[one])
    with CpuKernels(mean, basis, threads=1) as kernels:
        assert np.array_equal(kernels.act(c, weights, faces), found)


@pytest.mark.parametrize("mode", ["expected", "threshold", "sample", "select"])
def test_every_mode_makes_gated_antibodies(parts: Any, cpu: CpuKernels, make_key: Any, mode: str) -> None:
    faces = parts[0]
    genes = cpu.spectrum(faces, cpu.project(faces))
    p = np.random.default_rng(5).random((6, GENES + 1)).astype(np.float32)
    p[:3, -1], p[3:, -1] = 0, 1
    settings_of_mode = AntibodySettings(mode, clones=8, keep=2, seed=3)
    made = make_antibodies(settings_of_mode, genes, p, make_key(3, [0] * 6, list(range(6))), PIXELS)
    assert made.weights.shape == (6, 2 if mode == "select" else 1, GENES + 1)
    assert np.array_equal(made.weights[:3, :, -1], np.zeros_like(made.weights[:3, :, -1]))
    assert np.array_equal(made.weights[3:, :, -1], np.ones_like(made.weights[3:, :, -1]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, f, c, w: k.act(c, w), "faces: gated antibodies need them, got None"),
        (lambda k, f, c, w: k.act(c, w, f[:1]), r"faces: expected shape \(6, None\), got \(1, 1031\)"),
        (lambda k, f, c, w: k.act(c, w, f[:, 1:]), r"faces: expected shape \(None, 1031\), got \(6, 1030\)"),
        (lambda k, f, c, w: k.act(c, w, f.astype(float)), "faces: expected dtype float32, got float64"),
        (lambda k, f, c, w: k.act(c, w > 0, f), "weights: expected dtype float32, got bool"),
        (lambda k, f, c, w: k.act(c, w[:, 0], f), rf"weights: expected shape \(6, None, {GENES}\)"),
        (lambda k, f, c, w: k.act(c[:1], w, f[:1]), r"weights: expected shape \(1, None"),
        (lambda k, f, c, w: k.spectrum(f, c[:, 1:]), rf"coefficients: expected shape \(6, {GENES}\)"),
        (lambda k, f, c, w: k.spectrum(f[:2], c), rf"coefficients: expected shape \(2, {GENES}\)"),
        (lambda k, f, c, w: k.spectrum(f.astype(float), c), "faces: expected dtype float32"),
    ],
)
def test_other_shapes_and_dtypes_are_refused(
    parts: Any, cpu: CpuKernels, call: Callable[..., Any], message: str
) -> None:
    faces, _, _, weights = parts
    with pytest.raises(ValueError, match=message):
        call(cpu, faces, cpu.project(faces), weights)


def test_the_definition_needs_the_faces_too(parts: Any) -> None:
    faces, mean, basis, weights = parts
    with pytest.raises(ValueError, match="gated antibodies need them"):
        reference.act(reference.project(faces, mean, basis), weights, mean, basis)


def test_grain_is_that_of_white_noise_and_of_nothing_smooth_or_straight() -> None:
    draw = np.random.default_rng(8)
    rows, columns = np.mgrid[0:112, 0:112] / 111 - 0.5
    smooth = np.stack([rows, columns, rows + 2 * columns, np.where(columns > 0.1, 0.8, -0.8)]).astype(np.float32)
    assert reference.grain(smooth.reshape(4, -1)).max() < 1e-6
    for deviation in (0.001, 0.005, 0.01):
        noisy = rows + draw.normal(0, deviation, (112, 112))
        found = reference.grain(noisy.reshape(1, -1).astype(np.float32))
        np.testing.assert_allclose(found, [0.8 * deviation], rtol=0.04)
    wild = draw.choice([-1.0, 1.0], (1, 112 * 112)).astype(np.float32)
    assert reference.grain(wild)[0] <= MOST_GRAIN


def test_an_analyzer_reads_spectrum_and_grain() -> None:
    faces = np.random.default_rng(9).uniform(-1, 1, (3, 112 * 112)).astype(np.float32)
    spectra = np.arange(12.0).reshape(3, 4)
    found = reference.analyzer_input(faces, spectra)
    assert (found.shape, found.dtype) == ((3, 5), np.dtype(np.float32))
    np.testing.assert_array_equal(found[:, :4], spectra.astype(np.float32))
    plain = [
        np.mean([min(abs(p[y, x] - p[y - 1, x] - p[y, x - 1] + p[y - 1, x - 1]) / 2, MOST_GRAIN)
                 for y in range(1, 112) for x in range(1, 112)])
        for p in faces.reshape(3, 112, 112).astype(np.float64)
    ]  # fmt: skip
    np.testing.assert_allclose(found[:, 4], plain, rtol=1e-6)
