"""Smooth made-up faces, a recogniser of random weights, and training runs of a few steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from immunogate.basis import Eigenbasis
from immunogate.faces_file import AlignedFaces, faces_from_pixels


@pytest.fixture(scope="session")
def faces(made_up: AlignedFaces) -> Any:
    """(36, D) float32 in [-1, 1], a tensor."""
    torch = pytest.importorskip("torch")
    return torch.from_numpy(faces_from_pixels(made_up.images))


@pytest.fixture(scope="session")
def recogniser() -> Any:
    """A small network with BatchNorm and PReLU and statistics of its own, and its spec."""
    torch = pytest.importorskip("torch")
    from immunogate.networks.recognisers import RecogniserSpec

    def build() -> Any:
        nn = torch.nn
        return nn.Sequential(
            nn.Conv2d(3, 8, 8, 8), nn.BatchNorm2d(8), nn.PReLU(8), nn.Flatten(), nn.Linear(8 * 14 * 12, 16)
        )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        network = build()
        network[1].running_mean.uniform_(-0.2, 0.2)
        network[1].running_var.uniform_(0.5, 1.5)
    spec = RecogniserSpec("tiny", build, 112, 96, 8, 127.5, 128.0, "RGB", 16, "this test")
    return network.eval(), spec


@pytest.fixture(scope="session")
def few() -> Callable[..., Any]:
    """Settings of a tiny run, with changes."""
    pytest.importorskip("torch")
    from immunogate.training.purifier.settings import TrainingSettings

    def make(**changes: Any) -> TrainingSettings:
        small: dict[str, Any] = {
            "width": 16, "batch": 6, "steps": 8, "warmup_steps": 2, "validate_every": 3, "attack_steps": 3,
            "clones": 5, "average": 0.6, "seed": 3,
        }  # fmt: skip
        return TrainingSettings(**{**small, **changes})

    return make


@pytest.fixture(scope="session")
def begin(basis: Eigenbasis, recogniser: Any, faces: Any) -> Callable[..., Any]:
    """A trainer on the made-up faces: ``begin(settings, processes=None, beginning=None)``."""
    from immunogate.training.purifier.trainer import Trainer

    def make(settings: Any, processes: Any = None, beginning: Any = None) -> Trainer:
        network, spec = recogniser
        return Trainer(basis, network, spec, faces, settings, processes, beginning=beginning)

    return make


@pytest.fixture(scope="session")
def pairs(made_up: AlignedFaces) -> Any:
    """To validate on: two people, one pair of each."""
    pytest.importorskip("torch")
    from immunogate.training.purifier.validation import validation_pairs

    return validation_pairs(made_up.take(np.arange(6)))
