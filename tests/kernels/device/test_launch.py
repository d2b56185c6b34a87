"""What is launched with what: the GPU's operations over a fake driver give what the definition gives.

The fake takes every launch apart by the signature in the kernel's source, and does its work by the definition; where
``any_device`` says "kernels", the real kernels do it, on the host. What a GPU does is for tests/gpu to show.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from immunogate.errors import UsageError
from immunogate.kernels import clones, reference
from immunogate.kernels.cpu import CpuKernels
from immunogate.kernels.device import Device
from immunogate.kernels.launch import CudaKernels, chosen_rows, stored_rows
from immunogate.kernels.reference import CloneKey

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 70), st.integers(1, 2000), st.integers(0, 2**32 - 1))
few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def parts(batch: int, genes: int, pixels: int, state: int) -> tuple[Any, ...]:
    draw = np.random.default_rng(state)
    faces = draw.uniform(-1, 1, (batch, pixels)).astype(np.float32)
    basis = np.linalg.qr(draw.normal(size=(max(pixels, genes), genes)))[0][:pixels].T.astype(np.float32)
    return draw, faces, draw.uniform(-0.5, 0.5, pixels).astype(np.float32), np.ascontiguousarray(basis)


def key_of(draw: Any, batch: int) -> CloneKey:
    numbers = draw.integers(0, 2**32, (2, batch)).astype(np.uint32)
    return CloneKey(int(draw.integers(0, 2**63)), *numbers)


@given(SHAPES)
@example((1, 37, 38, 0))  # hardly any remainder
@few
def test_project_and_spectrum(any_device: Device, shape: tuple[int, int, int, int]) -> None:
    _, faces, mean, basis = parts(*shape)
    with CudaKernels(mean, basis, any_device) as kernels:
        c = kernels.project(faces)
        assert (c.shape, c.dtype) == ((shape[0], shape[1]), np.float32)
        np.testing.assert_allclose(c, reference.project(faces, mean, basis), atol=1e-4)
        spectra = kernels.spectrum(faces, c)
        exact = reference.spectrum(faces, mean, c)
        np.testing.assert_array_equal(spectra[:, :-1], c)
        # The remainder's square is a difference: its error is that of what is taken off what, however little is left.
        error = np.abs(spectra[:, -1].astype(np.float64) ** 2 - exact[:, -1] ** 2)
        assert (error <= 1e-6 * ((faces.astype(np.float64) - mean) ** 2).sum(axis=1)).all()


@given(SHAPES, st.integers(1, 5), st.booleans(), st.booleans(), st.floats(0, 1))
@few
def test_act_by_lists_and_dense(
    any_device: Device, shape: tuple[int, int, int, int], kept: int, gated: bool, soft: bool, share: float
) -> None:
    draw, faces, mean, basis = parts(*shape)
    c = draw.normal(size=shape[:2]).astype(np.float32)
    weights = draw.random((shape[0], kept, shape[1] + gated)).astype(np.float32)
    weights = weights if soft else (weights < share).astype(np.float32)
    with CudaKernels(mean, basis, any_device) as kernels, CpuKernels(mean, basis, threads=1) as cpu:
        found = kernels.act(c, weights, faces if gated else None)
        assert (found.shape, found.dtype) == ((shape[0], kept, shape[2]), np.float32)
        np.testing.assert_allclose(found, cpu.act(c, weights, faces), atol=1e-4)


def test_few_faces_of_few_rows_take_lists_and_many_take_one_read(fake_device: Device, fake_calls: Any) -> None:
    _, _, mean, basis = parts(1, 60, 300, 1)
    with CudaKernels(mean, basis, fake_device) as kernels:
        for batch, expected in ((1, "act_chosen_f32"), (3, "act_chosen_f32"), (8, "act_dense_f32")):
            weights = np.zeros((batch, 1, 60), np.float32)
            weights[..., :20] = 1
            kernels.act(np.ones((batch, 60), np.float32), weights)
            assert fake_calls.launches[-1] == expected
        kernels.act(np.ones((1, 60), np.float32), np.full((1, 1, 60), 0.5, np.float32))
        assert fake_calls.launches[-1] == "act_dense_f32"


@given(SHAPES, st.integers(1, 40), st.integers(1, 20))
@few
def test_clones_are_drawn_scored_and_selected(
    any_device: Device, shape: tuple[int, int, int, int], count: int, keep: int
) -> None:
    draw, _, mean, basis = parts(shape[0], shape[1], 20, shape[3])
    keep = min(keep, count)
    probabilities = draw.random(shape[:2]).astype(np.float32)
    probabilities[0, 0] = 1
    weights = draw.integers(-30, 31, shape[:2])  # few values, so that there are ties
    key = key_of(draw, shape[0])
    with CudaKernels(mean, basis, any_device) as kernels:
        scores = clones.mutate_score(probabilities, weights, count, key)
        winners = reference.select(scores, keep)
        found = kernels.select_clones(probabilities, weights, count, keep, key)
        assert np.array_equal(kernels.mutate_score(probabilities, weights, count, key), scores)
        assert np.array_equal(found[0], winners)
        assert np.array_equal(found[1], clones.mutate(probabilities, winners, key))
        assert found[0].dtype == np.int64


@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-6), ("fp16", 2e-3), ("int8", 2e-2)])
def test_stored_precisions(any_device: Device, precision: str, atol: float) -> None:
    _, faces, mean, basis = parts(3, 20, 200, 5)
    with CudaKernels(mean, basis, any_device, precision) as kernels:
        c = kernels.project(faces)
        np.testing.assert_allclose(c, reference.project(faces, mean, basis), atol=10 * atol)
        np.testing.assert_allclose(kernels.spectrum(faces, c), reference.spectrum(faces, mean, c), rtol=1e-5)
        weights = np.ones((3, 1, 20), np.float32)
        np.testing.assert_allclose(kernels.act(c, weights), reference.act(c, weights, mean, basis), atol=10 * atol)


def test_rows_are_stored_aligned_and_int8_within_half_a_step() -> None:
    basis = np.random.default_rng(3).normal(size=(5, 33)).astype(np.float32)
    basis[2] = 0
    for precision, kind in (("fp32", np.float32), ("fp16", np.float16), ("int8", np.int8)):
        stored, scales = stored_rows(basis, precision)
        assert (stored.shape, stored.dtype) == ((5, 48), kind)
        assert not stored[:, 33:].any()
    assert scales is not None
    assert np.all(np.abs(stored[:, :33] * scales[:, None] - basis) <= scales[:, None] * 0.5001)


def test_lists_are_of_the_rows_that_differ_from_the_gate() -> None:
    weights = np.array([[[1, 0, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]]], np.float32)
    found = chosen_rows(weights, 3)
    assert found is not None
    lists, counts = found
    assert [list(row[:count]) for row, count in zip(lists[0], counts[0], strict=True)] == [[0, 2], [1], []]
    assert chosen_rows(weights * 0.5, 3) is None


def test_no_faces_give_nothing_and_launch_nothing(fake_device: Device, fake_calls: Any) -> None:
    _, _, mean, basis = parts(1, 7, 30, 2)
    key = CloneKey(0, np.zeros(0, np.uint32), np.zeros(0, np.uint32))
    none, no_weights = np.zeros((0, 7), np.float32), np.zeros((0, 7), np.int64)
    with CudaKernels(mean, basis, fake_device) as kernels:
        assert kernels.project(np.zeros((0, 30), np.float32)).shape == (0, 7)
        assert kernels.spectrum(np.zeros((0, 30), np.float32), none).shape == (0, 8)
        assert kernels.act(none, np.zeros((0, 2, 7), np.float32)).shape == (0, 2, 30)
        assert kernels.mutate_score(none, no_weights, 5, key).shape == (0, 5)
        winners, masks = kernels.select_clones(none, no_weights, 5, 2, key)
        assert (winners.shape, masks.shape) == ((0, 2), (0, 2, 1))
    assert fake_calls.launches == []


def test_memory_is_kept_between_calls_and_grows(fake_device: Device) -> None:
    _, faces, mean, basis = parts(6, 7, 30, 2)
    with CudaKernels(mean, basis, fake_device) as kernels:
        kernels.project(faces[:2])
        held = fake_device.live["device buffer"]
        for batch in (1, 2, 6, 3):
            np.testing.assert_allclose(
                kernels.project(faces[:batch]), reference.project(faces[:batch], mean, basis), atol=1e-5
            )
        assert fake_device.live["device buffer"] == held
    assert fake_device.live == {}


def test_wrong_shapes_types_and_numbers_are_refused(fake_device: Device) -> None:
    draw, faces, mean, basis = parts(2, 7, 30, 2)
    key, weights = key_of(draw, 2), np.zeros((2, 7), np.int64)
    p = np.full((2, 7), 0.5, np.float32)
    with CudaKernels(mean, basis, fake_device) as kernels:
        for wrong in (faces[:, :-1], faces.astype(np.float64)):
            with pytest.raises(ValueError, match="faces: expected"):
                kernels.project(wrong)
        with pytest.raises(ValueError, match="gated antibodies need them"):
            kernels.act(p, np.zeros((2, 1, 8), np.float32))
        with pytest.raises(ValueError, match="weights: expected shape"):
            kernels.act(p, np.zeros((2, 1, 9), np.float32))
        with pytest.raises(ValueError, match="1 <= keep <= count <= 4096"):
            kernels.mutate_score(p, weights, 4097, key)
        with pytest.raises(ValueError, match=r"keep: expected 1 \.\. 5"):
            kernels.select_clones(p, weights, 5, 17, key)
        with pytest.raises(ValueError, match="within"):
            kernels.mutate_score(p, weights + 2**23, 5, key)
        with pytest.raises(ValueError, match="probabilities: expected values in"):
            kernels.mutate_score(p * np.nan, weights, 5, key)
    with pytest.raises(UsageError, match="unknown precision 'fp8'"):
        CudaKernels(mean, basis, fake_device, "fp8")
