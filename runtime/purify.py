"""Purifies aligned faces: analyze, clone, mutate, select, act."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from immunogate.basis import Eigenbasis
from immunogate.kernels.antibody import AntibodySettings, cpu_drawer, make_antibodies
from immunogate.kernels.backend import Kernels, open_kernels
from immunogate.kernels.reference import CloneKey, analyzer_input
from immunogate.runtime.profile.spans import span
from immunogate.runtime.runners.base import Runner
from immunogate.structs import CROP_SIZE, PIXELS, Antibodies, Floats


@dataclass(frozen=True, eq=False)
class Purified:
    """Faces after purification.

    Attributes:
        faces: (B, m, D) float32, one picture for each antibody kept; not clipped to [-1, 1].
        antibodies: what made them.
    """

    faces: Floats
    antibodies: Antibodies


def kernels_for(
    basis: Eigenbasis, settings: AntibodySettings, threads: int | None = None, backend: str = "cpu"
) -> Kernels:
    """The products and draws that a mode needs.

    Args:
        basis: mean face and eigenfaces.
        settings: inference mode and its numbers.
        threads: workers for the products with the basis.
        backend: cpu, cuda or auto; see `immunogate.kernels.backend.open_kernels`. On a GPU they have to be used by the
            thread that made them.

    Raises:
        DeviceError, CompileError: the backend can not be used.
    """
    # In mode fixed the eigenfaces behind top_k never act: a copy of the others lets the rest be freed.
    rows = basis.basis[: settings.top_k].copy() if settings.mode == "fixed" else basis.basis
    return open_kernels(backend, basis.mean, rows, threads)


class Purifier:
    """The purifier of one bundle.

    Args:
        settings: inference mode and its numbers.
        kernels: products and draws, see `kernels_for`; closed with the purifier.
        analyzer: the network for the probabilities; needed by every mode but fixed.

    Raises:
        ValueError: the mode needs an analyzer and there is none.
    """

    def __init__(self, settings: AntibodySettings, kernels: Kernels, analyzer: Runner | None = None) -> None:
        if settings.needs_probabilities and analyzer is None:
            raise ValueError(f"mode {settings.mode} needs an analyzer; this bundle has none")
        self.settings = settings
        self.kernels = kernels
        self._analyzer = analyzer if settings.needs_probabilities else None
        if settings.is_random:
            cpu_drawer()  # where it has to be compiled first, now: a decision that waits for it would be stale

    def purify(self, faces: Floats, key: CloneKey) -> Purified:
        """Purify B faces.

        Args:
            faces: (B, D) float32 in [-1, 1].
            key: seed, frame and face numbers, for the modes that draw; the result depends on nothing else.
        """
        with span("project"):
            coefficients = self.kernels.project(faces)
        with span("analyze"):
            probabilities = self._probabilities(faces, coefficients) if self._analyzer else None
        genes = coefficients
        if probabilities is not None and probabilities.shape[1] == coefficients.shape[1] + 1:  # gated
            genes = self.kernels.spectrum(faces, coefficients)
        with span("antibodies"):
            antibodies = make_antibodies(self.settings, genes, probabilities, key, PIXELS, self.kernels)
        with span("act"):
            return Purified(self.kernels.act(coefficients, antibodies.weights, faces), antibodies)

    def probabilities(self, faces: Floats) -> Floats:
        """(B, n) float32 from the analyzer; (B, n + 1) from one that also judges the remainder.

        Raises:
            ValueError: there is no analyzer.
        """
        return self._probabilities(faces, self.kernels.project(faces))

    def _probabilities(self, faces: Floats, coefficients: Floats) -> Floats:
        if self._analyzer is None:
            raise ValueError("this purifier has no analyzer")
        if self._analyzer.input_name == "spectrum":
            inputs = analyzer_input(faces, self.kernels.spectrum(faces, coefficients))
        else:
            inputs = faces.reshape(-1, 1, CROP_SIZE, CROP_SIZE)
        with span("network"):
            return np.asarray(self._analyzer.run(inputs)["probabilities"], np.float32)

    @property
    def mean(self) -> Floats:
        """(D,) float32, the mean face in [-1, 1]."""
        return self.kernels.mean

    def key(self, frames: list[int], faces: list[int]) -> CloneKey:
        """The clone key of faces with these frame and track numbers."""
        as_words = [np.asarray(numbers, np.uint64).astype(np.uint32) for numbers in (frames, faces)]
        return CloneKey(self.settings.seed, *as_words)

    def close(self) -> None:
        """Stop the workers."""
        self.kernels.close()
