from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from converged import BATCH, pushed  # noqa: E402 - needs torch

FACES = BATCH + 1  # the last batch has a single face


class Projection:
    """A linear 'defence' of which it is known how far it can be pushed; counts the faces it was asked about."""

    def __init__(self) -> None:
        self.weights = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
        self.asked = 0

    def __call__(self, faces: Any) -> Any:
        self.asked += len(faces)
        return torch.nn.functional.normalize(faces @ self.weights, dim=1)


@pytest.fixture
def faces() -> Any:
    return torch.rand((FACES, 20), generator=torch.Generator().manual_seed(2)) - 0.5


def test_more_steps_and_larger_bounds_push_further(faces: Any) -> None:
    embed = Projection()
    own = embed(faces)
    small, large = (pushed(embed, faces, own, own, -2.0, eps, 20, 1) for eps in (0.05, 0.2))
    assert (large < small).all()
    assert (small < 1 - 1e-4).all()
    again = pushed(embed, faces, own, own, -2.0, 0.05, 20, 2)
    assert (again <= small + 1e-6).all()


def test_who_has_lost_is_left_alone_and_the_others_are_not(faces: Any) -> None:
    embed = Projection()
    own = embed(faces)
    whole = pushed(embed, faces, own, own, -2.0, 0.1, 20, 2)
    asked, embed.asked = embed.asked, 0
    lost = float(np.median(whole))
    found = pushed(embed, faces, own, own, lost, 0.1, 20, 2)
    assert embed.asked < 0.9 * asked
    np.testing.assert_array_equal(found < lost, whole < lost)
    np.testing.assert_allclose(found[found >= lost], whole[found >= lost], atol=1e-6)
