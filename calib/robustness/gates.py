"""The configurations that are attacked: each as the torch twin with its gradients, and as it is deployed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from immunogate.calib.robustness.deployed import Answer, Deployed, asked
from immunogate.calib.robustness.filters import FILTERS, PictureFilter, filtered
from immunogate.errors import ImmunogateError
from immunogate.kernels.antibody import AntibodySettings, make_antibodies
from immunogate.kernels.reference import CloneKey
from immunogate.networks.attacks.target import Attackable, Target, deterministic, embedded_in_batches
from immunogate.networks.attacks.twins import Clones, TwinGate, variants_of
from immunogate.networks.twin import TorchTwin
from immunogate.structs import PIXELS, Pixels

AGREEMENT = {"fp32": 0.9999, "fp16": 0.999, "fp16-weights": 0.999, "int8": 0.98, "int8-cpu": 0.98}
"""Least cosine of twin and deployed gate on a clean face, by the precision of the networks."""

DRAWN_AGREEMENT = 0.95
"""The same where clones are drawn: a probability's rounding may choose another gene now and then."""


@dataclass(frozen=True, eq=False)
class Gate:
    """One configuration.

    Attributes:
        key: see `immunogate.calib.robustness.document.Key`.
        name: in words.
        forward: the twin as deployed.
        gradients: by name, stand-ins for the twin to take gradients of.
        random: whether answers depend on the draw.
        deployed: the exported networks on their runner.
        own: whether it is the mode that the bundle is deployed in.
        threshold: similarities of at least this are accepted.
        threshold_from: where that comes from, in words.
    """

    key: str
    name: str
    forward: Attackable
    gradients: Mapping[str, Attackable]
    random: bool
    deployed: Deployed
    own: bool = False
    threshold: float = float("nan")
    threshold_from: str = ""

    def target(self, gradient: str, eot: int = 1, judges: int = 1) -> Target:
        """What a search attacks, by one of the gradients."""
        if self.random:
            return Target(self.forward, self.gradients[gradient], random=True, draws=eot, judges=judges)
        # The soft mask of `expected` is not what a threshold's gate computes: the gate itself judges then.
        stand_in = gradient == "expected"
        return Target(self.forward, self.gradients[gradient]) if stand_in else Target(self.gradients[gradient])

    def at(self, threshold: float, source: str) -> Gate:
        """The gate with its threshold."""
        return replace(self, threshold=threshold, threshold_from=source)


def bare_gate(twin: TorchTwin, bare: Deployed) -> Gate:
    """No defence: the recogniser alone.

    Args:
        twin: of the bundle.
        bare: the deployed recogniser on pictures as they come.
    """
    embed = deterministic(twin.embed)
    return Gate("none", "no defence", embed, {"exact": embed}, False, bare)


def filter_gate(key: str, twin: TorchTwin, bare: Deployed) -> Gate:
    """A simple filter in front of the recogniser; arguments as `bare_gate`."""
    name, pictures = FILTERS[key]

    def embed(points: Tensor) -> Tensor:
        return twin.embed(filtered(key, points))

    gate = deterministic(embed)
    return Gate(key, name, gate, {"straight-through": gate}, False, _behind(pictures, bare))


def fixed_gate(twin: TorchTwin, top_k: int, deployed: Deployed) -> Gate:
    """The leading eigenfaces for every face alike."""
    fixed = copy.copy(twin)  # the networks are shared
    fixed.mode, fixed.top_k = "fixed", top_k
    gate = TwinGate(fixed, "fixed")
    return Gate("fixed", f"fixed projection, top {top_k} eigenfaces", gate, {"exact": gate}, False, deployed)


def mode_gate(twin: TorchTwin, settings: AntibodySettings, deployed: Deployed, seed: int, *, own: bool) -> Gate:
    """The defence in one of its modes.

    Args:
        twin: of the bundle.
        settings: the mode and its numbers.
        deployed: the bundle in this mode.
        seed: of the relaxed draws of gradients.
        own: whether the bundle is deployed so.
    """
    if settings.mode == "fixed":
        fixed = fixed_gate(twin, settings.top_k, deployed)
        return replace(fixed, key="bundle", name=f"{fixed.name} (the bundle's own)", own=own)
    drawn = clones_of(settings) if settings.is_random else None
    gradients = {name: TwinGate(twin, settings.mode, name, drawn, seed) for name in variants_of(settings.mode)}
    forward = next(gate for name, gate in gradients.items() if name != "expected")
    key, name = ("bundle", f"{settings.mode} (the bundle's own)") if own else (settings.mode, settings.mode)
    return Gate(key, name, forward, gradients, settings.is_random, deployed, own)


def clones_of(settings: AntibodySettings) -> Clones:
    """The gate's own clones, for a twin: drawn by the same generator with the same keys."""

    def drawn(p: Tensor, genes: Tensor, rows: Tensor, draw: int) -> Tensor:
        frames = np.full(len(rows), draw, np.uint32)
        key = CloneKey(settings.seed, frames, rows.cpu().numpy().astype(np.uint32))
        arrays = (part.detach().cpu().numpy() for part in (genes, p))
        coefficients, probabilities = (np.ascontiguousarray(array, np.float32) for array in arrays)
        return torch.from_numpy(make_antibodies(settings, coefficients, probabilities, key, PIXELS).weights)

    return drawn


def check_agreement(gate: Gate, crops: Pixels, faces: Tensor, precision: str, frame: int) -> float:
    """The least cosine of twin and deployed gate on clean faces.

    Args:
        gate: a configuration.
        crops: (B, 112, 112) uint8.
        faces: (B, D) the same in [-1, 1].
        precision: of the bundle's networks.
        frame: frame number that both are told.

    Raises:
        ImmunogateError: they differ by more than rounding: attacks on the twin would say nothing of the gate.
    """
    numbers = list(range(len(crops)))
    found = asked(gate.deployed, crops, [frame] * len(crops), numbers).embeddings
    twin = embedded_in_batches(gate.forward, faces, frame).numpy()
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(twin, axis=1)
    least = float((np.einsum("ij,ij->i", found, twin) / np.maximum(lengths, 1e-12)).min())
    limit = DRAWN_AGREEMENT if gate.random else AGREEMENT[precision]
    if not least >= limit:
        raise ImmunogateError(
            f"the torch twin and the deployed gate differ ({gate.name}: least cosine {least:.4f} on {len(crops)} clean "
            f"faces, expected {limit:g}); attacks on the twin would say nothing of what is deployed",
            "Name the checkpoints that this bundle was exported from, and see what immunogate verify says",
        )
    return least


def _behind(pictures: PictureFilter, bare: Deployed) -> Deployed:
    def seen(crops: Pixels, frames: list[int], numbers: list[int]) -> Answer:
        return bare(pictures(crops), frames, numbers)

    return seen
