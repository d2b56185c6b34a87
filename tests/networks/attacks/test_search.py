from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.attacks import (  # noqa: E402 - needs torch
    Apgd,
    Goal,
    L2Ball,
    LinfBall,
    Patch,
    Pgd,
    Target,
    away_from_itself,
    deterministic,
    dodging,
    impersonation,
    search,
    square_regions,
    transfer,
    worst,
)
from immunogate.networks.attacks.target import JUDGING  # noqa: E402

METHODS = [Pgd(20), Pgd(20, momentum=0.9), Apgd(20)]
ROUNDING = 1e-6


def own_scores(embed: Any, points: Any, templates: Any) -> Any:
    with torch.no_grad():
        return torch.cosine_similarity(embed(points), templates, dim=1)


@pytest.mark.parametrize("method", [Pgd(60, share=0.3), Pgd(60, momentum=0.9, share=0.3), Apgd(60)])
@pytest.mark.parametrize("up", [False, True])
def test_a_linear_embedding_is_brought_to_its_analytic_worst_case(
    method: Any, up: bool, line: Any, along: Any, samples: Any
) -> None:
    clean, _ = samples()
    goal = (impersonation if up else dodging)(torch.tensor([[1.0, 0.0]]).expand(len(clean), -1))
    sign = 1 if up else -1
    regions = square_regions(len(clean), 3, (5, 8), seed=0)
    cases: list[tuple[Any, Any]] = [
        (LinfBall(0.1), (clean + sign * 0.1 * line.sign()).clamp(-1, 1)),
        (L2Ball(0.1), None),
        (Patch(regions), torch.where(regions, sign * line.sign(), clean)),
    ]
    inner = 0.5 * clean  # away from the box, so that the Euclidean optimum is known
    for ball, best in cases:
        points = inner if best is None else clean
        wanted = inner + sign * 0.1 * line / line.norm() if best is None else best
        found = search(Target(deterministic(along)), points, goal, ball, method)
        torch.testing.assert_close(found.scores, own_scores(along, wanted, goal.decide), atol=2e-4, rtol=0)
        torch.testing.assert_close(found.scores, own_scores(along, found.points, goal.decide), atol=1e-6, rtol=0)


@given(seed=st.integers(0, 1000), method=st.sampled_from(METHODS), eps=st.floats(0, 0.5, width=32))
@settings(max_examples=25, deadline=None)
def test_more_restarts_never_help_the_defender_and_points_stay_in_the_ball(
    seed: int, method: Any, eps: float, curved: Any, samples: Any
) -> None:
    clean, templates = samples(seed, 4)
    target, goal = Target(deterministic(curved)), dodging(templates)
    one, three = (
        search(target, clean, goal, LinfBall(eps), type(method)(6, restarts, seed=seed)) for restarts in (1, 3)
    )
    assert bool((three.scores <= one.scores).all())
    assert bool((one.scores <= own_scores(curved, clean, templates) + ROUNDING).all())
    for found in (one, three):
        assert float((found.points - clean).abs().max()) <= eps + ROUNDING
        assert float(found.points.abs().max()) <= 1


@pytest.mark.parametrize("method", METHODS)
def test_who_has_lost_is_attacked_no_further_and_the_others_as_before(method: Any, curved: Any, samples: Any) -> None:
    clean, templates = samples()
    target, ball = Target(deterministic(curved)), LinfBall(0.05)
    full = search(target, clean, dodging(templates), ball, method)
    limit = float(full.scores.median())
    frozen: dict[int, Any] = {}

    def look(done: int, total: int, state: Any) -> None:
        for row in torch.nonzero(state["lost"]).flatten().tolist():
            now = (state["best"][row].clone(), int(state["passes"][row]))
            assert torch.equal(frozen.setdefault(row, now)[0], now[0])
            assert frozen[row][1] == now[1]

    found = search(target, clean, dodging(templates, limit), ball, method, watch=look)
    assert 0 < int(found.lost.sum()) < len(clean)
    assert torch.equal(found.lost, found.scores < limit)
    assert bool((found.passes[found.lost] < full.passes[found.lost]).all())
    held = ~found.lost
    torch.testing.assert_close(found.scores[held], full.scores[held], atol=1e-5, rtol=0)
    assert bool((found.passes[held] == 20).all())


def test_faces_that_lose_unattacked_cost_nothing(curved: Any, samples: Any) -> None:
    clean, templates = samples()
    found = search(Target(deterministic(curved)), clean, dodging(templates, 1.1), LinfBall(0.1), Pgd(5))
    assert bool(found.lost.all())
    assert int(found.passes.sum()) == 0
    assert torch.equal(found.points, clean)


class Noisy:
    """A gate whose answers depend on the draw and the sample; it notes who asked for what."""

    def __init__(self, embed: Any, noise: float) -> None:
        self.embed, self.noise, self.draws = embed, noise, list[int]()

    def __call__(self, points: Any, rows: Any, draw: int) -> Any:
        self.draws.append(draw)
        noise = [
            torch.randn(points.shape[1], generator=torch.Generator().manual_seed(1000 * int(row) + draw % 997))
            for row in rows
        ]
        return self.embed(points + self.noise * torch.stack(noise))


@pytest.mark.parametrize("method", [Pgd(4, 2, momentum=0.5, seed=3), Apgd(7, 2, seed=3)])
@pytest.mark.parametrize("random", [False, True])
def test_a_stopped_search_goes_on_bit_for_bit(method: Any, random: bool, curved: Any, samples: Any) -> None:
    clean, templates = samples()
    gate = Noisy(curved, 0.05) if random else deterministic(curved)
    target = Target(gate, random=random, draws=3 if random else 1, judges=2 if random else 1)
    ball = L2Ball(0.3)
    goal = dodging(templates, float(search(target, clean, dodging(templates), ball, method).scores.median()))
    states = []

    def keep(done: int, total: int, state: Any) -> None:
        states.append({name: value.clone() for name, value in state.items()})
        assert total == method.steps * 2

    whole = search(target, clean, goal, ball, method, watch=keep, batch=5)
    assert 0 < int(whole.lost.sum()) < len(clean)
    again = search(target, clean, goal, ball, method, batch=5)
    for state in states[:: len(states) // 4]:
        rest = search(target, clean, goal, ball, method, state=state, batch=5)
        for found in (rest, again):
            assert torch.equal(found.points, whole.points)
            assert torch.equal(found.scores, whole.scores)
            assert torch.equal(found.passes, whole.passes)
    other = search(target, clean, goal, ball, type(method)(4, 2, seed=4), batch=5)
    assert not torch.equal(other.points, whole.points)


def test_gradients_are_averaged_over_draws_and_judged_by_other_ones(along: Any, samples: Any) -> None:
    clean, _ = samples()
    gate = Noisy(along, 0.2)
    goal = dodging(torch.tensor([[1.0, 0.0]]).expand(len(clean), -1))
    target = Target(gate, random=True, draws=3, judges=2)
    found = search(target, clean, goal, LinfBall(0.1), Pgd(4), every=3)
    asked = [draw for draw in gate.draws if draw < JUDGING]
    assert asked == list(range(12))
    assert [draw - JUDGING for draw in gate.draws if draw >= JUDGING] == [0, 1] * 4  # clean, steps 0 and 3, the end
    assert bool((found.passes == 12).all())
    rows = torch.arange(len(clean))
    means = torch.stack([goal.score(gate(found.points, rows, JUDGING + judge), rows) for judge in (0, 1)]).mean(dim=0)
    torch.testing.assert_close(found.scores, means)


def test_averaging_finds_the_way_that_single_draws_hide(line: Any, samples: Any) -> None:
    clean, _ = samples()

    def gate(points: Any, rows: Any, draw: int) -> Any:
        tilt = 4 * torch.randn(line.shape, generator=torch.Generator().manual_seed(draw % 997))
        value = points @ line + points.detach().square().mean() * 0 + (points - points.detach()) @ tilt
        return torch.stack([value, torch.ones_like(value)], dim=1)

    goal = dodging(torch.tensor([[1.0, 0.0]]).expand(len(clean), -1))
    one, many = (
        search(Target(gate, random=True, draws=draws), clean, goal, LinfBall(0.05), Pgd(4)).scores for draws in (1, 32)
    )
    assert float(many.mean()) < float(one.mean()) - 0.01


def test_the_gate_decides_what_is_best_not_the_surrogate(curved: Any, samples: Any) -> None:
    clean, templates = samples()
    calls = {"gate": 0, "surrogate": 0}

    def gate(points: Any, rows: Any, draw: int) -> Any:
        assert not torch.is_grad_enabled()
        calls["gate"] += 1
        return curved(points.round(decimals=1))

    def surrogate(points: Any, rows: Any, draw: int) -> Any:
        calls["surrogate"] += 1
        return curved(points)

    found = search(Target(gate, surrogate), clean, dodging(templates), LinfBall(0.2), Apgd(10))
    torch.testing.assert_close(found.scores, own_scores(lambda x: curved(x.round(decimals=1)), found.points, templates))
    assert float(found.scores.mean()) < float(own_scores(curved, clean, templates).mean()) - 0.2
    assert calls == {"gate": 12, "surrogate": 10}  # clean, ten steps, the end


def test_dodging_and_impersonation_share_a_batch(curved: Any, samples: Any) -> None:
    clean, templates = samples()
    up = torch.arange(len(clean)) % 2 == 0
    wanted = torch.where(up[:, None], templates.roll(1, dims=0), templates)
    mixed = search(Target(deterministic(curved)), clean, Goal(wanted, wanted, up), LinfBall(0.1), Pgd(10))
    before = own_scores(curved, clean, wanted)
    assert bool(((mixed.scores > before + 0.05) == up).all())
    alone = search(Target(deterministic(curved)), clean, impersonation(wanted), LinfBall(0.1), Pgd(10))
    torch.testing.assert_close(mixed.scores[up], alone.scores[up], atol=1e-5, rtol=0)


def test_a_limit_is_passed_downwards_by_dodging_and_reached_by_impersonation() -> None:
    templates, rows = torch.ones(4, 2), torch.arange(4)
    scores = torch.tensor([0.4, 0.5, 0.6, -1.0])
    assert dodging(templates, 0.5).lost(scores, rows).tolist() == [True, False, False, True]
    assert impersonation(templates, 0.5).lost(scores, rows).tolist() == [False, True, True, False]
    assert not dodging(templates).lost(scores, rows).any()
    mixed = Goal(templates, templates, torch.tensor([True, False, True, False]), torch.tensor([0.3, 0.5, 0.7, -1.0]))
    assert mixed.lost(scores, rows).tolist() == [True, False, False, False]
    assert mixed.lost(scores[[2, 0]], torch.tensor([2, 0])).tolist() == [False, True]


def test_away_from_itself_needs_no_other_picture(curved: Any, samples: Any) -> None:
    clean, _ = samples()
    embed = deterministic(curved)
    goal = away_from_itself(embed, clean)
    torch.testing.assert_close(own_scores(curved, clean, goal.decide), torch.ones(len(clean)))
    found = search(Target(embed), clean, goal, LinfBall(0.1), Pgd(10))
    assert float(found.scores.max()) < 0.99
    assert float(found.scores.mean()) < 0.9


def test_a_flat_gradient_is_counted_and_one_that_is_no_number_refused(along: Any, samples: Any) -> None:
    clean, _ = samples()
    goal = dodging(torch.tensor([[1.0, 0.0]]).expand(len(clean), -1), 0.0)

    def masked(points: Any) -> Any:
        return along(points.detach()) + 0 * points[:, :2]

    flat = search(Target(deterministic(masked)), clean, dodging(goal.decide), LinfBall(0.1), Pgd(5))
    assert torch.equal(flat.flat, flat.passes)
    torch.testing.assert_close(search(Target(deterministic(along)), clean, goal, LinfBall(0.1), Pgd(5)).flat,
                               torch.zeros(len(clean), dtype=torch.long))  # fmt: skip
    with pytest.raises(ValueError, match="not finite"):
        search(Target(deterministic(lambda x: along(x) * torch.nan)), clean, goal, LinfBall(0.1), Pgd(5))
    broken = deterministic(lambda x: along(x) + (x[:, :2] * 0).sqrt())  # the gradient of sqrt(0) is not finite
    with pytest.raises(ValueError, match="gradient"):
        search(Target(deterministic(along), broken), clean, dodging(goal.decide), LinfBall(0.1), Pgd(5))


def test_the_worst_of_several_searches_is_taken_for_each_sample(curved: Any, samples: Any) -> None:
    clean, templates = samples()
    target = Target(deterministic(curved))
    goal = dodging(templates, -2.0)
    founds = [search(target, clean, goal, LinfBall(0.1), Pgd(3, seed=seed)) for seed in (1, 2)]
    both = worst(goal, founds)
    assert torch.equal(both.scores, torch.minimum(founds[0].scores, founds[1].scores))
    torch.testing.assert_close(own_scores(curved, both.points, templates), both.scores)
    assert bool((both.passes == 6).all())
    raised = worst(impersonation(templates), founds)
    assert torch.equal(raised.scores, torch.maximum(founds[0].scores, founds[1].scores))


def test_a_transferred_attack_asks_the_gate_once_and_chooses_by_its_source(
    along: Any, curved: Any, samples: Any
) -> None:
    clean, templates = samples()
    asked = []

    def gate(points: Any, rows: Any, draw: int) -> Any:
        asked.append(len(rows))
        return curved(points)

    elsewhere = dodging(torch.tensor([[1.0, 0.0]]).expand(len(clean), -1), 2.0)
    found = transfer(Target(deterministic(along)), elsewhere, Target(gate), dodging(templates, 0.9), clean,
                     LinfBall(0.1), Pgd(8), batch=5)  # fmt: skip
    assert asked == [5, 5, 2]
    made = search(Target(deterministic(along)), clean, dodging(elsewhere.decide), LinfBall(0.1), Pgd(8))
    torch.testing.assert_close(found.points, made.points)
    torch.testing.assert_close(found.scores, own_scores(curved, made.points, templates))
    assert torch.equal(found.lost, found.scores < 0.9)


def test_wrong_calls_are_refused(along: Any, curved: Any, samples: Any) -> None:
    clean, templates = samples()
    target = Target(deterministic(curved))
    for points, goal, options in (
        (clean[:3], dodging(templates), {}),
        (clean * 3, dodging(templates), {}),
        (clean, dodging(templates), {"batch": 0}),
    ):
        with pytest.raises(ValueError, match="expected"):
            search(target, points, goal, LinfBall(0.1), Pgd(2), **options)
    with pytest.raises(ValueError, match="Goal"):
        Goal(templates, templates[:2], torch.zeros(len(clean), dtype=torch.bool))
    with pytest.raises(ValueError, match="finite"):
        dodging(templates * torch.nan)
    with pytest.raises(ValueError, match="random"):
        Target(deterministic(along), draws=2)
    with pytest.raises(ValueError, match="training mode"):
        deterministic(torch.nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="at least one"):
        worst(dodging(templates), [])
