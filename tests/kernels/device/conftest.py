"""A fake driver (see ``tests/fakes/fake_device.py``) whose kernels are the definition, so that launches can be tested.

It checks each launch's grid and block and then does the kernel's work with `immunogate.kernels.reference` on host
memory. What a real device does is for the tests in tests/gpu to show.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fake_device import EmulatedCalls, FakeCalls, name_as_code

from immunogate.kernels import compile as compiling
from immunogate.kernels import reference
from immunogate.kernels.device import Device, binding_versions, open_device, probe
from immunogate.kernels.device.calls import Dimensions

Array = npt.NDArray[Any]
ELEMENTS = {"f32": np.float32, "f16": np.float16, "i8": np.int8}


class DefinitionCalls(FakeCalls):
    """The fake driver whose kernels do their work by the definition."""

    def run(self, name: str, grid: Dimensions, block: Dimensions, shared: int, values: list[tuple[str, Any]]) -> None:
        FAKES[re.sub(r"_(f32|f16|i8)(_\d)?$", "", name)](name, grid, block, shared, **dict(values))


def at(address: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """The array that lies at an address; everything is promised to be 16-byte aligned."""
    assert address % 16 == 0
    assert address
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(address))).view(dtype).reshape(shape)


def fake_project(name: str, grid: Any, block: Any, shared: int, **a: Any) -> None:
    element, together = re.fullmatch(r"project_(\w+)_(\d)", name).groups()  # type: ignore[union-attr]
    batch, rows, pixels, stride = (int(a[key]) for key in ("batch", "rows", "pixels", "stride"))
    slices = -(-pixels // 1792)
    assert (grid, block, shared) == ((-(-batch // int(together)), -(-rows // 8), slices), (128, 1, 1), 0)
    assert stride % 16 == 0
    basis = at(a["basis"], (rows, stride), ELEMENTS[element])
    assert not basis[:, pixels:].any()
    partial = at(a["partial"], (slices, batch, rows), np.float32)
    faces, mean = at(a["faces"], (batch, pixels), np.float32), at(a["mean"], (pixels,), np.float32)
    for number in range(slices):
        part = slice(number * 1792, min((number + 1) * 1792, pixels))
        partial[number] = reference.project(faces[:, part], mean[part], basis[:, part])


def fake_spectrum(name: str, grid: Any, block: Any, shared: int, **a: Any) -> None:
    rows, pixels, slices, side = (int(a[key]) for key in ("rows", "pixels", "slices", "side"))
    batch = grid[0]
    assert (grid, block, shared) == ((batch, 1, 1), (256, 1, 1), 0)
    c = at(a["partial"], (slices, batch, rows), np.float32).sum(axis=0, dtype=np.float64)
    if a["row_scales"]:
        c = c * at(a["row_scales"], (rows,), np.float32)
    at(a["coefficients"], (batch, rows), np.float32)[:] = c
    if a["inputs"]:
        faces = at(a["faces"], (batch, pixels), np.float32)
        spectra = reference.spectrum(faces, at(a["mean"], (pixels,), np.float32), c.astype(np.float32))
        inputs = at(a["inputs"], (batch, rows + 2), np.float32)
        inputs[:, :-1] = spectra
        inputs[:, -1] = reference.grain(faces) if side else 0


def drawn(a: dict[str, Any], batch: int, clones: Array) -> Array:
    """Masks of clones (B, K) by limits (B, padded); a limit's probability is limit / 2^32, exactly."""
    genes, padded = int(a["genes"]), int(a["padded"])
    assert padded % 4 == 0
    assert 0 <= padded - genes < 4
    limits = at(a["limits"], (batch, padded), np.uint32)
    assert not limits[:, genes:].any()
    frames, faces = (at(a[key], (batch,), np.uint32) for key in ("frames", "faces"))
    key = reference.CloneKey(int(a["seed"]), frames.copy(), faces.copy())
    return reference.mutate(limits[:, :genes].astype(np.float64) / 2.0**32, clones, key)  # type: ignore[arg-type]


def fake_mutate(name: str, grid: Any, block: Any, shared: int, **a: Any) -> None:
    batch, count, words = grid[1], int(a["count"]), -(-int(a["genes"]) // 32)
    assert (grid, block, shared) == ((-(-count // 8), batch, 1), (256, 1, 1), 0)
    clones = at(a["clones"], (batch, count), np.uint32)
    at(a["masks"], (batch, count, words), np.uint32)[:] = drawn(a, batch, clones.astype(np.int64))


def fake_select_clones(name: str, grid: Any, block: Any, shared: int, **a: Any) -> None:
    count, keep, genes, padded, rows = (int(a[key]) for key in ("count", "keep", "genes", "padded", "rows"))
    batch, words = grid[1], -(-genes // 32)
    assert (grid[2], block, shared) == (1, (256, 1, 1), 8 * padded)
    assert 1 <= keep <= 16
    arrived = at(a["arrived"], (batch,), np.uint32)
    assert not arrived.any()
    weights = at(a["weights"], (batch, padded), np.int32)[:, :genes].astype(np.int64)
    scores = at(a["scores"], (batch, count), np.int64)
    scores[:] = reference.score(drawn(a, batch, np.tile(np.arange(count), (batch, 1))), weights)
    winners = reference.select(scores, keep)
    at(a["winners"], (batch, keep), np.int32)[:] = winners
    masks = drawn(a, batch, winners)
    at(a["masks"], (batch, keep, words), np.uint32)[:] = masks
    write_lists(masks, genes, rows, a)


def write_lists(masks: Array, genes: int, rows: int, a: dict[str, Any]) -> None:
    chosen = reference.unpack(masks, genes)
    gates = chosen[..., rows:].any(axis=-1)
    at(a["gates"], gates.shape, np.float32)[:] = gates
    for place in np.ndindex(gates.shape):
        listed = np.flatnonzero(chosen[place][:rows] != gates[place])
        at(a["lists"], (*gates.shape, rows), np.uint16)[place][: len(listed)] = listed
        at(a["counts"], gates.shape, np.int32)[place] = len(listed)


def fake_act_chosen(name: str, grid: Any, block: Any, shared: int, **a: Any) -> None:
    rows, pixels, keep = (int(a[key]) for key in ("rows", "pixels", "keep"))
    pictures = grid[1]
    assert (grid, block, shared) == ((-(-pixels // 128), pictures, 1), (256, 1, 1), 0)
    counts, lists = at(a["counts"], (pictures,), np.int32), at(a["lists"], (pictures, rows), np.uint16)
    gates = at(a["gates"], (pictures,), np.float32) if a["gates"] else np.zeros(pictures, np.float32)
    weights = np.repeat(gates[:, None], rows, axis=1)
    for picture, count in enumerate(counts):
        assert np.all(np.diff(lists[picture, :count].astype(int)) > 0)
        weights[picture, lists[picture, :count]] = 1 - gates[picture]
    store(name, a, pictures // keep, np.concatenate([weights, gates[:, None]], axis=1))


def fake_act_dense(name: str, grid: Any, block: Any, shared: int, **a: Any) -> None:
    pixels, keep, genes, pictures = (int(a[key]) for key in ("pixels", "keep", "genes", "pictures"))
    assert (grid, block, shared) == ((-(-pictures // 8), -(-pixels // 128), 1), (256, 1, 1), 0)
    store(name, a, pictures // keep, at(a["weights"], (pictures, genes), np.float32))


def store(name: str, a: dict[str, Any], batch: int, weights: Array) -> None:
    rows, pixels, stride, keep = (int(a[key]) for key in ("rows", "pixels", "stride", "keep"))
    basis = at(a["basis"], (rows, stride), ELEMENTS[name.rpartition("_")[2]])[:, :pixels].astype(np.float64)
    if a["row_scales"]:
        basis = basis * at(a["row_scales"], (rows,), np.float32)[:, None]
    gated = weights.shape[1] > rows and weights[:, rows].any()
    faces = at(a["faces"], (batch, pixels), np.float32) if gated else None
    weights = weights.reshape(batch, keep, -1)[..., : None if gated else rows]
    mean = at(a["mean"], (pixels,), np.float32)
    c = at(a["coefficients"], (batch, rows), np.float32)
    purified = at(a["purified"], (batch, keep, pixels), np.float32)
    purified[:] = reference.act(c, weights, mean, basis, faces)  # type: ignore[arg-type]


FAKES: dict[str, Callable[..., None]] = {
    "project": fake_project,
    "spectrum": fake_spectrum,
    "mutate": fake_mutate,
    "select_clones": fake_select_clones,
    "act_chosen": fake_act_chosen,
    "act_dense": fake_act_dense,
}


@pytest.fixture
def no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel file's machine code is its own name."""

    if shutil.which("g++") is None:
        pytest.skip("g++ is needed to read the kernels' signatures")
    monkeypatch.setattr(compiling, "cubin_for", name_as_code)


@pytest.fixture
def fake_calls(no_code: None) -> DefinitionCalls:
    """The fake driver."""
    return DefinitionCalls()


@pytest.fixture
def make_lazy(no_code: None) -> Callable[[], DefinitionCalls]:
    """Fake drivers that do nothing before somebody waits for it."""
    return lambda: DefinitionCalls(lazy=True)


@pytest.fixture
def fake_device(fake_calls: FakeCalls) -> Iterator[Device]:
    """A strict device over the fake driver: what a test leaves open fails it."""
    with Device(fake_calls, strict=True) as device:
        yield device


@pytest.fixture(params=["definition", "kernels"])
def any_device(request: pytest.FixtureRequest, no_code: None) -> Iterator[Device]:
    """A strict device whose launches are done by the definition, and one whose launches run the real kernels."""
    real = request.param == "kernels"
    calls = EmulatedCalls(request.getfixturevalue("emulator_library")) if real else DefinitionCalls()
    with Device(calls, strict=True) as device:
        yield device


@pytest.fixture(params=["on the host", pytest.param("on a GPU", marks=pytest.mark.gpu)])
def kernels_run(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A strict device that runs the real kernels: on the host, thread by thread, and on a GPU where there is one."""
    if request.param == "on the host":
        request.getfixturevalue("no_code")
        opened = Device(EmulatedCalls(request.getfixturevalue("emulator_library")), strict=True)
    else:
        state = probe()
        if not (state.usable and any(binding_versions().values())):
            why = state.problem or "neither PyCUDA nor cuda-core is installed"
            (pytest.fail if os.environ.get("IMMUNOGATE_REQUIRE_GPU") == "1" else pytest.skip)(why)
        opened = open_device(strict=True)
    with opened:
        yield opened
