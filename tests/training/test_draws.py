from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.training.draws import batch_indices, normal, uniform  # noqa: E402 - needs torch


@pytest.mark.parametrize("draw", [uniform, normal])
def test_a_draw_depends_on_seed_step_and_purpose_alone(draw: Any) -> None:
    first = draw(1, 2, "mask", 3, 4)
    torch.rand(5)
    assert torch.equal(draw(1, 2, "mask", 3, 4), first)
    for other in ((2, 2, "mask"), (1, 3, "mask"), (1, 2, "noise"), (12, 2, "mask"), (1, 22, "mask")):
        assert not torch.equal(draw(*other, 3, 4), first)


def test_nothing_touches_the_global_generator() -> None:
    before = torch.get_rng_state()
    uniform(0, 0, "a", 9)
    normal(0, 0, "a", 9)
    batch_indices(0, 0, 4, 7)
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_have_their_distributions() -> None:
    flat = uniform(5, 0, "u", 100_000)
    assert 0 < float(flat.min()) < 1e-4
    assert 1 - 1e-4 < float(flat.max()) < 1
    assert float(flat.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(flat.var()) == pytest.approx(1 / 12, abs=0.001)
    bell = normal(5, 0, "n", 100_000)
    assert float(bell.mean()) == pytest.approx(0, abs=0.015)
    assert float(bell.std()) == pytest.approx(1, abs=0.01)


def test_steps_are_not_each_other_s_neighbours() -> None:
    rows = torch.stack([normal(7, step, "n", 2000) for step in range(40)])
    correlations = torch.corrcoef(rows).fill_diagonal_(0)
    assert float(correlations.abs().max()) < 0.11  # five deviations of 1 / sqrt(2000)


@given(batch=st.integers(1, 30), faces=st.integers(1, 25), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=60, deadline=None)
def test_every_face_comes_once_an_epoch(batch: int, faces: int, seed: int) -> None:
    steps = -(-3 * faces // batch)
    seen = torch.cat([batch_indices(seed, step, batch, faces) for step in range(steps)])[: 3 * faces]
    for epoch in seen.split(faces):
        assert sorted(epoch.tolist()) == list(range(faces))


def test_epochs_have_orders_of_their_own() -> None:
    first, second = batch_indices(0, 0, 50, 50), batch_indices(0, 1, 50, 50)
    assert not torch.equal(first, second)
    assert not torch.equal(first, batch_indices(1, 0, 50, 50))
