"""Which eigenfaces act, decided on the device: one class for each way, chosen by the mode.

The same modes as `immunogate.kernels.antibody`. What a mode draws, scores and selects is the same bits as on the CPU,
given the same probabilities and coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from immunogate.kernels.antibody import AntibodySettings
from immunogate.kernels.device import Stream, View
from immunogate.kernels.queued import Clones, DeviceBasis, Pictures, Queued
from immunogate.kernels.reference import pack
from immunogate.runtime.gpu.memory import Field, Memory

DRAWN = ("sample", "select")


@dataclass(frozen=True, eq=False)
class Genes:
    """What antibodies of a bucket of B faces are made from.

    Attributes:
        probabilities: (B, genes) float32, of an analyzer; None in mode fixed.
        spectrum: (B, stride) float32, of which the first ``genes`` numbers are the genes' coefficients.
        coefficients: (B, n) float32.
        faces: (B, D) float32.
        gated: whether the last gene is the remainder's.
        frames, numbers: (B,) uint32, of the clone key.
        status: (B,) uint32.
        masks: (B, m, W) uint32, where the chosen genes go as bits.
        winners: (B, m) int32, where the kept clones' numbers go.
    """

    probabilities: View | None
    spectrum: View
    coefficients: View
    faces: View
    gated: bool
    frames: View
    numbers: View
    status: View
    masks: View
    winners: View

    @property
    def asked(self) -> View:
        """The probabilities, in modes that have them.

        Raises:
            ValueError: there are none.
        """
        if self.probabilities is None:
            raise ValueError("probabilities: this mode needs them, got None")
        return self.probabilities


class Antibody(Protocol):
    """Makes the antibodies of one bucket and lets them act."""

    def make(self, stream: Stream) -> None:
        """Queue what decides."""

    def act(self, stream: Stream, out: Pictures) -> None:
        """Queue the purified faces."""


class FixedAntibody:
    """Mode fixed: all eigenfaces that are held act; those behind ``top_k`` are not held."""

    def __init__(self, queued: Queued, basis: DeviceBasis, genes: Genes, memory: Memory) -> None:
        self._queued, self._basis, self._genes = queued, basis, genes
        ones = np.ones((genes.faces.shape[0], 1, basis.count), np.float32)
        self._ones = memory.upload(ones)
        genes.masks.put(pack(ones > 0), memory.stream)

    def make(self, stream: Stream) -> None:
        """There is nothing to decide."""

    def act(self, stream: Stream, out: Pictures) -> None:
        """All rows with weight 1."""
        self._queued.act_dense(stream, self._basis, self._genes.coefficients, self._ones, None, out)


class LikelyAntibody:
    """Modes threshold and expected: genes above one half; in mode expected these are the answer's summary only.

    Args:
        soft: whether the probabilities themselves act.
    """

    def __init__(self, queued: Queued, basis: DeviceBasis, genes: Genes, memory: Memory, *, soft: bool) -> None:
        self._queued, self._basis, self._genes, self._soft = queued, basis, genes, soft
        batch = genes.faces.shape[0]
        self._lists = memory.empty((batch, 1, basis.count), np.uint16)
        self._counts = memory.empty((batch, 1), np.int32)
        self._gates = memory.empty((batch, 1), np.float32)

    def make(self, stream: Stream) -> None:
        """Bits and lists of rows; what is no probability is noted."""
        genes, lists = self._genes, (self._lists, self._counts, self._gates)
        self._queued.take_likely(stream, genes.asked, genes.masks, *lists, genes.status, self._basis.count)

    def act(self, stream: Stream, out: Pictures) -> None:
        """Each row with its probability, or the listed rows."""
        genes = self._genes
        faces = genes.faces if genes.gated else None
        if self._soft:
            batch, count = genes.asked.shape
            weights = genes.asked.buffer.view((batch, 1, count), np.float32, genes.asked.offset)
            self._queued.act_dense(stream, self._basis, genes.coefficients, weights, faces, out)
        else:
            gates = self._gates if genes.gated else None
            given = genes.coefficients, self._lists, self._counts, gates, faces
            self._queued.act_chosen(stream, self._basis, *given, out)


class DrawnAntibody:
    """Modes sample and select: clones are drawn, scored, selected and listed in one launch."""

    def __init__(
        self, queued: Queued, basis: DeviceBasis, genes: Genes, memory: Memory, settings: AntibodySettings
    ) -> None:
        self._queued, self._basis, self._genes = queued, basis, genes
        self._seed, terms = settings.seed, settings.terms
        self._terms = terms.residual, terms.size, terms.likelihood
        batch, count = genes.asked.shape
        keep = genes.winners.shape[1]
        padded = -(-count // 4) * 4
        self._clones = Clones(
            limits=memory.empty((batch, padded), np.uint32),
            weights=memory.empty((batch, padded), np.int32),
            frames=genes.frames,
            faces=genes.numbers,
            scores=memory.empty((batch, clones_of(settings)), np.int64),
            arrived=memory.zeros((batch,), np.uint32),
            winners=genes.winners,
            masks=genes.masks,
            lists=memory.empty((batch, keep, basis.count), np.uint16),
            counts=memory.empty((batch, keep), np.int32),
            gates=memory.empty((batch, keep), np.float32),
        )

    def make(self, stream: Stream) -> None:
        """Thresholds and weights, then the clones."""
        genes, clones, count = self._genes, self._clones, self._genes.asked.shape[1]
        self._queued.gene_weights(
            stream, genes.asked, genes.spectrum, clones.limits, clones.weights, genes.status, self._basis.pixels,
            self._terms,
        )  # fmt: skip
        self._queued.select_clones(stream, clones, self._seed, count, self._basis.count)

    def act(self, stream: Stream, out: Pictures) -> None:
        """The listed rows."""
        genes, clones = self._genes, self._clones
        gates, faces = (clones.gates, genes.faces) if genes.gated else (None, None)
        given = genes.coefficients, clones.lists, clones.counts, gates, faces
        self._queued.act_chosen(stream, self._basis, *given, out)


def antibody_for(
    settings: AntibodySettings, queued: Queued, basis: DeviceBasis, genes: Genes, memory: Memory
) -> Antibody:
    """What makes the antibodies of a mode."""
    if settings.mode in DRAWN:
        return DrawnAntibody(queued, basis, genes, memory, settings)
    if settings.mode == "fixed":
        return FixedAntibody(queued, basis, genes, memory)
    return LikelyAntibody(queued, basis, genes, memory, soft=settings.mode == "expected")


def clones_of(settings: AntibodySettings) -> int:
    """K: clones that a mode draws a face."""
    return settings.clones if settings.mode == "select" else int(settings.mode == "sample")


def kept_of(settings: AntibodySettings) -> int:
    """m: antibodies that a mode keeps a face."""
    return settings.keep if settings.mode == "select" else 1


def antibody_fields(batch: int, kept: int, genes: int) -> dict[str, Field]:
    """What an answer says about antibodies."""
    return {"masks": ((batch, kept, -(-genes // 32)), np.uint32), "winners": ((batch, kept), np.int32)}
