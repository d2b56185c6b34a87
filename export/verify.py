"""Holds a deployed bundle against the torch networks it was exported from, output by output, on real faces.

Three computations meet: torch in full precision (the twin), the deployed networks on ONNX Runtime, and the NumPy
definition of the kernels in float64. What differs is only rounding, and how much may differ is stated here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from immunogate.basis import Eigenbasis
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


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        output: what is compared.
        between: the two computations.
        measure: how, with its unit.
        value: what was measured.
        limit: what is allowed.
        passed: whether the value keeps the limit.
    """

    output: str
    between: str
    measure: str
    value: float
    limit: float
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def verify(
    twin: TorchTwin,
    deployed: Deployed,
    bundle_basis: Eigenbasis,
    crops: npt.NDArray[np.uint8],
    precision: str,
    batch: int = 16,
) -> list[Check]:
    """Compare every output.

    Args:
        twin: torch networks from the original checkpoints, with the original eigenbasis.
        deployed: the chain of the bundle.
        bundle_basis: eigenbasis as the bundle stores it.
        crops: (N, 112, 112) uint8 real faces, N >= 2.
        precision: of the bundle's networks, see `immunogate.manifest.PRECISIONS`.
        batch: faces a run.
    """
    limits = LIMITS[precision]
    storage = STORAGE_LIMITS[bundle_basis.storage]
    runs = [_Run(twin, deployed, bundle_basis, crops[i : i + batch], i) for i in range(0, len(crops), batch)]
    checks = []
    if twin.purifier is not None and deployed.purifier.settings.needs_probabilities:
        shift = max(run.probability_shift() for run in runs)
        checks.append(_at_most("probabilities", "ONNX - torch", "max shift", shift, limits["probability"]))
    raw = _joined(run.raw for run in runs)
    checks += _embedding_checks("embedding of raw faces", raw, limits)
    kernel_error = max(run.kernel_error() for run in runs)
    checks.append(
        _at_most("purified pixels", "deployed - NumPy float64", "max grey levels", kernel_error, limits["pixels"])
    )
    chain = _joined(run.purified for run in runs)
    loosest = {
        "cosine": min(limits["cosine"], storage["cosine"]),
        "pair": max(limits["pair"], storage["pair"]),
    }
    checks.append(
        _at_least("embedding of purified faces", "deployed - torch", "min cosine", _cosine(*chain), loosest["cosine"])
    )
    checks.append(_at_most("score of a pair", "deployed - torch", "max shift", _pair_shift(*chain), loosest["pair"]))
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


def _embedding_checks(output: str, pair: tuple[Floats, Floats], limits: dict[str, float]) -> list[Check]:
    difference = np.abs(pair[0] - pair[1])
    relative = float(np.linalg.norm(pair[0] - pair[1], axis=1).max() / np.linalg.norm(pair[1], axis=1).min())
    return [
        _at_most(output, "ONNX - torch", "max difference", float(difference.max()), limits["embedding"]),
        _at_most(output, "ONNX - torch", "max relative error", relative, 3 * limits["embedding"]),
        _at_least(output, "ONNX - torch", "min cosine", _cosine(*pair), limits["cosine"]),
    ]


def _joined(pairs: Any) -> tuple[Floats, Floats]:
    first, second = zip(*pairs, strict=True)
    return np.concatenate(first), np.concatenate(second)


def _cosine(first: Floats, second: Floats) -> float:
    return float(np.einsum("ij,ij->i", first, second).min())


def _pair_shift(first: Floats, second: Floats) -> float:
    return float(np.abs(first @ first.T - second @ second.T).max())


def _at_most(output: str, between: str, measure: str, value: float, limit: float) -> Check:
    return Check(output, between, measure, value, limit, bool(value <= limit))


def _at_least(output: str, between: str, measure: str, value: float, limit: float) -> Check:
    return Check(output, between, measure, value, limit, bool(value >= limit))


def same_bytes(output: str, between: str, first: bytes, second: bytes) -> Check:
    """Whether two files are the same; the value is the number of bytes that differ."""
    differing = abs(len(first) - len(second)) + sum(a != b for a, b in zip(first, second, strict=False))
    return Check(output, between, "bytes that differ", float(differing), 0.0, differing == 0)


def table(checks: Sequence[Check]) -> str:
    """The checks as text."""
    rows = [f"{'output':<30}{'between':<26}{'measure':<20}{'value':>12}{'limit':>10}"]
    for check in checks:
        mark = "ok" if check.passed else "FAILED"
        rows.append(
            f"{check.output:<30}{check.between:<26}{check.measure:<20}{check.value:>12.3g}{check.limit:>10.3g}  {mark}"
        )
    return "\n".join(rows)
