from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.attacks import L2Ball, LinfBall, Patch, square_regions  # noqa: E402 - needs torch

ROUNDING = 2e-6


def drawn(seed: int, scale: float) -> tuple[Any, Any, Any]:
    draw = torch.Generator().manual_seed(seed)
    clean = (torch.rand(5, 30, generator=draw) * 2.4 - 1.2).clamp(-1, 1)
    return clean, clean + scale * torch.randn(5, 30, generator=draw), draw


def outside(points: Any, clean: Any, eps: Any, norm: float) -> float:
    """By how much a point is out of its ball or the box."""
    far = (points - clean).norm(p=norm, dim=1, keepdim=True) - eps
    return max(float(far.max()), float(points.abs().max()) - 1)


@given(seed=st.integers(0, 10**6), eps=st.floats(0, 2, width=32), scale=st.sampled_from([1e-6, 0.1, 1, 1e6]))
@settings(max_examples=100, deadline=None)
def test_whatever_is_brought_in_lies_in_the_ball_and_in_the_box(seed: int, eps: float, scale: float) -> None:
    clean, points, draw = drawn(seed, scale)
    rows = torch.tensor([4, 2])
    for ball, norm in ((LinfBall(eps), torch.inf), (L2Ball(eps), 2.0)):
        inside = ball.inside(points[rows], clean[rows], rows)
        assert outside(inside, clean[rows], eps, norm) <= ROUNDING * max(1, eps)
        assert outside(ball.start(clean, draw), clean, eps, norm) <= ROUNDING * max(1, eps)
        torch.testing.assert_close(ball.inside(inside, clean[rows], rows), inside, atol=ROUNDING, rtol=0)
        assert ball.reach(clean).shape == (5, 1)


@pytest.mark.parametrize("kind", [LinfBall, L2Ball])
def test_each_sample_has_its_own_radius_and_keeps_it_when_others_are_dropped(kind: Any) -> None:
    clean, points, draw = drawn(1, 10.0)
    eps = torch.tensor([[0.0], [0.1], [0.2], [0.4], [1.0]])
    ball, norm = kind(eps), torch.inf if kind is LinfBall else 2.0
    rows = torch.tensor([3, 1])
    assert outside(ball.inside(points[rows], clean[rows], rows), clean[rows], eps[rows], norm) < ROUNDING
    assert outside(ball.start(clean, draw), clean, eps, norm) < ROUNDING
    torch.testing.assert_close(
        ball.inside(points, clean, torch.arange(5))[rows], ball.inside(points[rows], clean[rows], rows)
    )


def test_points_inside_stay_where_they_are() -> None:
    clean, _, draw = drawn(2, 0.0)
    near = (clean + 0.01 * (2 * torch.rand(clean.shape, generator=draw) - 1)).clamp(-1, 1)
    rows = torch.arange(5)
    torch.testing.assert_close(LinfBall(0.02).inside(near, clean, rows), near, atol=0, rtol=0)
    torch.testing.assert_close(L2Ball(0.5).inside(near, clean, rows), near, atol=1e-7, rtol=0)


def test_directions_gain_the_most_for_a_step_of_one() -> None:
    gradient = torch.tensor([[3.0, -4.0], [0.0, 0.0], [1e-25, -1e-25]])
    rows = torch.arange(3)
    assert LinfBall(1).direction(gradient, rows).tolist() == [[1, -1], [0, 0], [1, -1]]
    torch.testing.assert_close(
        L2Ball(1).direction(gradient, rows), torch.tensor([[0.6, -0.8], [0, 0], [0.5**0.5, -(0.5**0.5)]])
    )


def test_a_patch_changes_its_region_alone_and_without_bound() -> None:
    clean, points, draw = drawn(3, 10.0)
    regions = square_regions(5, 2, (5, 6), seed=1)
    ball, rows = Patch(regions), torch.tensor([4, 0, 1])
    found = ball.inside(points[rows], clean[rows], rows)
    assert torch.equal(found[~regions[rows]], clean[rows][~regions[rows]])
    assert torch.equal(found[regions[rows]], points[rows].clamp(-1, 1)[regions[rows]])
    started = ball.start(clean, draw)
    assert torch.equal(started[~regions], clean[~regions])
    assert float((started - clean)[regions].abs().max()) > 0.5
    assert not ball.direction(torch.ones(3, 30), rows)[~regions[rows]].any()


@given(st.integers(1, 9), st.integers(0, 100), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_squares_are_squares_in_the_same_place_whatever_their_number(side: int, seed: int, channels: int) -> None:
    regions = square_regions(6, side, (9, 11), seed, channels).reshape(6, channels, 9, 11)
    assert bool((regions.sum(dim=(2, 3)) == side * side).all())
    assert bool((regions == regions[:, :1]).all())
    assert bool((regions[:, 0].any(dim=2).sum(dim=1) == side).all())
    assert torch.equal(square_regions(3, side, (9, 11), seed, channels), regions[:3].reshape(3, -1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinfBall(2.1),
        lambda: LinfBall(-0.1),
        lambda: L2Ball(float("nan")),
        lambda: LinfBall(torch.zeros(3)),
        lambda: square_regions(1, 10, (9, 11), 0),
    ],
)
def test_impossible_bounds_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()
