"""Smooth made-up faces, a teacher of random weights, and a run of a few steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from immunogate.training.recogniser.settings import DistilSettings


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
