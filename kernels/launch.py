"""The operations of the antibody on a GPU: NumPy in and out, with the names and signatures of the CPU's.

`CudaKernels` is to a GPU what `immunogate.kernels.cpu.CpuKernels` and `immunogate.kernels.clones` are to a CPU: the
same masks and winners bit for bit, pixels to float rounding. Thresholds and gene weights come in as whole numbers, so
that what decides is computed in one place. Whoever keeps arrays on the device uses `immunogate.kernels.queued`.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.errors import UsageError
from immunogate.kernels.device import Buffer, Device, View, open_device
from immunogate.kernels.queued import MOST_CLONES, MOST_GENES, MOST_KEPT, SLICE, Clones, DeviceBasis, Pictures, Queued
from immunogate.kernels.reference import WEIGHT_LIMIT, CloneKey, Indices, select, thresholds
from immunogate.kernels.workspace import Workspace
from immunogate.structs import Floats, Masks, expect_dtype, expect_shape

ELEMENTS = {"fp32": "f32", "fp16": "f16", "int8": "i8"}
"""Precisions of the stored eigenfaces, and how kernels are named for them. All sums are float32."""

ALIGNED = 16
"""Rows are stored in multiples of so many elements, so that each begins where wide loads may."""

SHARED_READ = 8
"""Pictures for which the dense product reads the eigenfaces once."""


class CudaKernels:
    """All operations of the antibody over one basis that is held on a GPU.

    Args:
        mean: (D,) float32, the mean face.
        basis: (n, D) float32, rows are orthonormal eigenfaces, n <= 4096.
        device: where; by default the first one, opened for this object alone. It belongs to the thread that opened it.
        precision: fp32, fp16 or int8, in which the eigenfaces are stored.

    Raises:
        DeviceError: there is no device, no driver or no binding.
        CompileError: there is no code for this device and no compiler.
        UsageError: an unknown precision.
        ValueError: an array of another shape or dtype.
    """

    def __init__(self, mean: Floats, basis: Floats, device: Device | None = None, precision: str = "fp32") -> None:
        expect_shape("basis", basis, (None, None))
        expect_dtype("basis", basis, np.float32)
        expect_shape("mean", mean, (basis.shape[1],))
        if precision not in ELEMENTS:
            raise UsageError(f"unknown precision {precision!r}", f"Use one of: {', '.join(ELEMENTS)}")
        if len(basis) > MOST_GENES:
            raise UsageError(f"the GPU's kernels take at most {MOST_GENES} eigenfaces, got {len(basis)}")
        self.mean = np.ascontiguousarray(mean, np.float32)
        self._closing = ExitStack()
        try:
            self._set_up(device or self._closing.enter_context(open_device()), basis, precision)
        except BaseException:
            self._closing.close()
            raise

    def _set_up(self, device: Device, basis: Floats, precision: str) -> None:
        self.device = device
        self.queued = Queued(device)
        self._closing.callback(self.queued.close)
        self.queued.load("project", "select", "act")  # what is missing is said now and not at the first face
        self.stream = device.stream()
        self._closing.callback(self.stream.close)
        self._work = Workspace(device, self.stream)
        self._closing.callback(self._work.close)
        rows, scales = stored_rows(basis, precision)
        self.basis = DeviceBasis(
            self._upload(rows), None if scales is None else self._upload(scales), self._upload(self.mean),
            ELEMENTS[precision],
        )  # fmt: skip

    def _upload(self, values: npt.NDArray[Any]) -> Buffer:
        buffer = self.device.upload(values, self.stream)
        self._closing.callback(buffer.close)
        return buffer

    def project(self, faces: Floats) -> Floats:
        """Coefficients c = E (x - mu): (B, D) float32 in [-1, 1] to (B, n) float32.

        Raises:
            ValueError: an array of another shape or dtype.
        """
        self._expect_faces(faces)
        batch, rows = len(faces), self.basis.count
        if not batch:
            return np.empty((0, rows), np.float32)
        on_device = self._work.put("faces", faces)
        partial = self._work.empty("partial", (-(-self.basis.pixels // SLICE), batch, rows), np.float32)
        coefficients = self._work.empty("coefficients", (batch, rows), np.float32)
        self.queued.project(self.stream, self.basis, on_device, partial)
        self.queued.spectrum(self.stream, self.basis, partial, on_device, coefficients, None, 0)
        return coefficients.get(self.stream)

    def spectrum(self, faces: Floats, coefficients: Floats) -> Floats:
        """The coefficients and, last, the length of the remainder, (B, n + 1) float32; see `reference.spectrum`.

        Raises:
            ValueError: an array of another shape or dtype.
        """
        self._expect_faces(faces)
        batch, rows = len(faces), self.basis.count
        self._expect_coefficients(coefficients, batch)
        if not batch:
            return np.empty((0, rows + 1), np.float32)
        inputs = self._work.empty("inputs", (batch, rows + 2), np.float32)
        self.queued.spectrum(
            self.stream, self.basis, self._work.put("partial", coefficients[None]), self._work.put("faces", faces),
            self._work.empty("coefficients", (batch, rows), np.float32), inputs, 0, scaled=False,
        )  # fmt: skip
        return inputs.get(self.stream)[:, :-1]

    def act(self, coefficients: Floats, weights: Floats, faces: Floats | None = None) -> Floats:
        """Purified faces mu + E^T (a c), gated + g r: (B, m, D) float32.

        Args:
            coefficients: (B, n) float32.
            weights: (B, m, n) float32 in [0, 1]; gated (B, m, n + 1) with g last.
            faces: (B, D) float32, needed where the weights are gated.

        Raises:
            ValueError: an array of another shape or dtype.
        """
        rows, batch = self.basis.count, len(coefficients)
        gated = weights.shape[-1] == rows + 1
        self._expect_coefficients(coefficients, batch)
        expect_shape("weights", weights, (batch, None, rows + gated))
        expect_dtype("weights", weights, np.float32)
        if gated and faces is None:
            raise ValueError("faces: gated antibodies need them, got None")
        kept = weights.shape[1]
        if not batch * kept:
            return np.empty((batch, kept, self.basis.pixels), np.float32)
        on_device = None
        if gated and faces is not None:
            expect_shape("faces", faces, (batch, self.basis.pixels))
            self._expect_faces(faces)
            on_device = self._work.put("faces", faces)
        out = self._work.empty("purified", (batch, kept, self.basis.pixels), np.float32)
        self._act(self._work.put("coefficients", coefficients), weights, on_device, Pictures(out))
        return out.get(self.stream)

    def _act(self, coefficients: View, weights: Floats, faces: View | None, out: Pictures) -> None:
        """By whichever form reads less of the basis; the one with lists takes weights of 0 and 1 only."""
        rows = self.basis.count
        lists = chosen_rows(weights, rows)
        pictures = weights.shape[0] * weights.shape[1]
        if lists is None or lists[1].sum() > -(-pictures // SHARED_READ) * rows:
            self.queued.act_dense(
                self.stream, self.basis, coefficients, self._work.put("antibodies", weights), faces, out
            )
            return
        gates = self._work.put("gates", np.ascontiguousarray(weights[..., -1])) if faces is not None else None
        places = self._work.put("lists", lists[0]), self._work.put("counts", lists[1])
        self.queued.act_chosen(self.stream, self.basis, coefficients, *places, gates, faces, out)

    def mutate(self, probabilities: Floats, clones: Indices, key: CloneKey) -> Masks:
        """Draw the clones with the given numbers, (B, K) to (B, K, W) uint32; see `reference.mutate`."""
        batch, genes = probabilities.shape
        expect_shape("clones", clones, (batch, None))
        words = -(-genes // 32)
        if not clones.size:
            return np.empty((*clones.shape, words), np.uint32)
        limits, frames, faces = self._draws(probabilities, key)
        masks = self._work.empty("masks", (*clones.shape, words), np.uint32)
        numbers = self._work.put("clones", clones.astype(np.uint32))
        self.queued.mutate(self.stream, limits, frames, faces, numbers, masks, key.seed, genes)
        return masks.get(self.stream)

    def mutate_score(self, probabilities: Floats, weights: Indices, count: int, key: CloneKey) -> Indices:
        """Scores of the clones 0 .. count - 1 of each face, (B, count) int64; see `clones.mutate_score`."""
        if not len(probabilities):
            return np.empty((0, count), np.int64)
        return self._select(probabilities, weights, count, 1, key).scores.get(self.stream)

    def select_clones(
        self, probabilities: Floats, weights: Indices, count: int, keep: int, key: CloneKey
    ) -> tuple[Indices, Masks]:
        """The ``keep`` best of ``count`` clones and their masks, in one launch; see `clones.select_clones`.

        Returns:
            Winners (B, keep) int64, best first, ties by the lowest number, and masks (B, keep, W) uint32.

        Raises:
            ValueError: keep is not in 1 .. count, or an array is of another shape.
        """
        if not len(probabilities) or keep > MOST_KEPT:
            winners = select(self.mutate_score(probabilities, weights, count, key), keep)
            return winners, self.mutate(probabilities, winners, key)
        done = self._select(probabilities, weights, count, keep, key)
        return done.winners.get(self.stream).astype(np.int64), done.masks.get(self.stream)

    def _select(self, probabilities: Floats, weights: Indices, count: int, keep: int, key: CloneKey) -> Clones:
        batch, genes = probabilities.shape
        expect_shape("weights", weights, probabilities.shape)
        if not 1 <= keep <= count <= MOST_CLONES:
            raise ValueError(f"keep and count: expected 1 <= keep <= count <= {MOST_CLONES}, got {keep} and {count}")
        if np.abs(weights).max(initial=0) > WEIGHT_LIMIT:
            raise ValueError(f"weights: expected whole numbers within +-{WEIGHT_LIMIT}")
        limits, frames, faces = self._draws(probabilities, key)
        kept = (batch, keep)
        clones = Clones(
            limits=limits,
            weights=self._work.put("weights", _padded(weights.astype(np.int32))),
            frames=frames,
            faces=faces,
            scores=self._work.empty("scores", (batch, count), np.int64),
            arrived=self._work.zeros("arrived", (batch,), np.uint32),
            winners=self._work.empty("winners", kept, np.int32),
            masks=self._work.empty("masks", (*kept, -(-genes // 32)), np.uint32),
            lists=self._work.empty("lists", (*kept, genes), np.uint16),
            counts=self._work.empty("counts", kept, np.int32),
            gates=self._work.empty("gates", kept, np.float32),
        )
        self.queued.select_clones(self.stream, clones, key.seed, genes, genes)
        return clones

    def _draws(self, probabilities: Floats, key: CloneKey) -> tuple[View, View, View]:
        """What clones are drawn from: limits (B, padded), frames and faces (B,) uint32."""
        batch, genes = probabilities.shape
        expect_shape("CloneKey.faces", key.faces, (batch,))
        if genes > MOST_GENES:
            raise ValueError(f"probabilities: expected at most {MOST_GENES} genes, got {genes}")
        limits = self._work.put("limits", _padded(thresholds(probabilities)))
        return limits, self._work.put("frames", key.frames), self._work.put("numbers", key.faces)

    def _expect_faces(self, faces: Floats) -> None:
        expect_shape("faces", faces, (None, self.basis.pixels))
        expect_dtype("faces", faces, np.float32)

    def _expect_coefficients(self, coefficients: Floats, batch: int) -> None:
        expect_shape("coefficients", coefficients, (batch, self.basis.count))
        expect_dtype("coefficients", coefficients, np.float32)

    def close(self) -> None:
        """Give everything back; the device too where this object opened it. A second time does nothing."""
        self._closing.close()

    def __enter__(self) -> CudaKernels:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def stored_rows(basis: Floats, precision: str) -> tuple[npt.NDArray[np.generic], Floats | None]:
    """The eigenfaces as the kernels read them.

    Args:
        basis: (n, D) float32.
        precision: fp32, fp16 or int8.

    Returns:
        (n, stride), zeros behind D, and for int8 the (n,) float32 by which each row is multiplied.
    """
    rows, pixels = basis.shape
    stored = np.zeros((rows, -(-pixels // ALIGNED) * ALIGNED), np.float32)
    stored[:, :pixels] = basis
    if precision == "fp32":
        return stored, None
    if precision == "fp16":
        return stored.astype(np.float16), None
    scales = np.maximum(np.abs(stored).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127)
    return np.rint(stored / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def chosen_rows(weights: Floats, rows: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int32]] | None:
    """For antibodies of 0 and 1, which rows each one reads: those whose weight differs from its gate.

    Args:
        weights: (B, m, rows), gated (B, m, rows + 1).
        rows: n.

    Returns:
        Lists (B, m, n) uint16, ascending, and how many of each hold, (B, m) int32; None where a weight is soft.
    """
    if not np.all((weights == 0) | (weights == 1)):
        return None
    gates = weights[..., rows:] if weights.shape[-1] > rows else np.float32(0)
    read = weights[..., :rows] != gates
    counts = read.sum(axis=-1).astype(np.int32)
    lists = np.zeros(read.shape, np.uint16)
    lists[np.arange(rows) < counts[..., None]] = np.nonzero(read)[-1]
    return lists, counts


def _padded(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """(B, genes) to (B, padded), zeros behind; padded is a multiple of 4."""
    return np.pad(values, ((0, 0), (0, -values.shape[1] % 4)))
