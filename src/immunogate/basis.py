"""The eigenbasis: the eigenfaces that antibodies are made of, in memory and in ``basis.npz``.

Eigenfaces: Turk and Pentland, "Eigenfaces for Recognition", J. Cognitive Neuroscience 1991. A face x, grey in
[-1, 1], is projected as c = E (x - mu) and rebuilt as mu + E' (a * c). Scores of antibodies use
|E' v| = |v|, which holds only while the rows of E are orthonormal: that is checked whenever a file is loaded.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from immunogate.errors import InputError, UsageError
from immunogate.files import read_bytes, write_whole
from immunogate.npz import Arrays, read_npz
from immunogate.structs import PIXELS, Floats, expect_dtype, expect_shape

Storage = Literal["float32", "float16", "int8"]
STORAGES: tuple[Storage, ...] = get_args(Storage)

FORMAT_VERSION = 1
ORTHONORMAL_LIMIT = 1e-3
"""A loaded basis whose max |E E' - I| reaches this is re-orthonormalised."""

GREY_LEVELS_PER_UNIT = 127.5
"""Faces span [-1, 1], pictures 0 to 255."""

_log = logging.getLogger(__name__)
_LOADED_TARGET = ORTHONORMAL_LIMIT / 5  # one step from int8 rounding; another would bring nothing visible
_CONVERGENT_NORM = 0.9  # 1 in theory; the rest is room for the rounding of float32
_LARGEST_FILE = 1 << 30  # a complete basis of 12,544 eigenfaces in float32 has 630 MB
_KEYS = ("format_version", "storage", "mean", "basis", "eigenvalues", "total_variance", "samples")
_MEND = "Fit the basis again, or copy the file again from where it was made"

LEAST_REMAINDER = 1e-2
"""Length of a remainder (what no eigenface explains) that is rounding: a hundredth of a grey level a pixel."""

MOST_GRAIN = 4 / 127.5
"""What one pixel may add to the grain of a picture (`immunogate.kernels.reference.grain`): four grey levels."""


@dataclass(frozen=True, eq=False)
class Eigenbasis:
    """A mean face and its n leading eigenfaces of D pixels.

    Attributes:
        mean: (D,) float32, the mean face, in [-1, 1].
        basis: (n, D) float32, one eigenface a row, orthonormal, the largest eigenvalue first.
        eigenvalues: (n,) float32 >= 0, descending: variance along each eigenface, divisor samples - 1,
            in squared units of a face (1 unit = 127.5 grey levels).
        total_variance: the same summed over all directions, also those left out; at least sum(eigenvalues).
        samples: how many faces it was fitted on; 0 where that is not known.
        storage: how the eigenfaces were kept in the file they came from: float32, float16 or int8.

    Raises:
        ValueError: a field has another shape, dtype or range; says expected and actual.
    """

    mean: Floats
    basis: Floats
    eigenvalues: Floats
    total_variance: float
    samples: int
    storage: Storage = "float32"

    def __post_init__(self) -> None:
        expect_shape("Eigenbasis.mean", self.mean, (None,))
        expect_shape("Eigenbasis.basis", self.basis, (None, self.pixels))
        expect_shape("Eigenbasis.eigenvalues", self.eigenvalues, (self.components,))
        for name in ("mean", "basis", "eigenvalues"):
            expect_dtype(f"Eigenbasis.{name}", getattr(self, name), np.float32)
            _expect_finite(f"Eigenbasis.{name}", getattr(self, name))
        if not 1 <= self.components <= self.pixels:
            raise ValueError(f"Eigenbasis.basis: expected 1 to {self.pixels} eigenfaces, got {self.components}")
        self._check_mean_range()
        self._check_variances()
        if self.samples < 0:
            raise ValueError(f"Eigenbasis.samples: expected 0 or more, got {self.samples}")
        if self.storage not in STORAGES:
            raise ValueError(f"Eigenbasis.storage: expected one of {STORAGES}, got {self.storage!r}")

    @property
    def components(self) -> int:
        """n, the number of eigenfaces."""
        return len(self.basis)

    @property
    def pixels(self) -> int:
        """D, the number of pixels of a face."""
        return len(self.mean)

    def explained(self) -> npt.NDArray[np.float64]:
        """(n,) float64 in [0, 1]: the share of the total variance that the first 1, 2, ... n eigenfaces hold."""
        total = max(self.total_variance, np.finfo(np.float64).tiny)
        shares: npt.NDArray[np.float64] = np.cumsum(self.eigenvalues, dtype=np.float64) / total
        return np.minimum(shares, 1.0, out=shares)

    def _check_mean_range(self) -> None:
        peak = _largest(self.mean)
        if peak > 1 + 1e-6:
            raise ValueError(f"Eigenbasis.mean: expected values in [-1, 1], got a magnitude of {peak:.6g}")

    def _check_variances(self) -> None:
        if self.eigenvalues[-1] < 0 or np.any(np.diff(self.eigenvalues) > 0):
            raise ValueError("Eigenbasis.eigenvalues: expected descending values >= 0, got another order or sign")
        least = float(self.eigenvalues.sum(dtype=np.float64)) * (1 - 1e-3)  # room for float32 checkpoints
        if not (np.isfinite(self.total_variance) and self.total_variance >= least):
            raise ValueError(
                f"Eigenbasis.total_variance: expected a finite value of at least the eigenvalues' sum "
                f"{least:.6g}, got {self.total_variance}"
            )


@dataclass(frozen=True)
class StorageError:
    """What a storage changes in fully rebuilt faces, in grey levels of 255."""

    max_grey_levels: float
    rms_grey_levels: float


def truncate(basis: Eigenbasis, components: int) -> Eigenbasis:
    """The same basis with its ``components`` leading eigenfaces only (a view, nothing is copied).

    Raises:
        UsageError: fewer than 1 or more than the basis has.
    """
    if not 1 <= components <= basis.components:
        raise UsageError(f"expected 1 to {basis.components} eigenfaces to keep, got {components}")
    return replace(basis, basis=basis.basis[:components], eigenvalues=basis.eigenvalues[:components])


def orthonormality_error(basis: Eigenbasis) -> float:
    """The largest |E E' - I| over all pairs of eigenfaces; in float32, whose own noise is below 1e-6."""
    return _largest(_deviation(basis.basis))


def re_orthonormalise(basis: Eigenbasis, target: float = 1e-5) -> Eigenbasis:
    """The orthonormal basis closest to this one (the polar factor, Löwdin 1950), by Newton-Schulz steps.

    E <- E - (E E' - I) E / 2 squares the error at each step (Higham, "Functions of Matrices", 2008, chapter 8)
    and converges to the polar factor while the spectral norm of E E' - I is below 1. One step mends int8 rounding
    in a third of the time of a QR factorisation, which would also move the rows further from what was stored.

    Args:
        basis: eigenfaces that are nearly orthonormal; returned as it is where it needs no step.
        target: the max |E E' - I| to come below; no less than 1e-6, the noise of float32.

    Raises:
        InputError: the rows are so far from orthonormal that this is no rounding but another kind of data.
    """
    rows, deviation = basis.basis, _deviation(basis.basis)
    if _largest(deviation) <= target:
        return basis
    extremes = np.linalg.eigvalsh(deviation)[[0, -1]]
    if _largest(extremes) >= _CONVERGENT_NORM:
        raise InputError(
            "expected eigenfaces that are orthonormal up to rounding, "
            f"got max |E E' - I| = {_largest(deviation):.3g} and norm {_largest(extremes):.3g}",
            _MEND,
        )
    while _largest(deviation) > target:
        rows = rows - 0.5 * (deviation @ rows)
        deviation = _deviation(rows)
    return replace(basis, basis=rows)


def save_basis(path: Path, basis: Eigenbasis, storage: Storage = "float32") -> None:
    """Write ``basis.npz`` whole or not at all; equal content gives equal bytes.

    ``storage`` sets how the eigenfaces are kept; mean and eigenvalues stay float32. int8 has one scale an
    eigenface, max |row| / 127. Both smaller forms lose precision: `storage_error` tells how much.

    Raises:
        UsageError: no such storage, or the file can not be written.
    """
    arrays: dict[str, Any] = dict(_encoded(basis, storage))

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:  # a stream: given a name, numpy might append ".npz" to it
            np.savez(stream, **arrays)

    write_whole(path, write)


def load_basis(path: Path, pixels: int | None = PIXELS) -> Eigenbasis:
    """Read ``basis.npz``; see `basis_from_bytes`.

    Raises:
        UsageError: the file is not there or can not be read.
        InputError: it is not an eigenbasis of ``pixels`` pixels.
    """
    return basis_from_bytes(read_bytes(path, _LARGEST_FILE), str(path), pixels)


def basis_from_bytes(data: bytes, origin: str, pixels: int | None = PIXELS) -> Eigenbasis:
    """The eigenbasis in the bytes of a ``basis.npz``, in float32 whatever its storage, checked and orthonormal.

    Where max |E E' - I| reaches 1e-3 the rows are re-orthonormalised, and a warning says so. float16 stays far
    below (2e-5); int8 comes close to the limit (8e-4 for 1,500 eigenfaces of 3,889 faces) and may pass it.

    Args:
        data: content of the file.
        origin: what errors call the file, usually its path.
        pixels: D that the caller needs; None takes any.

    Raises:
        InputError: not an .npz, cut short, damaged, of another version, or with fields of another shape, dtype or
            range; says expected and actual.
    """
    arrays = read_npz(io.BytesIO(data), origin, _KEYS, ("scale",), _LARGEST_FILE)
    try:
        basis = _decoded(arrays)
        if pixels is not None:
            expect_shape("Eigenbasis.mean", basis.mean, (pixels,))
    except ValueError as error:
        raise InputError(f"{origin}: {error}", _MEND) from error
    return _orthonormal(basis, origin)


def storage_error(basis: Eigenbasis, storage: Storage, faces: Floats) -> StorageError:
    """How ``storage`` changes mu + E' E (x - mu), as it would be after saving and loading.

    Args:
        basis: the basis before it is stored.
        storage: float32, float16 or int8.
        faces: (B, D) float32 in [-1, 1], at least one.

    Raises:
        UsageError: no such storage.
        ValueError: faces of another shape or dtype.
    """
    expect_shape("faces", faces, (None, basis.pixels))
    expect_dtype("faces", faces, np.float32)
    stored = _orthonormal(_decoded(_encoded(basis, storage)), storage)
    centred = faces - basis.mean
    change = (centred @ stored.basis.T) @ stored.basis - (centred @ basis.basis.T) @ basis.basis
    change *= GREY_LEVELS_PER_UNIT
    return StorageError(
        max_grey_levels=_largest(change),
        rms_grey_levels=float(np.sqrt(np.mean(np.square(change), dtype=np.float64))),
    )


def _deviation(rows: Floats) -> Floats:
    deviation: Floats = rows @ rows.T
    deviation[np.diag_indices_from(deviation)] -= 1
    return deviation


def _largest(array: Floats) -> float:
    return float(np.abs(array).max())


def _orthonormal(basis: Eigenbasis, origin: str) -> Eigenbasis:
    error = orthonormality_error(basis)
    if error < ORTHONORMAL_LIMIT:
        return basis
    try:
        mended = re_orthonormalise(basis, _LOADED_TARGET)
    except InputError as refused:
        raise InputError(f"{origin}: {refused.what}", refused.mend) from refused
    _log.warning("%s: max |E E' - I| was %.2g, the eigenfaces were re-orthonormalised", origin, error)
    return mended


def _encoded(basis: Eigenbasis, storage: Storage) -> Arrays:
    if storage not in STORAGES:
        raise UsageError(f"no storage is called {storage!r}", f"Use one of {', '.join(STORAGES)}")
    arrays: Arrays = {
        "format_version": np.array(FORMAT_VERSION, np.int64),
        "storage": np.array(storage),
        "mean": basis.mean,
        "basis": basis.basis.astype(np.float16 if storage == "float16" else np.float32, copy=False),
        "eigenvalues": basis.eigenvalues,
        "total_variance": np.array(basis.total_variance, np.float64),
        "samples": np.array(basis.samples, np.int64),
    }
    if storage == "int8":
        scale = np.maximum(np.abs(basis.basis).max(axis=1), np.float32(1e-30)) / np.float32(127)
        arrays["scale"] = scale
        arrays["basis"] = np.rint(basis.basis / scale[:, None]).astype(np.int8)
    return arrays


def _decoded(arrays: Arrays) -> Eigenbasis:
    """ValueError, saying expected and actual, for whatever does not fit."""
    version = _scalar(arrays, "format_version", "i")
    if version != FORMAT_VERSION:
        raise ValueError(f"format_version: expected {FORMAT_VERSION}, got {version}")
    storage = cast(Storage, str(_scalar(arrays, "storage", "U")))
    if storage not in STORAGES:
        raise ValueError(f"storage: expected one of {STORAGES}, got {storage!r}")
    return Eigenbasis(
        mean=arrays["mean"],
        basis=_dequantised(arrays, storage),
        eigenvalues=arrays["eigenvalues"],
        total_variance=float(_scalar(arrays, "total_variance", "f")),
        samples=int(_scalar(arrays, "samples", "i")),
        storage=storage,
    )


def _dequantised(arrays: Arrays, storage: Storage) -> Floats:
    rows = arrays["basis"]
    expect_shape("basis", rows, (None, None))
    expect_dtype("basis", rows, np.dtype(storage).type)
    if storage == "int8":
        if "scale" not in arrays:
            raise ValueError("scale: expected one number an eigenface beside an int8 basis, got none")
        expect_shape("scale", arrays["scale"], (len(rows),))
        expect_dtype("scale", arrays["scale"], np.float32)
        rows = rows * arrays["scale"][:, None]
    dequantised: Floats = np.ascontiguousarray(rows, dtype=np.float32)
    return dequantised


def _scalar(arrays: Arrays, key: str, kind: str) -> Any:
    """The single value at ``key``, of NumPy's dtype kind ``kind``."""
    value = arrays[key]
    if value.ndim != 0 or value.dtype.kind != kind:
        raise ValueError(f"{key}: expected a single value of kind {kind!r}, got shape {value.shape} of {value.dtype}")
    return value.item()


def _expect_finite(name: str, array: Floats) -> None:
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise ValueError(f"{name}: expected finite values only, got {bad} that are NaN or infinite")
