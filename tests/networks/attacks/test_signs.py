from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.files import find_data

torch = pytest.importorskip("torch")

from immunogate.networks.attacks import fgsm, from_levels, pgd  # noqa: E402

PIXELS, EMBEDDING = 96, 12
ROUNDING = 1e-6


def network() -> Any:
    """A small recogniser with BatchNorm, smooth enough that more steps find more."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(
        torch.nn.Linear(PIXELS, 48), torch.nn.BatchNorm1d(48), torch.nn.Tanh(), torch.nn.Linear(48, EMBEDDING)
    )
    with torch.no_grad():
        net(torch.rand(64, PIXELS) * 2 - 1)  # statistics away from the identity
    return net.eval()


def pairs(seed: int = 0, count: int = 24) -> tuple[Any, Any]:
    """Faces, some pixels of which lie on the edge of the range, and the embeddings of pictures beside them."""
    draw = torch.Generator().manual_seed(seed)
    faces = (torch.rand(count, PIXELS, generator=draw) * 2.4 - 1.2).clamp(-1, 1)
    beside = (faces + 0.2 * torch.randn(count, PIXELS, generator=draw)).clamp(-1, 1)
    with torch.no_grad():
        return faces, network()(beside)


def cosines(embed: Any, faces: Any, templates: Any) -> Any:
    with torch.no_grad():
        return torch.cosine_similarity(embed(faces), templates, dim=1)


def assert_bounded(attacked: Any, faces: Any, eps: float) -> None:
    assert attacked.shape == faces.shape
    assert attacked.dtype == faces.dtype
    assert float((attacked - faces).abs().max()) <= eps + ROUNDING
    assert -1 <= float(attacked.min()) <= float(attacked.max()) <= 1


@given(
    seed=st.integers(0, 1000),
    eps=st.floats(0, 2, width=32),
    steps=st.integers(1, 6),
    step_size=st.none() | st.floats(0.0009765625, 3, width=32),
    random_start=st.booleans(),
    best=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_attacks_stay_in_the_ball_and_in_the_picture(
    seed: int, eps: float, steps: int, step_size: float | None, random_start: bool, best: bool
) -> None:
    embed, (faces, templates) = network(), pairs(seed, 4)
    before = faces.clone()
    assert_bounded(fgsm(embed, faces, templates, eps), faces, eps)
    options = {"random_start": random_start, "best": best}
    assert_bounded(pgd(embed, faces, templates, eps, steps, step_size, **options), faces, eps)
    assert torch.equal(faces, before)


def test_fgsm_moves_every_pixel_inside_by_eps_against_the_gradient() -> None:
    embed, (faces, templates) = network(), pairs()
    attacked = fgsm(embed, faces, templates, 0.04)
    inside = faces.abs() <= 1 - 0.04
    moved = (attacked - faces)[inside].abs()
    assert float((moved - 0.04).abs().max()) < ROUNDING  # a gradient of exactly 0 does not occur here
    point = faces.clone().requires_grad_()
    torch.cosine_similarity(embed(point), templates, dim=1).sum().backward()
    assert torch.equal((attacked - faces)[inside].sign(), -point.grad[inside].sign())


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_a_larger_eps_never_helps_the_defender(attack: str) -> None:
    embed, (faces, templates) = network(), pairs()
    found = [float(cosines(embed, faces, templates).mean())]
    for eps in (0.01, 0.03, 0.1, 0.3):
        attacked = (
            fgsm(embed, faces, templates, eps) if attack == "fgsm" else pgd(embed, faces, templates, eps, steps=20)
        )
        found.append(float(cosines(embed, attacked, templates).mean()))
    assert all(later < earlier for earlier, later in itertools.pairwise(found)), found


def test_more_steps_are_stronger_and_pgd_is_at_least_fgsm() -> None:
    embed, (faces, templates) = network(), pairs()
    one = cosines(embed, fgsm(embed, faces, templates, 0.3), templates)
    by_steps = [
        float(
            cosines(
                embed, pgd(embed, faces, templates, 0.3, steps, step_size=0.03, random_start=False), templates
            ).mean()
        )
        for steps in (1, 5, 20, 60)
    ]
    assert all(more < fewer for fewer, more in itertools.pairwise(by_steps)), by_steps
    strong = cosines(embed, pgd(embed, faces, templates, 0.3, 60), templates)
    assert float(strong.mean()) < float(one.mean())
    assert float((strong <= one + ROUNDING).float().mean()) > 0.9


def test_one_step_of_pgd_over_the_whole_ball_is_fgsm() -> None:
    embed, (faces, templates) = network(), pairs()
    single = pgd(embed, faces, templates, 0.1, 1, step_size=0.1, random_start=False, best=False)
    assert torch.equal(single, fgsm(embed, faces, templates, 0.1))


def test_the_best_of_the_trajectory_and_of_restarts_is_never_worse_for_any_face() -> None:
    embed, (faces, templates) = network(), pairs()
    common = {"steps": 8, "step_size": 0.2}  # so long a step oscillates, hence the end is often not the best
    end, best, more = (
        cosines(embed, pgd(embed, faces, templates, 0.3, **common, **options), templates)
        for options in ({"best": False}, {"best": True}, {"best": True, "restarts": 4})
    )
    assert bool((best <= end + ROUNDING).all())
    assert float((best < end - 1e-4).float().mean()) > 0.2
    assert bool((more <= best + ROUNDING).all())
    assert float((more < best - 1e-4).float().mean()) > 0.2


def test_the_seed_alone_decides_and_the_global_generator_is_left_alone() -> None:
    embed, (faces, templates) = network(), pairs()
    state = torch.get_rng_state()
    first = pgd(embed, faces, templates, 0.1, 5, seed=7)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert torch.equal(first, pgd(embed, faces, templates, 0.1, 5, seed=7))
    assert not torch.equal(first, pgd(embed, faces, templates, 0.1, 5, seed=8))


def test_templates_travel_with_their_faces() -> None:
    embed, (faces, templates) = network(), pairs()
    whole = pgd(embed, faces, templates, 0.1, 5, random_start=False)
    order = torch.arange(len(faces) - 1, -1, -1)
    torch.testing.assert_close(pgd(embed, faces[order], templates[order], 0.1, 5, random_start=False), whole[order])


def test_the_network_is_left_as_it_was() -> None:
    embed, (faces, templates) = network(), pairs()
    weight = next(embed.parameters())
    weight.grad = torch.full_like(weight, 5.0)  # as after a backward pass of somebody else's training
    before = copy.deepcopy(embed.state_dict())
    fgsm(embed, faces, templates, 0.1)
    pgd(embed, faces, templates, 0.1, 5, restarts=2)
    assert all(torch.equal(value, before[key]) for key, value in embed.state_dict().items())
    assert all(parameter.requires_grad for parameter in embed.parameters())
    assert bool((weight.grad == 5).all())
    assert all(parameter.grad is None for parameter in list(embed.parameters())[1:])
    assert not faces.requires_grad


def test_attacks_work_where_gradients_are_switched_off() -> None:
    embed, (faces, templates) = network(), pairs()
    with torch.no_grad():
        attacked = fgsm(embed, faces, templates, 0.1)
        stronger = pgd(embed, faces, templates, 0.1, 3)
    assert float(cosines(embed, attacked, templates).mean()) < float(cosines(embed, faces, templates).mean())
    assert not attacked.requires_grad
    assert not stronger.requires_grad


def test_eps_of_nothing_changes_nothing() -> None:
    embed, (faces, templates) = network(), pairs()
    assert torch.equal(fgsm(embed, faces, templates, 0.0), faces)
    assert torch.equal(pgd(embed, faces, templates, 0.0, 3), faces)


def test_levels_are_doubled_on_the_wider_scale() -> None:
    assert from_levels(8) == pytest.approx(16 / 255)
    assert from_levels(255) == 2


def test_every_face_may_have_a_bound_of_its_own() -> None:
    embed, (faces, templates) = network(), pairs()
    eps = torch.linspace(0, 0.3, len(faces))[:, None]
    for attacked in (fgsm(embed, faces, templates, eps), pgd(embed, faces, templates, eps, 4, eps / 3)):
        moved = (attacked - faces).abs().amax(dim=1, keepdim=True)
        assert bool((moved <= eps + ROUNDING).all())
        assert bool((moved > 0.9 * eps - ROUNDING).all())
        assert torch.equal(attacked[0], faces[0])
    options: dict[str, Any] = {"steps": 3, "random_start": False, "best": False}
    together = pgd(embed, faces, templates, eps, **options)
    for row in (1, 12, 23):
        one = slice(row, row + 1)
        alone = pgd(embed, faces[one], templates[one], float(eps[row]), **options)
        torch.testing.assert_close(alone, together[one], atol=ROUNDING, rtol=0)


def test_an_attack_may_begin_where_the_caller_says() -> None:
    embed, (faces, templates) = network(), pairs()
    begin = torch.full_like(faces, 3.0)  # outside: it is brought into the ball first
    corner = torch.minimum(faces + 0.1, torch.ones(()))
    options: dict[str, Any] = {"steps": 1, "step_size": 1e-6, "best": False}
    torch.testing.assert_close(pgd(embed, faces, templates, 0.1, start=begin, **options), corner, atol=1e-5, rtol=0)
    assert bool((begin == 3).all())
    first, second = (pgd(embed, faces, templates, 0.1, 4, start=begin, seed=seed) for seed in (1, 2))
    assert torch.equal(first, second)
    restarted = cosines(embed, pgd(embed, faces, templates, 0.1, 4, start=begin, restarts=3), templates)
    assert bool((restarted <= cosines(embed, first, templates) + ROUNDING).all())


def test_only_an_attack_without_clamp_leaves_the_range_of_pictures() -> None:
    embed, (faces, templates) = network(), pairs()
    free, kept = (fgsm(embed, faces, templates, 0.1, clamp=clamp) for clamp in (False, True))
    assert float(free.abs().max()) == pytest.approx(1.1, abs=1e-4)
    assert torch.equal(free.clamp(-1, 1), kept)
    assert float((free - faces).abs().max()) <= 0.1 + ROUNDING


@pytest.mark.parametrize("eps", [torch.zeros(3), torch.zeros(1, 2), torch.zeros(24), torch.full((24, 1), 2.1)])
def test_bounds_of_another_shape_or_range_are_refused(eps: Any) -> None:
    faces, templates = pairs()
    with pytest.raises(ValueError, match="eps"):
        fgsm(network(), faces, templates, eps)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"faces": torch.zeros(2, 3, 4)}, "expected faces"),
        ({"templates": torch.zeros(1, EMBEDDING)}, "expected faces"),
        ({"faces": torch.full((2, PIXELS), 1.01)}, "got 1.01 to 1.01"),
        ({"faces": torch.full((2, PIXELS), torch.nan)}, "nan"),
        ({"eps": -0.1}, "eps"),
        ({"eps": 2.5}, "eps"),
        ({"eps": float("nan")}, "eps"),
        ({"steps": 0}, "0 steps"),
        ({"restarts": 0}, "0 restarts"),
        ({"restarts": 2, "random_start": False}, "random_start=False"),
        ({"step_size": 0.0}, "step_size"),
    ],
)
def test_wrong_calls_are_refused(change: dict[str, Any], words: str) -> None:
    call = {"faces": torch.zeros(2, PIXELS), "templates": torch.ones(2, EMBEDDING), "eps": 0.1, "steps": 2} | change
    with pytest.raises(ValueError, match=words):
        pgd(network(), **call)


@pytest.mark.parametrize("as_method", [False, True])
def test_a_network_in_training_mode_is_refused(as_method: bool) -> None:
    net, (faces, templates) = network(), pairs()
    net[1].train()  # one layer is enough to change its statistics
    with pytest.raises(ValueError, match="training mode"):
        fgsm(net.forward if as_method else net, faces, templates, 0.1)


@pytest.mark.data
def test_the_real_recogniser_is_dodged_within_the_paper_s_eps() -> None:
    folder = find_data()
    if folder is None:
        pytest.skip("no development data: set IMMUNOGATE_DATA")
    from immunogate.basis import Eigenbasis
    from immunogate.faces_file import faces_from_pixels, load_aligned_faces
    from immunogate.networks.recognisers import load_recogniser
    from immunogate.networks.twin import TorchTwin

    aligned = load_aligned_faces(folder / "faces" / "lfw_dev_aligned_112.npz")
    people, first, counts = np.unique(aligned.identities, return_index=True, return_counts=True)
    chosen = first[counts >= 2][:4]
    names = aligned.identities
    others = [int(np.flatnonzero(names == names[index])[1]) for index in chosen]
    faces, beside = (torch.from_numpy(faces_from_pixels(aligned.images[rows])) for rows in (chosen, others))
    flat = Eigenbasis(np.zeros(12544, np.float32), np.eye(1, 12544, dtype=np.float32), np.ones(1, np.float32), 1.0, 2)
    network, spec = load_recogniser(folder / "models" / "mobilefacenet_casia_112x96.pt", "mobilefacenet")
    twin = TorchTwin(network, spec, flat)
    with torch.no_grad():
        templates = twin.embed(beside)
    attacked = pgd(twin.embed, faces, templates, 0.04, 10)
    assert_bounded(attacked, faces, 0.04)
    clean, dodged = (cosines(twin.embed, some, templates) for some in (faces, attacked))
    assert bool((dodged < clean - 0.4).all()), (clean, dodged)
    assert len(people) > 1000
