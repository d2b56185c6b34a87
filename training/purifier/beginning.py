"""The network that a training run begins with."""

from __future__ import annotations

import torch
from torch import Tensor

from immunogate.basis import Eigenbasis
from immunogate.networks.purifier import AntibodyNetwork, Purifier
from immunogate.networks.spectral import SpectralPurifier, analyzer_input
from immunogate.training.augment import jittered
from immunogate.training.purifier.settings import NO_PURIFIER, TrainingSettings

USUAL = 1000
"""Faces that say what is usual."""


def new_purifier(settings: TrainingSettings, basis: Eigenbasis, faces: Tensor) -> AntibodyNetwork | None:
    """An untrained network, or None where the settings want none.

    It is the same for the same seed; nothing else draws from torch's global generator.

    Args:
        settings: architecture, and where it begins.
        basis: eigenfaces.
        faces: (N, D) clean faces; the first thousand, jittered, say how large a clean spectrum is.
    """
    if settings.architecture == NO_PURIFIER:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if settings.architecture != "spectral":
            plain = Purifier(
                basis.components,
                settings.temperature,
                paper_exact=settings.paper_exact,
                architecture=settings.architecture,
                gated=settings.gated,
            )
            if not settings.paper_exact:
                plain.begin_as_filter(torch.from_numpy(basis.eigenvalues), settings.shrinkage)
            return plain
        usual = jittered(faces[:USUAL].cpu(), settings.seed, 0, settings.jitter)
        centred = usual - torch.from_numpy(basis.mean)
        clean = analyzer_input(usual, centred, centred @ torch.from_numpy(basis.basis).T)
        scale = clean.square().mean(dim=0).sqrt()
        network = SpectralPurifier(scale, settings.width, gated=settings.gated)
        network.begin_as_filter(settings.shrinkage)
        return network
