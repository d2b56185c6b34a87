"""The implementations that the parity tests compare with the definition: a new one is one more entry in BACKENDS."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from immunogate.kernels import clones, reference
from immunogate.kernels.cpu import CpuKernels
from immunogate.kernels.host import HostKernels, host_kernels
from immunogate.kernels.host_build import HostBuildError, host_library
from immunogate.kernels.reference import CloneKey

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Backend:
    """One implementation of every operation, with the signatures of `immunogate.kernels.reference`.

    Attributes:
        name: how test names call it.
        mutate: (probabilities, clones, key) to masks.
        mutate_score: (probabilities, weights, count, key) to the scores of the clones 0 .. count - 1.
        select: (scores, keep) to the winners.
        project: (faces, mean, basis) to coefficients.
        act: (coefficients, weights, mean, basis) to faces.
    """

    name: str
    mutate: Callable[[Array, Array, CloneKey], Array]
    mutate_score: Callable[[Array, Array, int, CloneKey], Array]
    select: Callable[[Array, int], Array]
    project: Callable[[Array, Array, Array], Array]
    act: Callable[[Array, Array, Array, Array], Array]


def _reference_scores(probabilities: Array, weights: Array, count: int, key: CloneKey) -> Array:
    numbers = np.broadcast_to(np.arange(count), (len(probabilities), count))
    return reference.score(reference.mutate(probabilities, numbers, key), weights)


def _cpu_project(faces: Array, mean: Array, basis: Array) -> Array:
    with CpuKernels(mean, basis, threads=2) as kernels:
        return kernels.project(faces)


def _cpu_act(coefficients: Array, weights: Array, mean: Array, basis: Array) -> Array:
    with CpuKernels(mean, basis, threads=2) as kernels:
        return kernels.act(coefficients.astype(np.float32), weights)


def _of_host(name: str) -> Callable[..., Any]:
    """A method of the host build; where there is no compiler, its tests are skipped."""

    def call(*given: Any) -> Any:
        found = host_kernels()
        if found is None:
            pytest.skip("the host build needs a C++ compiler")
        return getattr(found, name)(*given)

    return call


def _host_act(coefficients: Array, weights: Array, mean: Array, basis: Array) -> Array:
    found: Array = _of_host("act")(coefficients.astype(np.float32), weights, mean, basis)
    return found


BACKENDS = [
    Backend("reference", reference.mutate, _reference_scores, reference.select, reference.project, reference.act),
    Backend("numpy", clones.mutate, clones.mutate_score, reference.select, _cpu_project, _cpu_act),
    Backend("host", _of_host("mutate"), _of_host("mutate_score"), reference.select, _of_host("project"), _host_act),
]


@pytest.fixture(scope="session", params=BACKENDS, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every implementation in turn."""
    chosen: Backend = request.param
    return chosen


@pytest.fixture(scope="session")
def make_key() -> Callable[..., CloneKey]:
    """A key from plain numbers."""

    def make(seed: int, frames: list[int], faces: list[int]) -> CloneKey:
        return CloneKey(seed, np.array(frames, np.uint32), np.array(faces, np.uint32))

    return make


@pytest.fixture(scope="session")
def make_basis() -> Callable[..., tuple[Array, Array]]:
    """A mean face and an orthonormal basis, (D,) and (n, D) float32."""

    def make(genes: int, pixels: int, seed: int = 0) -> tuple[Array, Array]:
        draw = np.random.default_rng(seed)
        rows = np.linalg.qr(draw.normal(size=(pixels, genes)))[0].T
        mean = draw.uniform(-0.5, 0.5, pixels).astype(np.float32)
        return mean, np.ascontiguousarray(rows, np.float32)

    return make


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    """The host build, made anew."""
    try:
        return HostKernels(host_library(tmp_path_factory.mktemp("host")))
    except HostBuildError as error:
        if "PATH" in str(error) or "none" in str(error):
            pytest.skip(str(error))
        raise


class Emulator:
    """Runs the CUDA kernels on the host, see cuda_on_host.h.

    Args:
        library: built from cuda_on_host.cpp.
        backwards: threads and blocks run from the last to the first.
    """

    def __init__(self, library: ctypes.CDLL, backwards: bool) -> None:
        self._library = library
        self._library.run_kernel.restype = ctypes.c_char_p
        self._backwards = backwards

    def launch(self, name: str, grid: tuple[int, ...], block: tuple[int, ...], *given: Any, shared: int = 0) -> None:
        """Run a kernel. Arrays go as pointers and are written to, None as null, int as int, float as float."""
        held = []
        for value in given:
            if value is None or isinstance(value, np.ndarray):
                assert value is None or value.flags.c_contiguous
                held.append(ctypes.c_void_p(None if value is None else value.ctypes.data))
            elif isinstance(value, int):
                held.append(ctypes.c_int(value))
            else:
                held.append(ctypes.c_float(value) if isinstance(value, float) else value)
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
        sizes = [(ctypes.c_uint * 3)(*(*extent, 1, 1)[:3]) for extent in (grid, block)]
        fault = self._library.run_kernel(name.encode(), *sizes, shared, pointers, len(held), int(self._backwards))
        assert fault is None, f"{name}: {fault.decode()}"


@pytest.fixture(scope="session", params=[False, True], ids=["forwards", "backwards"])
def emulator(request: pytest.FixtureRequest, emulator_library: ctypes.CDLL) -> Emulator:
    """The kernels on the host, in both orders of threads and blocks."""
    return Emulator(emulator_library, request.param)
