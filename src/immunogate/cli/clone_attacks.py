"""The attacks by which settings are compared: small ones, the same for all. An evaluation runs larger ones.

All dodge: a person who is enrolled tries not to be recognised, and the attacker has the enrolled picture. Pictures are
rounded to whole grey levels, as a camera gives them, before the deployed chain sees them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.calib.clone_budget import Setting
    from immunogate.export.sources import Sources
    from immunogate.structs import Pixels

BATCH = 8
JUDGES = 4
"""Draws by which a point is judged where clones are drawn."""


@dataclass(frozen=True)
class Strength:
    """How hard is attacked.

    Attributes:
        levels: largest change of a pixel, in grey levels of 255.
        steps: of projected gradient descent.
        draws: gradients averaged a step where clones are drawn (expectation over transformation).
        seed: of starts and noise.
    """

    levels: int = 2
    steps: int = 20
    draws: int = 4
    seed: int = 0


def noisy(images: Pixels, strength: Strength) -> Pixels:
    """Every pixel up or down by the whole bound, drawn with the seed: as large as an attack, and aimed at nothing."""
    signs = np.random.default_rng(strength.seed).choice([-1, 1], images.shape)
    picture: Pixels = (images.astype(np.int64) + strength.levels * signs).clip(0, 255).astype(np.uint8)
    return picture


def on_the_recogniser(sources: Sources, bundle: Bundle, enrolled: Pixels, probes: Pixels, strength: Strength) -> Pixels:
    """(P, 112, 112) probes attacked on the recogniser alone, which knows nothing of a purifier."""
    from immunogate.networks.attacks import deterministic

    twin = _twin(sources, bundle)
    return _attacked(deterministic(twin.embed), enrolled, probes, strength, {})


def through_the_defence(
    sources: Sources, bundle: Bundle, setting: Setting, enrolled: Pixels, probes: Pixels, strength: Strength
) -> Pixels:
    """(P, 112, 112) probes attacked through the torch twin of the bundle with this setting.

    Where masks have no gradient, that of the probabilities stands in for it (straight-through); where clones are
    drawn, gradients are averaged over draws that never judge.
    """
    from immunogate.networks.attacks.twins import TwinGate
    from immunogate.runtime.chain import antibody_settings

    changed = replace(bundle, manifest=replace(bundle.manifest, purifier=setting.entry(bundle.manifest.purifier)))
    clones = _deployed_clones(antibody_settings(changed.manifest.purifier)) if setting.is_random else None
    gate = TwinGate(_twin(sources, changed), setting.mode, None, clones)
    drawn = {"random": True, "draws": strength.draws, "judges": JUDGES} if setting.is_random else {}
    return _attacked(gate, enrolled, probes, strength, drawn)


def _attacked(gate: Any, enrolled: Pixels, probes: Pixels, strength: Strength, drawn: dict[str, Any]) -> Pixels:
    import torch

    from immunogate.faces_file import faces_from_pixels
    from immunogate.networks.attacks import LinfBall, Pgd, Target, dodging, from_levels, search
    from immunogate.networks.attacks.target import embedded_in_batches
    from immunogate.runtime.align import as_picture

    known, clean = (torch.from_numpy(faces_from_pixels(images)) for images in (enrolled, probes))
    goal = dodging(embedded_in_batches(gate, known))
    ball, method = LinfBall(from_levels(strength.levels)), Pgd(strength.steps, seed=strength.seed)
    every = strength.steps if drawn else 1  # judging costs passes of its own where clones are drawn
    found = search(Target(gate, **drawn), clean, goal, ball, method, batch=BATCH, every=every)
    return np.stack([as_picture(point) for point in found.points.numpy()])


def _twin(sources: Sources, bundle: Bundle) -> Any:
    from immunogate.networks.twin import TorchTwin

    purifier, views = bundle.manifest.purifier, bundle.manifest.recogniser.views
    return TorchTwin(
        sources.recogniser, sources.spec, sources.basis, purifier.mode, purifier.top_k, sources.purifier, views
    )


def _deployed_clones(settings: Any) -> Any:
    """The clones that the gate keeps, see `immunogate.networks.attacks.twins.Clones`."""
    import torch

    from immunogate.kernels.antibody import make_antibodies
    from immunogate.kernels.reference import CloneKey
    from immunogate.structs import PIXELS

    def kept(probabilities: Any, genes: Any, rows: Any, draw: int) -> Any:
        key = CloneKey(settings.seed, np.full(len(rows), draw, np.uint32), rows.numpy().astype(np.uint32))
        found = make_antibodies(settings, genes.numpy(), probabilities.numpy(), key, PIXELS)
        return torch.from_numpy(found.weights)

    return kept
