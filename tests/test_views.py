from __future__ import annotations

import numpy as np
import pytest

from immunogate.views import MOST_SHIFT, VIEWS, View, seen

SIDE = 112
ALL = sorted({view for views in VIEWS.values() for view in views}, key=str)


def ramp() -> np.ndarray:
    """Two faces whose pixels say where they are: row + column / 1000, and its negative."""
    face = np.add.outer(np.arange(SIDE), np.arange(SIDE) / 1000).astype(np.float32)
    return np.stack([face, -face]).reshape(2, -1)


def test_the_plain_view_is_the_face() -> None:
    np.testing.assert_array_equal(seen(ramp(), View()), ramp())


@pytest.mark.parametrize("view", ALL, ids=str)
def test_pixels_move_and_the_edge_fills_the_gap(view: View) -> None:
    planes = ramp().reshape(2, SIDE, SIDE)
    if view.mirrored:
        planes = planes[:, :, ::-1]
    found = seen(ramp(), view).reshape(2, SIDE, SIDE)
    for row, column in ((0, 0), (0, SIDE - 1), (50, 60), (SIDE - 1, 3), (SIDE - 1, SIDE - 1)):
        from_row, from_column = (min(max(i, 0), SIDE - 1) for i in (row - view.down, column - view.right))
        np.testing.assert_array_equal(found[:, row, column], planes[:, from_row, from_column])


def test_four_views_stand_for_both_sides_alike() -> None:
    """No direction and no side counts for more than its opposite, so that a template is nobody's mirror image."""
    four = VIEWS[4]
    assert len(set(four)) == 4
    assert sum(view.right for view in four) == sum(view.down for view in four) == 0
    assert sum(view.mirrored for view in four) == 2
    assert max(abs(shift) for view in four for shift in (view.right, view.down)) <= MOST_SHIFT


def test_torch_sees_the_same() -> None:
    torch = pytest.importorskip("torch")
    from immunogate.networks import twin

    for view in ALL:
        faces = torch.from_numpy(ramp()).requires_grad_()
        found = twin.seen(faces, view)
        np.testing.assert_array_equal(found.detach().numpy(), seen(ramp(), view))
        (gradient,) = torch.autograd.grad(found.sum(), faces)
        assert float(gradient.sum()) == found.numel()  # each pixel seen is one of the face's
