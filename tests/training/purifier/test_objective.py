from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.relaxed import relaxed_mask  # noqa: E402 - needs torch
from immunogate.training.draws import uniform  # noqa: E402
from immunogate.training.purifier.objective import (  # noqa: E402
    LossWeights,
    antibody_statistics,
    losses,
    policy_loss,
)

GENES, CLONES, DRAWS = 4, 6, 40_000


def loss_of(masks: Any) -> Any:
    """A loss of a mask (..., n) that is not a sum over genes."""
    return (masks @ torch.tensor([1.0, -2.0, 0.5, 3.0]) - 0.7).square() + masks[..., 0] * masks[..., 3]


def exact_gradient(probabilities: Any) -> Any:
    """Of the expected loss, summed over all 2^n masks."""
    p = probabilities.clone().double().requires_grad_()
    masks = torch.tensor(list(itertools.product([0.0, 1.0], repeat=GENES)), dtype=torch.float64)
    chance = torch.where(masks > 0, p, 1 - p).prod(dim=1)
    (chance * loss_of(masks.float()).double()).sum().backward()
    return p.grad


@pytest.mark.parametrize("summed", [False, True])
def test_the_policy_gradient_is_that_of_the_expected_loss(summed: bool) -> None:
    """With the clones' own mean as baseline the mean over S clones has (S - 1) / S of it, the sum S - 1 times it."""
    p = torch.tensor([0.3, 0.6, 0.8, 0.45])
    rows = p.repeat(DRAWS, 1).requires_grad_()
    masks = (uniform(0, 0, "policy", DRAWS, CLONES, GENES) < p).float()
    policy_loss(loss_of(masks), masks, rows, summed=summed).sum().backward()
    share = CLONES - 1 if summed else (CLONES - 1) / CLONES
    found, error = rows.grad.mean(dim=0) / share, rows.grad.std(dim=0) / DRAWS**0.5 / share
    difference = (found - exact_gradient(p)).abs()
    assert bool((difference < 5 * error).all()), (found, exact_gradient(p), error)
    assert float(error.max()) < 0.02 * float(exact_gradient(p).norm())  # otherwise any gradient would do


def test_summed_is_the_number_of_clones_times_the_mean() -> None:
    p = torch.rand(3, GENES) * 0.8 + 0.1
    masks = (torch.rand(3, CLONES, GENES) < p[:, None]).float()
    mean, total = (policy_loss(loss_of(masks), masks, p, summed=summed) for summed in (False, True))
    torch.testing.assert_close(total, CLONES * mean)


def test_the_policy_loss_holds_at_certain_probabilities_and_takes_no_gradient_of_the_losses() -> None:
    p = torch.tensor([[0.0, 1.0, 1e-9, 1 - 1e-9]], requires_grad=True)
    masks = torch.tensor([[[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]]])
    clone_losses = torch.tensor([[1.0, 2.0]], requires_grad=True)
    policy_loss(clone_losses, masks, p).sum().backward()
    assert bool(torch.isfinite(p.grad).all())
    assert clone_losses.grad is None


@given(
    st.integers(0, 1000), st.floats(0.01, 10, allow_subnormal=False), st.floats(0.1, 12)
)  # seed, temperature, spread
@settings(max_examples=40, deadline=None)
def test_a_relaxed_mask_is_exactly_0_or_1_and_passes_gradients(seed: int, temperature: float, spread: float) -> None:
    logits = (spread * (uniform(seed, 0, "logits", 5, 60) - 0.5)).requires_grad_()
    mask = relaxed_mask(logits, uniform(seed, 1, "draw", 5, 60), temperature)
    assert bool(((mask == 0) | (mask == 1)).all())
    mask.sum().backward()
    assert bool(torch.isfinite(logits.grad).all())
    assert float(logits.grad.min()) >= 0
    assert float(logits.grad.max()) > 0


def test_a_relaxed_mask_is_distributed_as_its_probabilities() -> None:
    p = torch.tensor([0.02, 0.3, 0.5, 0.9])
    mask = relaxed_mask(torch.logit(p).expand(DRAWS, -1), uniform(1, 0, "draw", DRAWS, 4), 0.7)
    error = (p * (1 - p) / DRAWS).sqrt()
    assert bool(((mask.mean(dim=0) - p).abs() < 5 * error).all())


def test_the_relaxed_gradient_is_that_of_the_binary_concrete_sample() -> None:
    logits = torch.tensor([[0.4, -1.0]], requires_grad=True)
    draw, temperature = torch.tensor([[0.3, 0.8]]), 0.7
    relaxed_mask(logits, draw, temperature).sum().backward()
    soft = torch.sigmoid((logits.detach() + torch.logit(draw)) / temperature)
    torch.testing.assert_close(logits.grad, soft * (1 - soft) / temperature)


def test_statistics_against_counting_by_hand() -> None:
    p = uniform(2, 0, "p", 7, 33)
    chosen = (p > 0.5).tolist()
    pairs = list(itertools.combinations(chosen, 2))
    hamming = [sum(a != b for a, b in zip(first, second, strict=True)) for first, second in pairs]
    found = antibody_statistics(p)
    assert found["sparsity"] == pytest.approx(sum(map(sum, chosen)) / 7)
    assert found["specificity"] == pytest.approx(sum(hamming) / len(hamming))
    assert found["mutation"] == pytest.approx(sum(abs(x - 0.5) for row in p.tolist() for x in row) / p.numel())


def test_statistics_of_equal_antibodies_and_of_one() -> None:
    same = antibody_statistics(torch.tensor([[0.9, 0.1, 0.6]]).repeat(4, 1))
    assert (same["sparsity"], same["specificity"]) == (2.0, 0.0)
    assert antibody_statistics(torch.tensor([[0.9, 0.1]]))["specificity"] == 0.0


def test_losses_are_the_paper_s_terms() -> None:
    draw = torch.Generator().manual_seed(1)
    purified, clean = (torch.rand(3, 10, generator=draw) for _ in range(2))
    mask = (torch.rand(3, 5, generator=draw) < 0.5).float()

    def embed(faces: Any) -> Any:
        return torch.nn.functional.normalize(faces[:, :4], dim=1)

    found = losses(purified, clean, mask, embed, embed(clean), LossWeights(8, 3e-3))
    for row in range(3):
        cosine = float(torch.cosine_similarity(purified[row, :4], clean[row, :4], dim=0))
        mean_square = float(((purified[row] - clean[row]) ** 2).mean())
        chosen = float(mask[row].sum())
        assert float(found.total[row]) == pytest.approx(mean_square + 3e-3 * chosen + 8 * (1 - cosine), rel=1e-5)
    free = losses(purified, clean, mask, embed, embed(clean), LossWeights(8, 0))
    torch.testing.assert_close(free.total, found.total - 3e-3 * mask.sum(dim=1))
