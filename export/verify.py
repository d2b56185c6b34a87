"""Holds a deployed bundle against the torch networks it was exported from, output by output, on real faces.

Three computations meet: torch in full precision (the twin), the deployed networks on ONNX Runtime, and the NumPy
definition of the kernels in float64. What differs is only rounding, and how much may differ is stated here.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from immunogate.basis import Eigenbasis
from immunogate.export.checks import Check, at_least, at_most, least_cosine, pair_shift
from immunogate.faces_file import faces_from_pixels
from immunogate.kernels import reference
from immunogate.networks.twin import TorchTwin, seen
from immunogate.structs import Antibodies, Floats

LIMITS: dict[str, dict[str, float]] = {
    "fp32": {"embedding": 1e-4, "cosine": 0.9999, "probability": 1e-4, "pair": 2e-3, "pixels": 0.01},
    "fp16": {"embedding": 1e-2, "cosine": 0.999, "probability": 1e-2, "pair": 1e-2, "pixels": 0.01},
}
LIMITS["fp16-weights"] = LIMITS["fp16"]
LIMITS["int8"] = LIMITS["int8-cpu"] = {
    "embedding": 0.1, "cosine": 0.98, "probability": 0.5, "pair": 0.1, "pixels": 0.01,
}  # fmt: skip
"""Limits by precision of the networks: largest difference of an embedding's component, least cosine, largest shift
of a probability, largest shift of the score of a pair; and of the kernels against float64, in grey levels."""

STORAGE_LIMITS = {
    "float32": {"cosine": 0.9999, "pair": 2e-3},
    "float16": {"cosine": 0.9999, "pair": 5e-3},
    "int8": {"cosine": 0.98, "pair": 0.05},
}
"""Limits of the whole chain by the storage of the eigenbasis; the looser of both tables holds."""


class Deployed(Protocol):
    """What verification asks of the deployed chain (`immunogate.runtime.chain.FaceChain`)."""

    recogniser: Any
    purifier: Any

    def recognise(self, crops: npt.NDArray[np.uint8], frames: list[int], numbers: list[int]) -> Any:
        """Purify and recognise (B, 112, 112) crops."""


def verify(
    twin: TorchTwin,
    deployed: Deployed,
    bundle_basis: Eigenbasis,
    crops: npt.NDArray[np.uint8],
    precision: str,
    batch: int = 16,
    original: str = "torch",
    runner: str = "ONNX",
) -> list[Check]:
    """Compare every output.

    Args:
        twin: torch networks from the original checkpoints, with the original eigenbasis.
        deployed: the chain of the bundle.
        bundle_basis: eigenbasis as the bundle stores it.
        crops: (N, 112, 112) uint8 real faces, N >= 2.
        precision: of the bundle's networks, see `immunogate.manifest.PRECISIONS`.
        batch: faces a run.
        original: what the twin's recogniser is, for the table: torch, or a file that came as ONNX.
        runner: what the deployed networks run as, ONNX or engine.
    """
    limits = LIMITS[precision]
    storage = STORAGE_LIMITS[bundle_basis.storage]
    runs = [_Run(twin, deployed, bundle_basis, crops[i : i + batch], i) for i in range(0, len(crops), batch)]
    checks = []
    if twin.purifier is not None and deployed.purifier.settings.needs_probabilities:
        shift = max(run.probability_shift() for run in runs)
        checks.append(at_most("probabilities", f"{runner} - torch", "max shift", shift, limits["probability"]))
    raw = _joined(run.raw for run in runs)
    checks += _embedding_checks("embedding of raw faces", f"{runner} - {original}", raw, limits)
    kernel_error = max(run.kernel_error() for run in runs)
    checks.append(
        at_most("purified pixels", "deployed - NumPy float64", "max grey levels", kernel_error, limits["pixels"])
    )
    chain, whole = _joined(run.purified for run in runs), "deployed" if runner == "ONNX" else runner
    loosest = {
        "cosine": min(limits["cosine"], storage["cosine"]),
        "pair": max(limits["pair"], storage["pair"]),
    }
    checks.append(
        at_least(
            "embedding of purified faces",
            f"{whole} - {original}",
            "min cosine",
            least_cosine(*chain),
            loosest["cosine"],
        )
    )
    shift = pair_shift(*chain)
    checks.append(at_most("score of a pair", f"{whole} - {original}", "max shift", shift, loosest["pair"]))
    return checks


class _Run:
    """One batch through both chains."""

    def __init__(
        self, twin: TorchTwin, deployed: Deployed, basis: Eigenbasis, crops: npt.NDArray[np.uint8], first: int
    ) -> None:
        self._twin, self._deployed, self._basis = twin, deployed, basis
        self._faces = faces_from_pixels(crops)
        numbers = list(range(first, first + len(crops)))
        found = deployed.recognise(crops, numbers, numbers)
        self._antibodies: Antibodies = found.antibodies
        self._pixels: Floats = found.faces
        with torch.no_grad():
            tensor = torch.from_numpy(self._faces)
            self.raw = (found.raw, twin.embed(tensor).numpy())
            self.purified = (found.purified, self._twin_embedding(tensor).numpy())

    def probability_shift(self) -> float:
        """Largest |p - p|; a spectrum is taken with the stored basis, so that its rounding is not the network's."""
        network, faces = self._twin.purifier, self._faces
        assert network is not None  # `verify` asks
        with torch.no_grad():
            if network.reads == "spectrum":
                coefficients = reference.project(faces, self._basis.mean, self._basis.basis)
                spectrum = reference.spectrum(faces, self._basis.mean, coefficients)
                expected = network(torch.from_numpy(reference.analyzer_input(faces, spectrum))).numpy()
            else:
                expected = self._twin.probabilities(torch.from_numpy(faces)).numpy()
        return float(np.abs(self._deployed.purifier.probabilities(self._faces) - expected).max())

    def kernel_error(self) -> float:
        """Largest difference in grey levels to the definition, with the same stored basis and antibodies."""
        rows = self._basis.basis[: self._antibodies.weights.shape[2]]  # fewer genes in mode fixed
        coefficients = reference.project(self._faces, self._basis.mean, rows)
        exact = reference.act(coefficients, self._antibodies.weights, self._basis.mean, rows, self._faces)
        return float(np.abs(self._pixels - exact).max() * 127.5)

    def _twin_embedding(self, faces: torch.Tensor) -> torch.Tensor:
        """The twin's own antibodies where they are deterministic, the deployed clones where they were drawn."""
        if not self._deployed.purifier.settings.is_random:
            embedding: torch.Tensor = self._twin(faces)
            return embedding
        kept = torch.from_numpy(self._antibodies.weights)
        clones = [self._twin.purify(faces, kept[:, m]) for m in range(kept.shape[1])]
        each = [self._twin.embed(seen(clone, view)) for clone in clones for view in self._twin.views]
        return torch.nn.functional.normalize(torch.stack(each).mean(dim=0), dim=1)


def _embedding_checks(output: str, between: str, pair: tuple[Floats, Floats], limits: dict[str, float]) -> list[Check]:
    difference = np.abs(pair[0] - pair[1])
    relative = float(np.linalg.norm(pair[0] - pair[1], axis=1).max() / np.linalg.norm(pair[1], axis=1).min())
    return [
        at_most(output, between, "max difference", float(difference.max()), limits["embedding"]),
        at_most(output, between, "max relative error", relative, 3 * limits["embedding"]),
        at_least(output, between, "min cosine", least_cosine(*pair), limits["cosine"]),
    ]


def _joined(pairs: Any) -> tuple[Floats, Floats]:
    first, second = zip(*pairs, strict=True)
    return np.concatenate(first), np.concatenate(second)
