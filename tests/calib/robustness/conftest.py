"""A gate small enough to be attacked within seconds: random eigenfaces, a linear recogniser, made-up people.

The deployed gate is the same networks in NumPy's pictures of whole grey levels; tests exchange or break it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from immunogate.basis import Eigenbasis
from immunogate.calib.robustness.protocols import PROTOCOLS, Protocol
from immunogate.faces_file import AlignedFaces
from immunogate.structs import PIXELS

GENES, EMBEDDING, PEOPLE, PHOTOS = 24, 16, 16, 3


@pytest.fixture
def small_budget() -> Protocol:
    """Every tier, a few steps."""
    return replace(
        PROTOCOLS["standard"], name="quick", pairs=4, random_pairs=2, control_levels=(4,), oblivious_levels=(4,),
        adaptive=("PGD",), steps=6, dodging_levels=(4, 8), impersonation_levels=(4,), eot=2, judges=2,
        doubled_level=None, black_level=4, square_queries=6, square_pairs=2, hop_pairs=0, frame_levels=(), lockout=2,
        timed=2,
    )  # fmt: skip


@pytest.fixture(scope="session")
def people() -> AlignedFaces:
    """Smooth pictures, three of each of sixteen people."""
    draw = np.random.default_rng(3)
    faces = np.kron(draw.uniform(60, 190, (PEOPLE, 14, 14)), np.ones((1, 8, 8)))
    own = np.kron(draw.normal(0, 12, (PEOPLE, PHOTOS, 14, 14)), np.ones((1, 1, 8, 8)))
    images = (faces[:, None] + own).reshape(-1, 112, 112).clip(0, 255).astype(np.uint8)
    names = np.repeat([f"person {number}" for number in range(PEOPLE)], PHOTOS)
    return AlignedFaces(images, None, names)


@dataclass(eq=False)
class World:
    """Twin, how it is deployed, and how another one is made."""

    twin: Any
    deployed: Callable[..., Any]
    another: Callable[[], Any]


@pytest.fixture
def world() -> Iterator[World]:
    """See `World`; one thread, since waiting for others takes longer than the work."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield World(small_twin(), as_deployed, lambda: small_twin(seed=1))
    torch.set_num_threads(before)


def small_twin(seed: int = 0) -> Any:
    """A twin of mode expected."""
    import torch

    from immunogate.networks.recognisers import RecogniserSpec
    from immunogate.networks.twin import TorchTwin

    class Pooled(torch.nn.Module):
        """Means of blocks of pixels and one matrix."""

        def __init__(self, outputs: int, draw: int) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(draw)
            self.pool = torch.nn.AdaptiveAvgPool2d(14)
            self.register_buffer("matrix", torch.randn(14 * 14, outputs, generator=generator) / 14)

        def forward(self, planes: Any) -> Any:
            return self.pool(planes[:, :1]).flatten(1) @ self.matrix

    class Probabilities(Pooled):
        """A purifier that reads the face."""

        reads, gated, components, architecture = "face", False, GENES, "small"

        def forward(self, planes: Any) -> Any:
            return torch.sigmoid(3 + 4 * super().forward(planes))

    spec = RecogniserSpec("small", lambda: Pooled(EMBEDDING, seed), 112, 112, 0, 127.5, 127.5, "RGB", EMBEDDING, "here")
    return TorchTwin(Pooled(EMBEDDING, seed), spec, small_basis(), "expected", GENES, Probabilities(GENES, 9))


def small_basis() -> Eigenbasis:
    """Smooth orthonormal rows."""
    draw = np.random.default_rng(7)
    smooth = np.kron(draw.standard_normal((GENES, 14, 14)), np.ones((1, 8, 8))).reshape(GENES, PIXELS)
    rows = np.ascontiguousarray(np.linalg.qr(smooth.T)[0].T.astype(np.float32))
    values = np.geomspace(400, 1, GENES).astype(np.float32)
    return Eigenbasis(np.zeros(PIXELS, np.float32), rows, values, float(values.sum()) * 1.1, 1000)


def as_deployed(forward: Any, raw: Any = None) -> Any:
    """An attackable as something to ask with pictures."""
    import torch

    from immunogate.calib.robustness.deployed import Answer
    from immunogate.calib.robustness.pixels import tensor_of

    def asked(crops: Any, frames: list[int], numbers: list[int]) -> Answer:
        points = tensor_of(crops)
        with torch.no_grad():
            each = [
                forward(points[place : place + 1], torch.tensor([number]), frame)
                for place, (frame, number) in enumerate(zip(frames, numbers, strict=True))
            ]
            plain = None if raw is None else raw(points, torch.tensor(numbers), 0).numpy()
        return Answer(torch.cat(each).numpy(), plain, None if raw is None else points.numpy())

    return asked
