"""Small networks whose worst case is known or soon found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

PIXELS, EMBEDDING = 40, 6


@pytest.fixture(scope="session")
def line() -> Any:
    """(D,) w of the embedding (w x, 1): its cosine with (1, 0) grows with w x alone."""
    torch = pytest.importorskip("torch")
    weights = torch.randn(PIXELS, generator=torch.Generator().manual_seed(5))
    return weights.sign() * weights.abs().clamp_min(0.05)


@pytest.fixture(scope="session")
def along(line: Any) -> Callable[[Any], Any]:
    """The linear embedding."""
    torch = pytest.importorskip("torch")

    def embed(points: Any) -> Any:
        along_line = points @ line
        return torch.stack([along_line, torch.ones_like(along_line)], dim=1)

    return embed


@pytest.fixture(scope="session")
def curved() -> Any:
    """A smooth network with local optima, in evaluation mode."""
    torch = pytest.importorskip("torch")
    state = torch.get_rng_state()
    torch.manual_seed(2)
    network = torch.nn.Sequential(torch.nn.Linear(PIXELS, 24), torch.nn.Tanh(), torch.nn.Linear(24, EMBEDDING))
    with torch.no_grad():
        network[0].weight.mul_(4)
    torch.set_rng_state(state)
    return network.eval()


@pytest.fixture(scope="session")
def samples(curved: Any) -> Callable[..., tuple[Any, Any]]:
    """(B, D) points, some on the edge of the box, and (B, E) embeddings of points beside them."""
    torch = pytest.importorskip("torch")

    def drawn(seed: int = 0, count: int = 12) -> tuple[Any, Any]:
        draw = torch.Generator().manual_seed(seed)
        points = (torch.rand(count, PIXELS, generator=draw) * 2.2 - 1.1).clamp(-1, 1)
        beside = (points + 0.1 * torch.randn(count, PIXELS, generator=draw)).clamp(-1, 1)
        with torch.no_grad():
            return points, curved(beside)

    return drawn
