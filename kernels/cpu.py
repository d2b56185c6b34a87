"""Products with the eigenfaces on the CPU: as few reads of the basis as the mode allows, and the same bits always.

The basis (75 MB at the paper's size) does not fit a cache, so time is bytes over bandwidth. It is walked in chunks
of rows; each product of one face with one chunk is one single-threaded BLAS call of a fixed shape, and chunks are
summed in their order. So a face's coefficients and pixels do not depend on its batch, its place in it, the number
of threads, or on who else computes at the time, and all faces of a batch share one read. Rows that an antibody leaves
out are not read where few are chosen. Reading each chunk once for both products, while a cache holds it, was tried and
is not faster: the second product then runs at the speed of the last-level cache on one thread instead of at the
memory's on all.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import numpy as np
from threadpoolctl import ThreadpoolController

from immunogate.basis import LEAST_REMAINDER
from immunogate.structs import Floats, expect_dtype, expect_shape

CHUNK = 250
"""Rows of the basis in one BLAS call: 12.5 MB, small enough to be met again in a last-level cache."""

DENSE = 0.6
"""Share of chosen rows in a chunk above which reading all of it beats gathering the chosen ones."""

_alone = threading.Lock()
"""Held during a product: the limit to one BLAS thread is the whole process's, and where two products overlapped, the
first to end would lift it under the other, whose sums would then be split differently. One product alone already
draws the memory bus full, so little is lost."""


def usable_threads() -> int:
    """Processors this process may use, at most four: more pay neither for these products nor for small networks."""
    return min(4, len(os.sched_getaffinity(0)))


class CpuKernels:
    """project and act over one basis, held as float32.

    Args:
        mean: (D,) float32, the mean face.
        basis: (n, D) float32, rows are orthonormal eigenfaces.
        threads: that share a product, the caller's among them; by default one for each processor this process may
            use, at most four, since two or three already draw a memory bus full.
    """

    def __init__(self, mean: Floats, basis: Floats, threads: int | None = None) -> None:
        expect_shape("basis", basis, (None, None))
        expect_dtype("basis", basis, np.float32)
        expect_shape("mean", mean, (basis.shape[1],))
        self.mean = np.ascontiguousarray(mean, np.float32)
        self.basis = np.ascontiguousarray(basis)
        self._chunks = [slice(i, min(i + CHUNK, len(basis))) for i in range(0, len(basis), CHUNK)]
        self._helpers = (threads or usable_threads()) - 1
        self._pool = ThreadPoolExecutor(self._helpers, "immunogate-kernels") if self._helpers else None
        self._blas = ThreadpoolController()

    def project(self, faces: Floats) -> Floats:
        """Coefficients c = E (x - mu): (B, D) float32 in [-1, 1] to (B, n) float32, in one read of the basis.

        Raises:
            ValueError: an array of another shape or dtype.
        """
        centred = self._centred(faces)
        coefficients = np.empty((len(faces), len(self.basis)), np.float32)

        def work(chunk: slice) -> None:
            rows = self.basis[chunk]
            for face, x in enumerate(centred):
                np.dot(rows, x, out=coefficients[face, chunk])

        self._each_chunk(work)
        return coefficients

    def spectrum(self, faces: Floats, coefficients: Floats) -> Floats:
        """The coefficients and, last, the length of the remainder, (B, n + 1) float32; see `reference.spectrum`.

        Raises:
            ValueError: an array of another shape or dtype.
        """
        expect_shape("coefficients", coefficients, (len(faces), len(self.basis)))
        centred = self._centred(faces)
        # In double precision, for these sums nearly cancel, and without BLAS, which splits long sums among threads.
        rest = [
            np.square(x, dtype=np.float64).sum() - np.square(c, dtype=np.float64).sum()
            for x, c in zip(centred, coefficients, strict=True)
        ]
        length = np.sqrt(np.maximum(np.array(rest, np.float64), LEAST_REMAINDER**2)).astype(np.float32)
        return np.concatenate([coefficients, length.reshape(-1, 1)], axis=1)

    def act(self, coefficients: Floats, weights: Floats, faces: Floats | None = None) -> Floats:
        """Purified faces mu + E^T (a c), gated + g r, in one read of the basis: (B, m, D) float32.

        Args:
            coefficients: (B, n) float32.
            weights: (B, m, n) float32 in [0, 1]; gated (B, m, n + 1) with g last.
            faces: (B, D) float32, needed where the weights are gated.

        Raises:
            ValueError: an array of another shape or dtype.
        """
        if weights.shape[-1] == len(self.basis) + 1:
            if faces is None:
                raise ValueError("faces: gated antibodies need them, got None")
            expect_dtype("weights", weights, np.float32)
            expect_shape("faces", faces, (len(coefficients), None))
            gate = weights[..., -1:]
            return self.act(coefficients, weights[..., :-1] - gate) + gate * self._centred(faces)[:, None, :]
        expect_shape("coefficients", coefficients, (None, len(self.basis)))
        expect_shape("weights", weights, (len(coefficients), None, len(self.basis)))
        expect_dtype("coefficients", coefficients, np.float32)
        expect_dtype("weights", weights, np.float32)
        batch, kept, genes = weights.shape
        scaled = (weights * coefficients[:, None, :]).reshape(batch * kept, genes)
        parts: dict[int, list[Floats | None]] = {}

        def work(chunk: slice) -> None:
            parts[chunk.start] = [self._part(chunk, row[chunk]) for row in scaled]

        self._each_chunk(work)
        total = np.tile(self.mean, (len(scaled), 1))
        for chunk in self._chunks:  # in the order of the rows, whichever thread was first
            for row, addend in enumerate(parts[chunk.start]):
                if addend is not None:
                    total[row] += addend
        return total.reshape(batch, kept, len(self.mean))

    def close(self) -> None:
        """Stop the worker threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> CpuKernels:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _centred(self, faces: Floats) -> Floats:
        expect_shape("faces", faces, (None, len(self.mean)))
        expect_dtype("faces", faces, np.float32)
        return np.subtract(faces, self.mean, dtype=np.float32)

    def _part(self, chunk: slice, scaled: Floats) -> Floats | None:
        """What a chunk adds to one face; rows with weight 0 are read only where that is cheaper than gathering."""
        chosen = np.flatnonzero(scaled)
        if len(chosen) == 0:
            return None
        if len(chosen) > DENSE * len(scaled):
            return scaled @ self.basis[chunk]
        return scaled[chosen] @ self.basis[chunk][chosen]

    def _each_chunk(self, work: Callable[[slice], None]) -> None:
        """Do the work for every chunk; the calling thread takes its share, since waking another one costs time."""
        left = iter(self._chunks)  # shared: whoever is free takes the next one

        def take() -> None:
            for chunk in left:
                work(chunk)

        with _alone, self._blas.limit(limits=1, user_api="blas"):
            others = [self._pool.submit(take) for _ in range(self._helpers)] if self._pool else []
            try:
                take()
            finally:
                for other in others:
                    other.result()
