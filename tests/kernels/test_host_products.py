"""The kernels project, spectrum and act, run on a host: the host build's bits, near float64, in every precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from immunogate.kernels import reference
from immunogate.kernels.host import HostKernels

GREY = 127.5
TOLERANCE = 1e-3
"""Grey levels by which float32 may differ from float64."""

SIDE = 45
PIXELS = SIDE * SIDE  # more than one slice of 1792, and no multiple of anything
STRIDE = -(-PIXELS // 16) * 16
ROWS = 37
VIEWS = {
    1: ((False, 0, 0),),
    2: ((False, 0, 0), (True, 0, 0)),
    4: ((False, -2, -1), (True, 2, 1), (False, 1, 2), (True, -1, -2)),
}


def stored(basis: Any, precision: str) -> tuple[Any, Any]:
    """A basis as a gate may hold it, and the scales of its rows."""
    if precision == "i8":
        scales = (np.abs(basis).max(axis=1) / 127).astype(np.float32)
        return np.rint(basis / scales[:, None]).astype(np.int8), scales
    return basis.astype({"f32": np.float32, "f16": np.float16}[precision]), None


def on_device(basis: Any) -> Any:
    """Rows lengthened with zeros, halves as bits."""
    wide = np.ascontiguousarray(np.pad(basis, ((0, 0), (0, STRIDE - PIXELS))))
    return wide.view(np.uint16) if wide.dtype == np.float16 else wide


@pytest.fixture(scope="module")
def parts(make_basis: Callable[..., tuple[Any, Any]]) -> tuple[Any, Any, Any]:
    mean, basis = make_basis(ROWS, PIXELS)
    return mean, basis, np.random.default_rng(1).uniform(-1, 1, (11, PIXELS)).astype(np.float32)


@pytest.mark.parametrize("precision", ["f32", "f16", "i8"])
@pytest.mark.parametrize(("batch", "shared"), [(1, 1), (3, 4), (11, 8), (9, 1)])
def test_project(emulator: Any, host: HostKernels, parts: Any, precision: str, batch: int, shared: int) -> None:
    mean, exact, faces = parts
    faces = faces[:batch].copy()
    basis, scales = stored(exact, precision)
    slices = -(-PIXELS // 1792)
    partial = np.full((slices, batch, ROWS), np.nan, np.float32)
    grid = (-(-batch // shared), -(-ROWS // 8), slices)
    sizes = batch, ROWS, PIXELS, STRIDE
    emulator.launch(f"project_{precision}_{shared}", grid, (128,), on_device(basis), mean, faces, partial, *sizes)
    coefficients, inputs = np.empty((batch, ROWS), np.float32), np.empty((batch, ROWS + 2), np.float32)
    given = partial, scales, faces, mean, coefficients, inputs, ROWS, PIXELS, slices, SIDE
    emulator.launch("spectrum", (batch,), (256,), *given)

    assert np.array_equal(coefficients, host.project(faces, mean, basis, scales))
    dense = basis.astype(np.float64) * (1 if scales is None else scales.astype(np.float64)[:, None])
    want = reference.project(faces, mean, dense)
    assert np.abs(coefficients - want).max() * GREY < TOLERANCE
    assert np.array_equal(inputs[:, :ROWS], coefficients)
    lengths = reference.spectrum(faces, mean, coefficients)[:, -1]
    assert np.allclose(inputs[:, ROWS], lengths, rtol=1e-6, atol=0)
    rows = faces.astype(np.float64).reshape(-1, SIDE, SIDE)
    mixed = rows[:, 1:, 1:] - rows[:, :-1, 1:] - rows[:, 1:, :-1] + rows[:, :-1, :-1]
    grain = np.minimum(np.abs(mixed) / 2, reference.MOST_GRAIN).mean(axis=(1, 2))
    assert np.allclose(inputs[:, ROWS + 1], grain, rtol=1e-6, atol=0)
    without = np.empty_like(coefficients)
    emulator.launch("spectrum", (batch,), (256,), *given[:4], without, None, *given[6:])
    assert np.array_equal(without, coefficients)


def test_grain_is_the_references(emulator: Any) -> None:
    """At the size of a real crop, with smooth and noisy faces; and the remainder is never below its least length."""
    random = np.random.default_rng(2)
    faces = np.cumsum(random.normal(0, 0.01, (3, 12544)), axis=1).clip(-1, 1).astype(np.float32)
    faces[1] = 0.25
    mean = faces[1].copy()
    partial, coefficients = np.zeros((7, 3, 1), np.float32), np.empty((3, 1), np.float32)
    inputs = np.empty((3, 3), np.float32)
    emulator.launch("spectrum", (3,), (256,), partial, None, faces, mean, coefficients, inputs, 1, 12544, 7, 112)
    assert np.allclose(inputs[:, 2], reference.grain(faces), rtol=1e-6, atol=0)
    assert inputs[1].tolist() == [0, np.float32(reference.LEAST_REMAINDER), 0]


def lists_of(weights: Any) -> tuple[Any, Any, Any]:
    """What select's compaction gives for drawn antibodies (P, genes)."""
    gates = weights[:, ROWS].copy() if weights.shape[1] > ROWS else np.zeros(len(weights), np.float32)
    lists, counts = np.full((len(weights), ROWS), 0xFFFF, np.uint16), np.empty(len(weights), np.int32)
    for picture, row in enumerate(weights[:, :ROWS] != gates[:, None]):
        acting = np.flatnonzero(row)
        counts[picture] = len(acting)
        lists[picture, : len(acting)] = acting
    return lists, counts, gates


def seen(faces: Any, view: tuple[bool, int, int], side: int = SIDE) -> Any:
    """The definition of a view: mirror, then move; the edge's pixels fill the gap."""
    mirrored, right, down = view
    planes = faces.reshape(-1, side, side)
    planes = planes[:, :, ::-1] if mirrored else planes
    rows, columns = (np.clip(np.arange(side) - shift, 0, side - 1) for shift in (down, right))
    return planes[:, rows[:, None], columns[None]]


def recogniser_input(faces: Any, count: int, crop: tuple[int, int, int], gain: float, bias: float) -> Any:
    """(P V, 3, height, width) as runtime/recognise.py makes it of every view."""
    left, height, width = crop
    views = np.stack([seen(faces, view) for view in VIEWS[count]], axis=1).reshape(-1, SIDE, SIDE)
    grey = views[:, :height, left : left + width] * np.float32(gain) + np.float32(bias)
    return np.repeat(grey[:, None], 3, axis=1)


@pytest.mark.parametrize("precision", ["f32", "f16", "i8"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("form", ["chosen", "dense", "soft"])
def test_act(emulator: Any, host: HostKernels, parts: Any, precision: str, gated: bool, form: str) -> None:
    """With empty and full antibodies among them; one launch writes faces and the recogniser's planes."""
    mean, exact, faces = parts
    basis, scales = stored(exact, precision)
    random = np.random.default_rng(3)
    batch, keep = 3, 3
    faces = faces[:batch].copy()
    weights = random.random((batch, keep, ROWS + gated), dtype=np.float32)
    if form != "soft":
        weights = (weights < 0.5).astype(np.float32)
        weights[0, 0], weights[0, 1] = 0, 1
    coefficients = host.project(faces, mean, basis, scales)
    purified = np.full((batch * keep, PIXELS), np.nan, np.float32)
    crop, gain, bias = (3, SIDE - 2, SIDE - 7), 0.75, -0.25
    views = np.array(VIEWS[2], np.int32)
    planes = np.full((batch * keep * 2, 3, *crop[1:]), np.nan, np.float32)
    flat, tiles = weights.reshape(batch * keep, -1), -(-PIXELS // 128)
    out = purified, planes, views, 2, SIDE, *crop, gain, bias
    first = on_device(basis), scales, mean, coefficients
    if form == "chosen":
        lists, counts, gates = lists_of(flat)
        given = *first, lists, counts, gates if gated else None, faces if gated else None, STRIDE, keep, ROWS, PIXELS
        emulator.launch(f"act_chosen_{precision}", (tiles, batch * keep), (256,), *given, *out)
    else:
        given = *first, flat, faces if gated else None, STRIDE, batch * keep, keep, ROWS, ROWS + gated, PIXELS
        emulator.launch(f"act_dense_{precision}", (2, tiles), (256,), *given, *out)

    found = purified.reshape(batch, keep, PIXELS)
    assert np.array_equal(found, host.act(coefficients, weights, mean, basis, faces, scales, listed=form == "chosen"))
    dense = basis.astype(np.float64) * (1 if scales is None else scales.astype(np.float64)[:, None])
    assert np.abs(found - reference.act(coefficients, weights, mean, dense, faces)).max() * GREY < TOLERANCE
    assert np.array_equal(planes, recogniser_input(purified, 2, crop, gain, bias))


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("crop", [(0, SIDE, SIDE), (3, SIDE - 2, SIDE - 7)])
def test_every_pixel_of_every_view_is_stored(emulator: Any, parts: Any, count: int, crop: tuple[int, int, int]) -> None:
    faces = parts[2]
    planes = np.full((len(faces) * count, 3, *crop[1:]), np.nan, np.float32)
    given = faces, planes, np.array(VIEWS[count], np.int32), count, SIDE, *crop, 0.99609375, 0.00390625, PIXELS
    emulator.launch("recogniser_planes", (-(-PIXELS // 256), len(faces)), (256,), *given)
    assert np.array_equal(planes, recogniser_input(faces, count, crop, 0.99609375, 0.00390625))


def test_halves_are_read_as_they_are(host: HostKernels) -> None:
    """Every finite float16, subnormal ones and negative zero among them, times one."""
    every = np.arange(2**16, dtype=np.uint32).astype(np.uint16).view(np.float16)
    halves = every[np.isfinite(every)].reshape(-1, 1)
    one, zero = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    found = host.project(one, zero, halves)[0]
    assert np.array_equal(found, halves[:, 0].astype(np.float32))


def test_what_does_not_fit_is_refused(host: HostKernels, parts: Any) -> None:
    mean, basis, faces = parts
    with pytest.raises(ValueError, match="basis: expected float32, float16 or int8, got float64"):
        host.project(faces, mean, basis.astype(np.float64))
    with pytest.raises(ValueError, match="row_scales: expected with an int8 basis and with no other"):
        host.project(faces, mean, basis.astype(np.int8))
    with pytest.raises(ValueError, match=r"faces: expected shape \(None, 2025\), got \(11, 2024\)"):
        host.project(faces[:, 1:], mean, basis)
    coefficients = host.project(faces, mean, basis)
    with pytest.raises(ValueError, match="gated antibodies need them, got None"):
        host.act(coefficients, np.ones((11, 1, ROWS + 1), np.float32), mean, basis)
    with pytest.raises(ValueError, match=r"weights: expected shape \(11, None, 38\), got \(11, 1, 39\)"):
        host.act(coefficients, np.ones((11, 1, ROWS + 2), np.float32), mean, basis, faces)
