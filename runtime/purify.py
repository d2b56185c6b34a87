"""Purifies aligned faces: analyze, clone, mutate, select, act."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from immunogate.basis import Eigenbasis
from immunogate.kernels.antibody import AntibodySettings, make_antibodies
from immunogate.kernels.cpu import CpuKernels
from immunogate.kernels.reference import CloneKey
from immunogate.runtime.runner import OnnxRunner
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
    """The purifier of one bundle on the CPU.

    Args:
        basis: mean face and eigenfaces.
        settings: inference mode and its numbers.
        analyzer: the network for the probabilities; needed by every mode but fixed.
        threads: workers for the products with the basis.

    Raises:
        ValueError: the mode needs an analyzer and there is none.
    """

    def __init__(
        self,
        basis: Eigenbasis,
        settings: AntibodySettings,
        analyzer: OnnxRunner | None = None,
        threads: int | None = None,
    ) -> None:
        if settings.needs_probabilities and analyzer is None:
            raise ValueError(f"mode {settings.mode} needs an analyzer; this bundle has none")
        self.settings = settings
        self._analyzer = analyzer if settings.needs_probabilities else None
        # In mode fixed the eigenfaces behind top_k never act: a copy of the others lets the rest be freed.
        rows = basis.basis[: settings.top_k].copy() if settings.mode == "fixed" else basis.basis
        self._kernels = CpuKernels(basis.mean, rows, threads)

    def purify(self, faces: Floats, key: CloneKey) -> Purified:
        """Purify B faces.

        Args:
            faces: (B, D) float32 in [-1, 1].
            key: seed, frame and face numbers, for the modes that draw; the result depends on nothing else.
        """
        probabilities = self.probabilities(faces) if self._analyzer else None
        coefficients = self._kernels.project(faces)
        antibodies = make_antibodies(self.settings, coefficients, probabilities, key, PIXELS)
        return Purified(self._kernels.act(coefficients, antibodies.weights), antibodies)

    def probabilities(self, faces: Floats) -> Floats:
        """(B, n) float32 from the analyzer.

        Raises:
            ValueError: there is no analyzer, or it gave something that is no probability.
        """
        if self._analyzer is None:
            raise ValueError("this purifier has no analyzer")
        planes = faces.reshape(-1, 1, CROP_SIZE, CROP_SIZE)
        found = self._analyzer.run(planes)["probabilities"]
        return np.asarray(found, np.float32)

    @property
    def mean(self) -> Floats:
        """(D,) float32, the mean face in [-1, 1]."""
        return self._kernels.mean

    def key(self, frames: list[int], faces: list[int]) -> CloneKey:
        """The clone key of faces with these frame and track numbers."""
        as_words = [np.asarray(numbers, np.uint64).astype(np.uint32) for numbers in (frames, faces)]
        return CloneKey(self.settings.seed, *as_words)

    def close(self) -> None:
        """Stop the workers."""
        self._kernels.close()
