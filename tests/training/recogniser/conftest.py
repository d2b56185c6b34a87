"""Smooth made-up faces, a teacher of random weights, and a run of a few steps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from immunogate.basis import Eigenbasis
from immunogate.faces_file import AlignedFaces
from immunogate.training.eigenbasis import fit_eigenbasis
from immunogate.training.recogniser.settings import DistilSettings

PEOPLE, EACH = 12, 3


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch on one thread: steps are compared bit for bit, and the machine is shared."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    if torch:
        torch.set_num_threads(1)
    yield
    if torch:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def made_up() -> AlignedFaces:
    """36 smooth pictures of 12 people: each person's own, and a little noise."""
    draw = np.random.default_rng(5)
    coarse = draw.integers(40, 216, (PEOPLE, 9, 9)).astype(np.float32).repeat(EACH, axis=0)
    coarse += draw.normal(0, 12, coarse.shape).astype(np.float32)
    images = [cv2.resize(picture, (112, 112), interpolation=cv2.INTER_CUBIC) for picture in coarse]
    people = np.repeat([f"p{number:02}" for number in range(PEOPLE)], EACH)
    return AlignedFaces(np.clip(np.stack(images), 0, 255).astype(np.uint8), None, people)


@pytest.fixture(scope="session")
def basis(made_up: AlignedFaces) -> Eigenbasis:
    return fit_eigenbasis(made_up.images, 20)


@pytest.fixture(scope="session")
def few() -> Callable[..., DistilSettings]:
    """Settings of a tiny run, with changes."""

    def make(**changes: Any) -> DistilSettings:
        small = {"steps": 8, "batch": 4, "block": 2, "reuse": 2, "warmup": 1, "validate_every": 3, "average": 0.5}
        return DistilSettings(**{**small, **changes})

    return make


@pytest.fixture(scope="session")
def random_teacher() -> Any:
    """A MobileFaceNet of random weights and statistics, and its spec."""
    torch = pytest.importorskip("torch")
    from immunogate.networks.recognisers import recogniser_spec

    spec = recogniser_spec("mobilefacenet")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = spec.build()
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    buffer.uniform_(0.3, 0.7)
    return network.eval(), spec
