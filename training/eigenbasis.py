"""Fit the eigenbasis: principal component analysis of aligned faces, in NumPy and exact.

N faces of D pixels have at most min(N - 1, D) eigenfaces. The smaller of two symmetric matrices is decomposed:
the Gram matrix X X' (N x N) for few faces (the snapshot method: Sirovich and Kirby, J. Opt. Soc. Am. A 1987),
else the covariance X' X (D x D). Both are summed in float64 over blocks, since the Gram matrix squares the
condition number and float32 would lose the small eigenfaces. No float64 copy of all faces is ever made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.basis import Eigenbasis, re_orthonormalise
from immunogate.errors import InputError, UsageError

Progress = Callable[[str, float], None]
"""Called with the step's name (mean, products, decomposition, eigenfaces) and how much of it is done, 0 to 1."""

Doubles = npt.NDArray[np.float64]

RANK_TOLERANCE = 1e-10
"""A direction with less than this share of the leading eigenvalue is rounding (a deviation 1e-5 as large)."""

_SMALLEST_VARIANCE = 1e-14  # the square of float32's rounding at 1: faces that differ by less are the same
_BLOCK = 1024
_log = logging.getLogger(__name__)


def fit_eigenbasis(faces: npt.NDArray[Any], components: int, progress: Progress | None = None) -> Eigenbasis:
    """The mean face and the ``components`` leading eigenfaces, each with its largest entry positive.

    Memory: about 5 m^2 x 8 bytes with m = min(N, D), beside the faces themselves (0.7 GB for 3,889 faces, 6.5 GB
    at the most); time grows with m^3. Faces may be a memory map of any length: they are read in blocks.

    Args:
        faces: (N, 112, 112) uint8, 0 to 255, or (N, D) floats in [-1, 1]; either may have two or three dimensions.
        components: n, from 1 to min(N - 1, D).
        progress: told about every block.

    Returns:
        The basis in float32, max |E E' - I| < 1e-5, eigenvalues with divisor N - 1. The same faces give the same
        basis up to the rounding of the linear algebra library.

    Raises:
        UsageError: more components than faces or pixels allow.
        InputError: faces of another shape or dtype, fewer than two, not finite, out of range, or so alike that
            fewer components can be had; says how many.
    """
    report = progress or _ignore
    centred = _centre(faces, components, report)
    by_gram = centred.count <= centred.pixels
    products = _gram(centred, report) if by_gram else _scatter(centred, report)
    total = float(np.trace(products))
    report("decomposition", 0.0)
    values, vectors = np.linalg.eigh(products)
    del products
    report("decomposition", 1.0)
    values, vectors = values[::-1], vectors[:, ::-1]  # ascending from LAPACK
    _check_rank(values / (centred.count - 1), components, centred)
    values, vectors = values[:components], vectors[:, :components]
    rows = _eigenfaces(centred, values, vectors, report) if by_gram else vectors.T
    divisor = centred.count - 1
    basis = Eigenbasis(
        mean=centred.mean.astype(np.float32),
        basis=np.ascontiguousarray(rows, dtype=np.float32),
        eigenvalues=(values / divisor).astype(np.float32),
        total_variance=total / divisor,
        samples=centred.count,
    )
    return _with_signs(re_orthonormalise(basis))


@dataclass(frozen=True, eq=False)
class _Centred:
    """Faces minus their mean, made block by block in float64."""

    faces: npt.NDArray[Any]  # (N, D) uint8 or floats
    mean: Doubles  # (D,)

    @property
    def count(self) -> int:
        return int(self.faces.shape[0])

    @property
    def pixels(self) -> int:
        return int(self.faces.shape[1])

    def rows(self, block: slice) -> Doubles:
        """(rows of the block, D)."""
        unit = _in_unit_range(self.faces[block])
        unit -= self.mean
        return unit

    def columns(self, block: slice) -> Doubles:
        """(N, columns of the block)."""
        unit = _in_unit_range(self.faces[:, block])
        unit -= self.mean[block]
        return unit


def _ignore(step: str, done: float) -> None:
    """Nobody asked for the progress."""


def _blocks(length: int, step: str, report: Progress) -> Iterator[slice]:
    for start in range(0, length, _BLOCK):
        yield slice(start, min(start + _BLOCK, length))
        report(step, min(start + _BLOCK, length) / length)


def _in_unit_range(block: npt.NDArray[Any]) -> Doubles:
    unit = block.astype(np.float64)
    if block.dtype == np.uint8:
        unit /= 127.5
        unit -= 1
    return unit


def _centre(faces: npt.NDArray[Any], components: int, report: Progress) -> _Centred:
    if faces.ndim not in (2, 3) or (faces.dtype != np.uint8 and faces.dtype.kind != "f"):
        raise InputError(
            f"faces: expected (N, 112, 112) uint8 or (N, D) floats, got shape {faces.shape} of {faces.dtype}"
        )
    count = len(faces)
    if count < 2 or faces.size == 0:
        raise InputError(f"faces: expected two faces or more, got {faces.shape}", "Give more faces")
    flat = faces.reshape(count, -1)
    most = min(count - 1, flat.shape[1])
    if not 1 <= components <= most:
        raise UsageError(
            f"{count} faces of {flat.shape[1]} pixels have 1 to {most} components, got {components}",
            "Ask for fewer components or give more faces",
        )
    total = np.zeros(flat.shape[1], np.float64)
    for block in _blocks(count, "mean", report):
        rows = _in_unit_range(flat[block])
        _check_values(rows, block.start)
        total += rows.sum(axis=0)
    return _Centred(flat, total / count)


def _check_values(rows: Doubles, first: int) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise InputError(f"faces: expected finite values, got NaN or infinity in face {first + int(bad[0])}")
    low, high = float(rows.min()), float(rows.max())
    if low < -1 - 1e-6 or high > 1 + 1e-6:
        raise InputError(
            f"faces: expected values in [-1, 1], got {low:.4g} to {high:.4g}",
            "Scale pictures as x / 127.5 - 1, or give them as uint8",
        )


def _gram(centred: _Centred, report: Progress) -> Doubles:
    products = np.zeros((centred.count, centred.count), np.float64)
    for block in _blocks(centred.pixels, "products", report):
        columns = centred.columns(block)
        products += columns @ columns.T
    return products


def _scatter(centred: _Centred, report: Progress) -> Doubles:
    products = np.zeros((centred.pixels, centred.pixels), np.float64)
    for block in _blocks(centred.count, "products", report):
        rows = centred.rows(block)
        products += rows.T @ rows
    return products


def _check_rank(variances: Doubles, components: int, centred: _Centred) -> None:
    limit = max(RANK_TOLERANCE * float(variances[0]), _SMALLEST_VARIANCE)
    rank = int(np.count_nonzero(variances > limit))
    if components > rank:
        raise InputError(
            f"the {centred.count} faces are so alike that only {rank} components can be had, not {components}",
            f"Ask for {rank} at most, or leave copies out and give more different faces" if rank else "",
        )
    most = min(centred.count - 1, centred.pixels)
    if rank < most:
        _log.warning("%d faces span %d directions instead of %d: some are copies", centred.count, rank, most)


def _eigenfaces(centred: _Centred, values: Doubles, vectors: Doubles, report: Progress) -> npt.NDArray[np.float32]:
    """(n, D) X' v / sqrt(lambda) for the eigenvectors v of X X'."""
    weights = (vectors / np.sqrt(values)).T
    rows = np.empty((len(weights), centred.pixels), np.float32)
    for block in _blocks(centred.pixels, "eigenfaces", report):
        rows[:, block] = weights @ centred.columns(block)
    return rows


def _with_signs(basis: Eigenbasis) -> Eigenbasis:
    """An eigenvector's sign is arbitrary: make the largest entry positive, so that fits can be compared."""
    rows = basis.basis
    peaks = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)]
    signs = np.where(peaks < 0, -1, 1).astype(np.float32)
    return replace(basis, basis=rows * signs[:, None])
