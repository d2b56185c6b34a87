"""Purifies aligned faces: analyze, clone, mutate, select, act."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from immunogate.basis import Eigenbasis
from immunogate.kernels.antibody import AntibodySettings, cpu_drawer, make_antibodies
from immunogate.kernels.backend import open_kernels
from immunogate.kernels.reference import CloneKey, analyzer_input
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


class Purifier:
    """The purifier of one bundle; its networks run on the CPU, its products and draws on the backend.

    Args:
        basis: mean face and eigenfaces.
        settings: inference mode and its numbers.
        analyzer: the network for the probabilities; needed by every mode but fixed.
        threads: workers for the products with the basis.
        backend: cpu, cuda or auto; see `immunogate.kernels.backend.open_kernels`. On a GPU it has to be used by the
            thread that made it.

    Raises:
        ValueError: the mode needs an analyzer and there is none.
        DeviceError, CompileError: the backend can not be used.
    """

    def __init__(
        self,
        basis: Eigenbasis,
        settings: AntibodySettings,
        analyzer: Runner | None = None,
        threads: int | None = None,
        backend: str = "cpu",
    ) -> None:
        if settings.needs_probabilities and analyzer is None:
            raise ValueError(f"mode {settings.mode} needs an analyzer; this bundle has none")
        self.settings = settings
        self._analyzer = analyzer if settings.needs_probabilities else None
        # In mode fixed the eigenfaces behind top_k never act: a copy of the others lets the rest be freed.
        rows = basis.basis[: settings.top_k].copy() if settings.mode == "fixed" else basis.basis
        self.kernels = open_kernels(backend, basis.mean, rows, threads)
        """Products and draws, where the backend says."""
        if settings.is_random:
            cpu_drawer()  # where it has to be compiled first, now: a decision that waits for it would be stale

    def purify(self, faces: Floats, key: CloneKey) -> Purified:
        """Purify B faces.

        Args:
            faces: (B, D) float32 in [-1, 1].
            key: seed, frame and face numbers, for the modes that draw; the result depends on nothing else.
        """
        coefficients = self.kernels.project(faces)
        probabilities = self._probabilities(faces, coefficients) if self._analyzer else None
        genes = coefficients
        if probabilities is not None and probabilities.shape[1] == coefficients.shape[1] + 1:  # gated
            genes = self.kernels.spectrum(faces, coefficients)
        antibodies = make_antibodies(self.settings, genes, probabilities, key, PIXELS, self.kernels)
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
