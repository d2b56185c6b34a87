"""What a purifier is trained against: kinds, sizes, the attacks themselves, and the pool of live ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.attacks import from_levels  # noqa: E402 - needs torch
from immunogate.training.purifier.rehearsal import (  # noqa: E402
    ADAPTIVE,
    BARE,
    CLEAN,
    AverageRehearsal,
    Infections,
    LiveRehearsal,
    Share,
    spread,
)

ROUNDING = 1e-6


@pytest.fixture(scope="module")
def infections(begin: Any, few: Any, faces: Any) -> Any:
    """Make the shared part over an untrained defence: ``infections(**settings)``."""
    defence = begin(few()).average
    original = begin(few()).twin.embed

    def make(share: Share | None = None, **changes: Any) -> Infections:
        settings = few(**{"batch": 8, "warmup_steps": 0, "clean": 0.25, "adaptive": 0.5, **changes})
        return Infections(defence, original, faces, settings, share or Share(0, settings.batch))

    return make


def cosines(embed: Any, faces: Any, targets: Any) -> Any:
    with torch.no_grad():
        return (embed(faces) * targets).sum(dim=1)


@given(st.integers(2, 60), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_kinds_share_the_whole_batch(infections: Any, batch: int, clean: float, rest: float) -> None:
    adaptive = (1 - clean) * rest
    kinds = infections(batch=batch, clean=clean, adaptive=adaptive).kinds().tolist()
    assert len(kinds) == batch
    assert kinds == sorted(kinds)
    for kind, share in ((CLEAN, clean), (ADAPTIVE, adaptive), (BARE, 1 - clean - adaptive)):
        assert abs(kinds.count(kind) - batch * share) <= 1


@given(st.integers(1, 200), st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_processes_share_the_rows_evenly_and_in_order(count: int, processes: int) -> None:
    shares = [spread(count, process, processes) for process in range(processes)]
    assert [row for share in shares for row in range(count)[share.rows]] == list(range(count))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_sizes_grow_over_the_first_third_and_clean_rows_have_none(infections: Any) -> None:
    shared = infections(batch=200, warmup_steps=10, steps=90, least_eps=1.0, most_eps=6.0, adaptive=0.75)
    largest = []
    for step in range(10, 100):
        eps = shared.eps(step)[:, 0] / from_levels(1)
        assert bool((eps[:50] == 0).all())
        assert 1 - ROUNDING <= float(eps[50:].min()) <= float(eps.max()) <= 6 + ROUNDING
        largest.append(float(eps.max()))
    assert max(largest[:3]) < 4
    assert largest[2] < largest[15] < largest[29]
    assert min(largest[30:]) > 5.5
    assert not torch.equal(shared.eps(60), shared.eps(61))


def test_attacks_on_the_bare_recogniser_have_a_size_of_their_own_from_the_beginning(infections: Any) -> None:
    shared = infections(batch=400, steps=300, least_eps=1.0, most_eps=2.0, bare_eps=9.0)
    eps = shared.eps(0)[:, 0] / from_levels(1)
    assert float(eps[100:].min()) >= 1 - ROUNDING
    assert 1.4 < float(eps[100:300].max()) < 1.6
    assert 8.5 < float(eps[300:].max()) < 9 + ROUNDING
    assert float(eps[300:].min()) < 2


def test_the_published_size_is_one_for_all(infections: Any) -> None:
    eps = infections(batch=40, clean=0.0, adaptive=1.0, least_eps=5.1, most_eps=5.1).eps(0)
    torch.testing.assert_close(eps, torch.full((40, 1), 0.04))


def test_the_largest_sizes_that_settings_allow_can_be_attacked_with(infections: Any) -> None:
    shared = infections(steps=3, least_eps=255.0, most_eps=255.0, bare_eps=255.0)
    assert float(shared.eps(2).max()) == pytest.approx(2)
    AverageRehearsal(shared).batch(2)


def test_warming_up_is_on_gaussian_noise(infections: Any) -> None:
    shared = infections(warmup_steps=3, jitter=0.0)
    for rehearsal in (AverageRehearsal(shared), LiveRehearsal(shared)):
        found = rehearsal.batch(2)
        noise = (found.attacked - found.clean)[found.clean.abs() < 0.8]
        assert float(noise.std()) == pytest.approx(0.04, rel=0.02)
        assert abs(float(noise.mean())) < 1e-3
        assert float(found.attacked.abs().max()) <= 1
        assert not torch.equal(rehearsal.batch(1).attacked, found.attacked)


@pytest.mark.parametrize("rehearsal", [AverageRehearsal, LiveRehearsal])
@pytest.mark.parametrize("attack", ["pgd", "fgsm"])
def test_clean_rows_stay_clean_and_attacks_stay_within_their_bound(
    infections: Any, rehearsal: Any, attack: str
) -> None:
    shared = infections(attack=attack, attack_steps=4)
    one = rehearsal(shared)
    for step in range(6):
        found = one.batch(step)
        eps = one._pool["eps"] if rehearsal is LiveRehearsal else shared.eps(step)
        assert torch.equal(found.attacked[:2], found.clean[:2])
        change = (found.attacked - found.clean).abs().amax(dim=1, keepdim=True)
        assert bool((change <= eps + ROUNDING).all())
        assert bool((change[2:] > 0.3 * eps[2:]).all())
        assert float(found.attacked.abs().max()) <= 1
        one.follow(torch.randn(8, found.clean.shape[1], generator=torch.Generator().manual_seed(step)))


def test_targets_are_the_undefended_embeddings_of_the_clean_faces(infections: Any) -> None:
    shared = infections()
    for rehearsal in (AverageRehearsal(shared), LiveRehearsal(shared)):
        found = rehearsal.batch(3)
        with torch.no_grad():
            torch.testing.assert_close(found.targets, shared.original(found.clean))


def test_attacks_of_the_average_move_each_kind_through_what_it_attacks(infections: Any) -> None:
    shared = infections(attack_steps=6, least_eps=6.0, most_eps=6.0, bare_eps=6.0)
    found = AverageRehearsal(shared).batch(0)
    start = shared.start(found.clean, shared.eps(0), 0)
    for kind, embed in ((ADAPTIVE, shared.defence), (BARE, shared.defence.embed)):
        rows = found.kinds == kind
        before, after = (cosines(embed, some[rows], found.targets[rows]) for some in (start, found.attacked))
        assert bool((after < before - 1e-3).all()), kind


def test_published_attacks_are_not_clamped_and_others_are(infections: Any) -> None:
    common = {
        "attack": "fgsm",
        "clean": 0.0,
        "adaptive": 1.0,
        "least_eps": 80.0,
        "most_eps": 80.0,
        "bare_eps": 80.0,
        "jitter": 0.0,
    }
    peaks = [
        float(AverageRehearsal(infections(**common, paper_exact=exact)).batch(1).attacked.abs().max())
        for exact in (True, False)
    ]
    assert peaks[0] > 1.01
    assert peaks[1] <= 1


def test_attacking_leaves_the_attacked_copy_as_it_was(begin: Any, few: Any) -> None:
    for architecture in ("compact", "spectral"):
        trainer = begin(few(architecture=architecture, rehearsal="average", warmup_steps=0))
        before = copy.deepcopy(trainer.average.state_dict())
        trainer.rehearsal.batch(0)
        after = trainer.average.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        assert all(weight.grad is None for weight in trainer.average.parameters())


def test_live_rows_are_renewed_at_the_end_of_their_life(infections: Any) -> None:
    shared = infections(attack_steps=5, batch=8)
    live = LiveRehearsal(shared)
    lives: list[list[int]] = [[1] for _ in range(8)]
    clean = live.batch(0).clean.clone()
    live.follow(torch.zeros_like(clean))
    for step in range(1, 40):
        fresh = shared.clean(step)[0]
        now = live.batch(step).clean.clone()
        for row in range(8):
            if torch.equal(now[row], clean[row]):
                lives[row][-1] += 1
            else:
                assert torch.equal(now[row], fresh[row])
                lives[row].append(1)
        clean = now
        live.follow(torch.zeros_like(clean))
    assert all(set(row[:-1]) == {1} for row in lives[:2]), "clean rows change at every step"
    seen = {life for row in lives[2:] for life in row[:-1]}
    assert seen == {2, 3, 4, 5}, "half of attack_steps to all of them"


def test_adaptive_rows_climb_the_gradient_they_are_given(infections: Any) -> None:
    live = LiveRehearsal(infections(attack_steps=1000, jitter=0.0))
    first = live.batch(0)
    eps = live._pool["eps"].clone()
    gradient = torch.where(torch.arange(first.clean.shape[1]) % 2 == 0, 1.0, -1.0).repeat(8, 1)
    for step in range(1, 9):
        live.follow(gradient)
        found = live.batch(step)
    rows = first.kinds == ADAPTIVE
    corner = (first.clean + eps * gradient).clamp(-1, 1)[rows]
    torch.testing.assert_close(found.attacked[rows], corner, atol=ROUNDING, rtol=0)
    assert torch.equal(found.attacked[:2], found.clean[:2])


def test_bare_rows_climb_by_themselves(infections: Any) -> None:
    shared = infections(attack_steps=1000, clean=0.0, adaptive=0.0, least_eps=4.0, most_eps=4.0)
    live = LiveRehearsal(shared)
    found = [live.batch(step) for step in range(8)]
    by_step = [float(cosines(shared.defence.embed, one.attacked, one.targets).mean()) for one in found]
    assert by_step[-1] < by_step[1] < by_step[0] - 1e-3, by_step


def test_a_batch_is_no_view_of_the_pool(infections: Any) -> None:
    live = LiveRehearsal(infections(attack_steps=1000))
    found = live.batch(0)
    kept = found.attacked.clone()
    live.follow(torch.ones_like(kept))
    assert torch.equal(found.attacked, kept)


@pytest.mark.parametrize("rehearsal", [AverageRehearsal, LiveRehearsal])
def test_shares_of_the_batch_are_its_rows(infections: Any, rehearsal: Any) -> None:
    """Draws are made for the whole batch, so a share gets the very faces, sizes and starts; embeddings may round."""
    whole = rehearsal(infections()).batch(1)
    for share in (Share(0, 3), Share(3, 8)):
        part = rehearsal(infections(share)).batch(1)
        assert torch.equal(part.clean, whole.clean[share.rows])
        assert torch.equal(part.kinds, whole.kinds[share.rows])
        torch.testing.assert_close(part.targets, whole.targets[share.rows])
        moved = (part.attacked - whole.attacked[share.rows]).abs()
        assert float((moved > 1e-5).float().mean()) < 1e-3  # a sign where the gradient is all but zero


def test_a_pool_of_other_rows_is_refused(infections: Any) -> None:
    whole, part = LiveRehearsal(infections()), LiveRehearsal(infections(Share(0, 3)))
    whole.batch(0)
    part.batch(0)
    with pytest.raises(ValueError, match="as many processes as before"):
        whole.restore(part.state())
    whole.restore({})


def test_what_a_row_gets_does_not_depend_on_which_others_are_renewed(infections: Any) -> None:
    for changes in ({}, {"varied": 0.5, "mixed": 0.5}):
        shared = infections(**changes)
        faces, targets = shared.clean(5)
        wanted = torch.tensor([False, True, False, False, True, True, False, False])
        some, their_targets = shared.clean(5, wanted)
        assert torch.equal(some, faces[wanted])
        torch.testing.assert_close(their_targets, targets[wanted])
        assert torch.equal(
            shared.start(some, shared.eps(5)[wanted], 5, wanted), shared.start(faces, shared.eps(5), 5)[wanted]
        )


def test_varied_faces_are_others_within_the_range_of_pictures(infections: Any) -> None:
    plain, other = infections().clean(2)[0], infections(varied=1.0).clean(2)[0]
    assert float((plain - other).abs().mean()) > 0.02
    assert -1 - ROUNDING <= float(other.min()) <= float(other.max()) <= 1 + ROUNDING


def test_mixed_faces_are_of_two_people_and_mixing_leaves_the_others_alone(infections: Any) -> None:
    plain = infections().clean(2)[0]
    every, some = infections(mixed=1.0).clean(2)[0], infections(mixed=0.5).clean(2)[0]
    changed = (plain - every).abs().mean(dim=1)
    assert float(changed.min()) > 0.01
    kept = (plain - some).abs().amax(dim=1) < 1e-4
    assert bool(kept.any())
    assert torch.equal(some[~kept], every[~kept])
