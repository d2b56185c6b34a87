"""The operations of the antibody in compiled C++ on the CPU, with the names and signatures of `reference`.

It is the CUDA kernels' arithmetic (the same headers) and gives the same bits as they and as `reference` in whatever
decides. mutate, mutate_score and select_clones are also the CPU's fastest form; project and act follow the kernels'
order of summing, are slower than `cpu`, which uses BLAS, and serve as the kernels' twin.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.kernels.host_build import HostBuildError, host_library
from immunogate.kernels.philox import U32, round_keys
from immunogate.kernels.reference import WEIGHT_LIMIT, CloneKey, Indices, ScoreTerms
from immunogate.structs import Floats, Masks, expect_dtype, expect_shape

log = logging.getLogger(__name__)

Basis = npt.NDArray[Any]
"""(n, D) float32, float16, or int8 with a scale for each row."""

MOST_GENES = 4096
MOST_CLONES = 4096
BAD_PROBABILITY, BAD_WEIGHT = 1, 2
"""Bits of what the library returns: STATUS_PROBABILITY and STATUS_WEIGHT of antibody.cuh."""

_SUFFIXES = {np.dtype(np.float32): "f32", np.dtype(np.float16): "f16", np.dtype(np.int8): "i8"}
_KNOWN_WORDS = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
_lock = threading.Lock()
_found: list[HostKernels | None] = []


def host_kernels() -> HostKernels | None:
    """The host build, or None where it can not be had; looked for once, and at the very first time built, in seconds.

    A reason for None is logged, once. Results do not depend on it.
    """
    with _lock:
        if not _found:
            try:
                _found.append(HostKernels(host_library()))
                log.info("clones are drawn by compiled code")
            except HostBuildError as error:
                _found.append(None)
                log.info("clones are drawn by NumPy: %s", error)
        return _found[0]


class HostKernels:
    """A loaded host library.

    Args:
        path: of the library, see `immunogate.kernels.host_build.host_library`.

    Raises:
        HostBuildError: it can not be loaded, or does not give the published answer of Philox4x32-10.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
            words = self.philox4x32(np.zeros(4, np.uint32), 0)
        except (OSError, AttributeError) as error:
            raise HostBuildError(f"{path} can not be loaded: {error}", "Delete it: it is built again") from error
        if tuple(words.tolist()) != _KNOWN_WORDS:
            raise HostBuildError(f"{path} computes wrongly: Philox of zero is {words}", "Try another compiler")

    def philox4x32(self, counters: U32, seed: int) -> U32:
        """As `philox.philox4x32`."""
        round_keys(seed)
        given = np.ascontiguousarray(counters, np.uint32)
        words = np.empty_like(given)
        self._call("host_philox", given, ctypes.c_int64(given.size // 4), ctypes.c_uint64(seed), words)
        return words

    def gene_weights(self, probabilities: Floats, coefficients: Floats, terms: ScoreTerms, pixels: int) -> Indices:
        """As `reference.gene_weights` of float32 arrays; a logarithm of its own, see antibody.cuh.

        A weight could differ by one step of 2^-16 where it lies within about 1e-10 steps of the middle between two.

        Raises:
            ValueError: a weight would be NaN, a probability is not in [0, 1], or shapes or dtypes do not fit.
        """
        _expect_floats("probabilities", probabilities, (None, None))
        _expect_floats("coefficients", coefficients, probabilities.shape)
        weights = np.empty(probabilities.shape, np.int64)
        numbers = [ctypes.c_double(number) for number in (terms.residual, terms.size, terms.likelihood)]
        given = np.ascontiguousarray(probabilities), np.ascontiguousarray(coefficients)
        status = self._call("host_gene_weights", *given, weights, ctypes.c_int64(weights.size), pixels, *numbers)
        if status & BAD_WEIGHT:
            raise ValueError("gene weights: expected numbers, got NaN from probabilities, coefficients or terms")
        _refuse(status)
        return weights

    def mutate(self, probabilities: Floats, clones: Indices, key: CloneKey) -> Masks:
        """As `reference.mutate`, at most 4096 genes."""
        batch, genes = self._checked(probabilities, key)
        expect_shape("clones", clones, (batch, None))
        masks = np.empty((*clones.shape, -(-genes // 32)), np.uint32)
        given = np.ascontiguousarray(probabilities), np.ascontiguousarray(clones, np.uint32), *_words(key)
        _refuse(self._call("host_mutate", *given, masks, ctypes.c_uint64(key.seed), batch, clones.shape[1], genes))
        return masks

    def mutate_score(self, probabilities: Floats, weights: Indices, count: int, key: CloneKey) -> Indices:
        """As `immunogate.kernels.clones.mutate_score`: the scores of the clones 0 .. count - 1, (B, count) int64."""
        return self._drawn(probabilities, weights, count, 0, key)[0]

    def select_clones(
        self, probabilities: Floats, weights: Indices, count: int, keep: int, key: CloneKey
    ) -> tuple[Indices, Masks]:
        """Draw, score and select in one: the winners (B, keep) int64, best first, and their masks (B, keep, W).

        Raises:
            ValueError: count is not in 1 .. 4096 or keep not in 1 .. count, or as `mutate_score`.
        """
        if not 1 <= count <= MOST_CLONES:
            raise ValueError(f"count: expected 1 .. {MOST_CLONES}, got {count}")
        if not 1 <= keep <= count:
            raise ValueError(f"keep: expected 1 .. {count}, got {keep}")
        return self._drawn(probabilities, weights, count, keep, key)[1:]

    def project(self, faces: Floats, mean: Floats, basis: Basis, row_scales: Floats | None = None) -> Floats:
        """As `reference.project` in float32, in the kernels' order of summing: (B, n).

        Raises:
            ValueError: an array of another shape or dtype.
        """
        rows, pixels = basis.shape
        _expect_floats("mean", mean, (pixels,))
        _expect_floats("faces", faces, (None, pixels))
        coefficients = np.empty((len(faces), rows), np.float32)
        parts = _basis_parts(basis, row_scales)
        given = np.ascontiguousarray(mean), np.ascontiguousarray(faces), coefficients
        self._call(f"host_project_{_suffix(basis)}", *parts, *given, len(faces), rows, pixels, pixels)
        return coefficients

    def act(
        self,
        coefficients: Floats,
        weights: Floats,
        mean: Floats,
        basis: Basis,
        faces: Floats | None = None,
        row_scales: Floats | None = None,
        *,
        listed: bool = False,
    ) -> Floats:
        """As `reference.act` in float32, in the kernels' order of summing: (B, m, D).

        Args:
            coefficients: (B, n) float32.
            weights: (B, m, n) float32; gated (B, m, n + 1).
            mean: (D,).
            basis: (n, D).
            faces: (B, D), needed where gated.
            row_scales: (n,) float32, for int8.
            listed: sum in the order of act_chosen (rows that act), not in that of act_dense (all rows).

        Raises:
            ValueError: an array of another shape or dtype, or gated antibodies without faces.
        """
        rows, pixels = basis.shape
        _expect_floats("coefficients", coefficients, (None, rows))
        _expect_floats("weights", weights, (len(coefficients), None, rows + (weights.shape[-1] > rows)))
        _expect_floats("mean", mean, (pixels,))
        batch, keep, genes = weights.shape
        if genes > rows:
            if faces is None:
                raise ValueError("faces: gated antibodies need them, got None")
            _expect_floats("faces", faces, (batch, pixels))
            faces = np.ascontiguousarray(faces)
        sums, purified = np.empty((16, pixels), np.float32), np.empty((batch, keep, pixels), np.float32)
        parts = _basis_parts(basis, row_scales)
        given = [np.ascontiguousarray(array) for array in (mean, coefficients, weights)]
        sizes = batch, keep, rows, genes, pixels, pixels, int(listed)
        self._call(f"host_act_{_suffix(basis)}", *parts, *given, faces, sums, purified, *sizes)
        return purified

    def _drawn(
        self, probabilities: Floats, weights: Indices, count: int, keep: int, key: CloneKey
    ) -> tuple[Indices, Indices, Masks]:
        batch, genes = self._checked(probabilities, key)
        expect_shape("weights", weights, probabilities.shape)
        if weights.size and int(np.abs(weights).max()) > WEIGHT_LIMIT:
            raise ValueError(f"weights: expected values within +-{WEIGHT_LIMIT}")
        scores, winners = np.empty((batch, count), np.int64), np.empty((batch, keep), np.int64)
        masks = np.empty((batch, keep, -(-genes // 32)), np.uint32)
        given = np.ascontiguousarray(probabilities), np.ascontiguousarray(weights, np.int64), *_words(key)
        seed, sizes = ctypes.c_uint64(key.seed), (batch, count, keep, genes)
        _refuse(self._call("host_select", *given, scores, winners, masks, seed, *sizes))
        return scores, winners, masks

    def _checked(self, probabilities: Floats, key: CloneKey) -> tuple[int, int]:
        _expect_floats("probabilities", probabilities, (None, None))
        batch, genes = probabilities.shape
        expect_shape("CloneKey.faces", key.faces, (batch,))
        round_keys(key.seed)
        if genes > MOST_GENES:
            raise ValueError(f"probabilities: expected at most {MOST_GENES} genes, got {genes}")
        return batch, genes

    def _call(self, name: str, *arguments: Any) -> int:
        """Call a function: arrays go as pointers, whole numbers as int; the library takes no other."""
        passed = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments]
        function = getattr(self._library, name)
        function.restype = ctypes.c_uint32
        return int(function(*passed))


def _expect_floats(name: str, array: npt.NDArray[Any], shape: tuple[int | None, ...]) -> None:
    expect_shape(name, array, shape)
    expect_dtype(name, array, np.float32)


def _suffix(basis: Basis) -> str:
    if basis.dtype not in _SUFFIXES:
        raise ValueError(f"basis: expected float32, float16 or int8, got {basis.dtype}")
    return _SUFFIXES[basis.dtype]


def _basis_parts(basis: Basis, row_scales: Floats | None) -> tuple[Basis, Floats | None]:
    if (row_scales is not None) != (basis.dtype == np.int8):
        raise ValueError("row_scales: expected with an int8 basis and with no other")
    if row_scales is not None:
        _expect_floats("row_scales", row_scales, (len(basis),))
        row_scales = np.ascontiguousarray(row_scales)
    return np.ascontiguousarray(basis), row_scales


def _words(key: CloneKey) -> tuple[U32, U32]:
    return np.ascontiguousarray(key.frames), np.ascontiguousarray(key.faces)


def _refuse(status: int) -> None:
    if status & BAD_PROBABILITY:
        raise ValueError("probabilities: expected values in [0, 1]")
