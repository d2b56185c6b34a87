"""The implementations that the parity tests compare with the definition: a new one is one more entry in BACKENDS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from immunogate.kernels import clones, reference
from immunogate.kernels.cpu import CpuKernels
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


BACKENDS = [
    Backend("reference", reference.mutate, _reference_scores, reference.select, reference.project, reference.act),
    Backend("numpy", clones.mutate, clones.mutate_score, reference.select, _cpu_project, _cpu_act),
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
