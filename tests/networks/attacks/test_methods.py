from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.attacks import Apgd, LinfBall, Pgd  # noqa: E402 - needs torch
from immunogate.networks.attacks.schedule import checkpoints, halves  # noqa: E402


def test_checkpoints_are_those_of_the_paper() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(200) == [44, 82, 114, 140, 160, 174, 186, 198]
    assert checkpoints(1) == [1]


@given(st.integers(1, 3000))
def test_checkpoints_rise_and_lie_within_the_steps(steps: int) -> None:
    found = checkpoints(steps)
    assert found == sorted(set(found))
    assert found[0] >= 0.22 * steps
    assert found[-1] <= steps
    periods = [later - before for before, later in itertools.pairwise([0, *found])]
    assert all(later <= before + 1 for before, later in itertools.pairwise(periods))


def test_a_step_is_halved_after_few_rises_or_a_stale_peak() -> None:
    rises = torch.tensor([7.0, 8.0, 8.0, 8.0, 8.0])
    kept = torch.tensor([False, False, True, True, False])
    before, peak = torch.tensor([0.0, 0, 0, 0, 0]), torch.tensor([1.0, 1, 1, 0, 0])
    assert halves(rises, 10, kept, before, peak).tolist() == [True, False, False, True, False]
    assert halves(torch.tensor([15.0]), 20, kept[:1], before[:1], peak[:1]).tolist() == [False]  # 0.75 of 20 is enough


def trace(method: Any, gains: Any, clean: Any, ball: Any) -> list[dict[str, Any]]:
    """Moves with prepared gains (steps, 1) and gradients that keep turning, so that no two points are the same."""
    draw = torch.Generator().manual_seed(0)
    own = method.begin(clean, ball.reach(clean))
    found = [own]
    for step, gain in enumerate(gains):
        gradient = torch.randn(clean.shape, generator=draw)
        own = method.move(own, clean, torch.tensor([0]), ball, step, gain, gradient)
        found.append(own)
    return found


def test_apgd_halves_at_a_checkpoint_and_goes_back_to_its_best_point() -> None:
    clean, ball, method = torch.zeros(1, 12), LinfBall(0.5), Apgd(100)
    gains = [torch.tensor([float(value)]) for value in [*range(10), *([5] * 13)]]  # best at step 9, then flat
    states = trace(method, gains, clean, ball)
    assert float(states[22]["size"]) == 1.0  # twice the radius
    assert float(states[23]["size"]) == 0.5
    assert torch.equal(states[23]["previous"], states[9]["point"])  # the move began at the best point
    assert not torch.equal(states[22]["point"], states[9]["point"])
    assert float(states[23]["gain"]) == 9
    assert bool(states[23]["rises"] == 0)
    rising = trace(method, [torch.tensor([float(value)]) for value in range(23)], clean, ball)
    assert float(rising[23]["size"]) == 1.0
    assert bool(rising[23]["kept_size"])


def test_apgd_goes_on_with_a_quarter_of_its_last_step() -> None:
    clean, ball, method = torch.zeros(1, 1), LinfBall(1.0), Apgd(100)
    own = method.begin(clean, ball.reach(clean)) | {"point": torch.tensor([[0.2]]), "previous": torch.tensor([[0.0]])}
    own["size"] = torch.tensor([[0.1]])
    moved = method.move(own, clean, torch.tensor([0]), ball, 1, torch.tensor([0.0]), torch.ones(1, 1))
    assert float(moved["point"]) == pytest.approx(0.2 + 0.75 * 0.1 + 0.25 * 0.2)
    first = method.move(own, clean, torch.tensor([0]), ball, 0, torch.tensor([0.0]), torch.ones(1, 1))
    assert float(first["point"]) == pytest.approx(0.3)


def test_momentum_adds_gradients_of_mean_size_one() -> None:
    clean, ball, method = torch.zeros(1, 2), LinfBall(1.0), Pgd(10, momentum=0.9, share=0.1)
    own = method.begin(clean, ball.reach(clean))
    rows, gain = torch.tensor([0]), torch.tensor([0.0])
    own = method.move(own, clean, rows, ball, 0, gain, torch.tensor([[30.0, 10.0]]))
    own = method.move(own, clean, rows, ball, 1, gain, torch.tensor([[-0.1, -0.1]]))
    torch.testing.assert_close(own["velocity"], torch.tensor([[1.35 - 1, 0.45 - 1]]))
    torch.testing.assert_close(own["point"], torch.tensor([[0.2, 0.0]]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pgd(0),
        lambda: Apgd(5, 0),
        lambda: Pgd(5, momentum=1.1),
        lambda: Pgd(5, share=0),
        lambda: checkpoints(0),
    ],
)
def test_impossible_numbers_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()
