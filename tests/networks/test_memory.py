from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.errors import UsageError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.memory import Memory  # noqa: E402 - needs torch


def memory_of(slots: list[list[float]], **options: Any) -> Memory:
    memory = Memory(features=len(slots[0]), slots=len(slots), **options)
    with torch.no_grad():
        memory.units.weight.copy_(torch.tensor(slots))
    return memory


def test_read_is_the_softmax_of_cosines_over_the_temperature() -> None:
    memory = memory_of([[2.0, 0.0], [0.0, 3.0]], temperature=0.5).eval()
    weights = torch.softmax(torch.tensor([[1.0, 0.0]]) / 0.5, dim=1)
    torch.testing.assert_close(memory(torch.tensor([[7.0, 0.0]])), weights @ torch.tensor([[2.0, 0.0], [0.0, 3.0]]))


def test_scores_are_cosines_whatever_the_lengths() -> None:
    memory = memory_of([[2.0, 0.0], [1.0, 1.0]])
    torch.testing.assert_close(memory.scores(torch.tensor([[5.0, 0.0]])), torch.tensor([[1.0, 0.5**0.5]]))


def test_training_moves_the_chosen_slot_towards_the_mean_of_its_features_and_no_other() -> None:
    memory = memory_of([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], rate=0.9).train()
    features = torch.tensor([[4.0, 1.0], [2.0, -1.0]])  # both nearest to slot 0, mean (3, 0)
    memory(features)
    expected = torch.tensor([[0.9 + 0.1 * 3.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    torch.testing.assert_close(memory.units.weight.data, expected)


def test_training_reads_the_moved_slots() -> None:
    memory = memory_of([[1.0, 0.0], [0.0, 1.0]], rate=0.0).train()
    read = memory(torch.tensor([[5.0, 0.0]]))
    torch.testing.assert_close(read, memory.eval()(torch.tensor([[5.0, 0.0]])))
    assert read[0, 0] > 3  # the slot is (5, 0) by now


def test_the_published_rate_is_the_default() -> None:
    memory = memory_of([[1.0, 0.0], [0.0, 1.0]]).train()
    memory(torch.tensor([[11.0, 0.0]]))
    assert float(memory.units.weight[0, 0]) == pytest.approx(0.999 + 0.001 * 11)


def test_evaluation_changes_nothing() -> None:
    memory = Memory().eval()
    before = memory.units.weight.clone()
    memory(torch.randn(16, 512))
    assert torch.equal(memory.units.weight, before)


def test_paper_exact_lets_slots_that_nobody_chose_decay() -> None:
    slots = [[1.0, 0.0], [0.0, 1.0]]
    faulty, mended = memory_of(slots, paper_exact=True).train(), memory_of(slots).train()
    for _ in range(1000):
        faulty(torch.tensor([[1.0, 0.0]]))
        mended(torch.tensor([[1.0, 0.0]]))
    assert float(faulty.units.weight[1, 1]) == pytest.approx(0.999**1000, rel=1e-3)
    assert float(mended.units.weight[1, 1]) == 1.0
    torch.testing.assert_close(faulty.units.weight[0], mended.units.weight[0])


def test_a_lower_temperature_sharpens_the_read() -> None:
    torch.manual_seed(1)
    features = torch.randn(32, 512)
    memory = Memory().eval()
    spreads = []
    for temperature in (1.0, 0.1, 0.01):
        memory.temperature = temperature
        spreads.append(float(memory(features).std(dim=0).mean()))
    assert spreads[0] * 5 < spreads[1] < spreads[2]  # at 1, as published, the read hardly depends on the face


def test_gradients_reach_the_features_and_never_the_slots() -> None:
    memory = Memory(temperature=0.1).train()
    features = torch.randn(4, 512, requires_grad=True)
    first, second = (
        memory(features),
        memory(features * 2),
    )  # two steps before one backward: no clash of versions
    (first.sum() + second.sum()).backward()
    assert features.grad is not None
    assert float(features.grad.abs().sum()) > 0
    assert memory.units.weight.grad is None
    assert not memory.units.weight.requires_grad


def test_gradients_take_the_moved_slots_for_constants() -> None:
    memory = memory_of([[1.0, 0.0], [0.0, 1.0]], rate=0.0)  # the chosen slot becomes the feature itself
    trained = torch.tensor([[3.0, 1.0]], requires_grad=True)
    memory.train()(trained).sum().backward()
    frozen = torch.tensor([[3.0, 1.0]], requires_grad=True)
    memory.eval()(frozen).sum().backward()
    torch.testing.assert_close(trained.grad, frozen.grad)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 12), slots=st.integers(1, 9))
def test_exactly_the_nearest_slots_move(seed: int, batch: int, slots: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    memory = memory_of(torch.randn(slots, 5, generator=generator).tolist(), rate=0.5).train()
    features = torch.randn(batch, 5, generator=generator)
    nearest = set(memory.scores(features).argmax(dim=1).tolist())
    before = memory.units.weight.clone()
    memory(features)
    moved = {index for index in range(slots) if not torch.equal(memory.units.weight[index], before[index])}
    assert moved == nearest


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_can_not_divide_is_refused(temperature: float) -> None:
    with pytest.raises(UsageError, match="temperature"):
        Memory(temperature)
