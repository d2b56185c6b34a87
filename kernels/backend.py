"""Where the products and draws are done: on the CPU, or on a GPU where that is asked for, there, and right."""

from __future__ import annotations

import logging
from typing import Literal, Protocol, get_args

import numpy as np

from immunogate.errors import ImmunogateError, UsageError
from immunogate.kernels import clones
from immunogate.kernels.antibody import cpu_drawer
from immunogate.kernels.cpu import CpuKernels
from immunogate.kernels.device import DeviceError, binding_versions, require_device
from immunogate.kernels.launch import CudaKernels
from immunogate.kernels.reference import CloneKey, Indices, ScoreTerms, gene_weights
from immunogate.structs import Floats, Masks

log = logging.getLogger(__name__)

BackendName = Literal["cpu", "cuda", "auto"]
BACKENDS: tuple[str, ...] = get_args(BackendName)

TRIED_CLONES, TRIED_KEPT = 64, 4
LARGEST_ERROR = 1e-3
"""Of a pixel on a scale of [-1, 1] and, relative to the largest, of a coefficient; float32 sums err far less."""


class Kernels(Protocol):
    """What a purifier needs; see `CpuKernels` and `immunogate.kernels.clones` for each.

    Attributes:
        mean: (D,) float32.
    """

    mean: Floats

    def project(self, faces: Floats) -> Floats:
        """(B, D) to (B, n)."""

    def spectrum(self, faces: Floats, coefficients: Floats) -> Floats:
        """(B, D) and (B, n) to (B, n + 1)."""

    def act(self, coefficients: Floats, weights: Floats, faces: Floats | None = None) -> Floats:
        """(B, n) and (B, m, n) to (B, m, D)."""

    def mutate(self, probabilities: Floats, clones: Indices, key: CloneKey) -> Masks:
        """(B, n) and (B, K) to (B, K, W)."""

    def select_clones(
        self, probabilities: Floats, weights: Indices, count: int, keep: int, key: CloneKey
    ) -> tuple[Indices, Masks]:
        """(B, n) twice to (B, keep) and (B, keep, W)."""

    def close(self) -> None:
        """Give back workers and memory."""


class CpuBackend(CpuKernels):
    """Products by BLAS; draws by the host build where there is one, else by NumPy, with the same bits."""

    def mutate(self, probabilities: Floats, clones: Indices, key: CloneKey) -> Masks:
        """As `immunogate.kernels.clones.mutate`."""
        return cpu_drawer().mutate(probabilities, clones, key)

    def select_clones(
        self, probabilities: Floats, weights: Indices, count: int, keep: int, key: CloneKey
    ) -> tuple[Indices, Masks]:
        """As `immunogate.kernels.clones.select_clones`."""
        return cpu_drawer().select_clones(probabilities, weights, count, keep, key)


def open_kernels(backend: str, mean: Floats, basis: Floats, threads: int | None = None) -> Kernels:
    """The operations over one basis, on the backend that was asked for.

    Args:
        backend: cpu; cuda, which has to be there; auto: cuda where that is there and right, else cpu.
        mean: (D,) float32.
        basis: (n, D) float32.
        threads: of the CPU's products.

    Raises:
        UsageError: an unknown backend.
        DeviceError, CompileError: cuda was asked for and can not be used, or gives other numbers than the CPU.
    """
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}", f"Use one of: {', '.join(BACKENDS)}")
    if backend == "cpu":
        return CpuBackend(mean, basis, threads)
    try:
        return _checked_cuda(mean, basis)
    except ImmunogateError as error:
        if backend == "cuda":
            raise
        log.info("the CPU is used: %s", error)
        return CpuBackend(mean, basis, threads)


def _checked_cuda(mean: Floats, basis: Floats) -> CudaKernels:
    require_device()
    if not any(binding_versions().values()):
        raise DeviceError("neither PyCUDA nor cuda-core is installed", "Run: pip install 'immunogate[gpu]'")
    kernels = CudaKernels(mean, basis)
    try:
        check_against_cpu(kernels, basis)
    except BaseException:
        kernels.close()
        raise
    log.info("products and draws are done by %s through %s", kernels.device.name, kernels.device.binding)
    return kernels


def check_against_cpu(kernels: Kernels, basis: Floats) -> None:
    """One made-up face through a backend and through NumPy: a gate trusts no device that gives other numbers.

    Raises:
        DeviceError: masks or winners differ at all, or pixels or coefficients by more than rounding.
    """
    draw = np.random.default_rng(1)
    face = draw.uniform(-1, 1, (1, basis.shape[1])).astype(np.float32)
    p = draw.uniform(0, 1, (1, len(basis))).astype(np.float32)
    key = CloneKey(2**63 + 5, np.array([7], np.uint32), np.array([9], np.uint32))
    with CpuKernels(kernels.mean, basis, threads=1) as cpu:
        c = cpu.project(face)
        weights = gene_weights(p, c, ScoreTerms(), basis.shape[1])
        winners, masks = clones.select_clones(p, weights, TRIED_CLONES, TRIED_KEPT, key)
        found = kernels.select_clones(p, weights, TRIED_CLONES, TRIED_KEPT, key)
        if not (np.array_equal(found[0], winners) and np.array_equal(found[1], masks)):
            raise DeviceError("the GPU draws other clones than the CPU", "Use --backend cpu, and report the device")
        antibodies = np.stack([p, np.round(p)], axis=1)
        pixels = np.abs(kernels.act(c, antibodies) - cpu.act(c, antibodies)).max()
        coefficients = np.abs(kernels.project(face) - c).max() / max(float(np.abs(c).max()), 1e-6)
    if not (pixels <= LARGEST_ERROR and coefficients <= LARGEST_ERROR):  # so that NaN is no agreement
        raise DeviceError("the GPU computes other pixels than the CPU", "Use --backend cpu, and report the device")
