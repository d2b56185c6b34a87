from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from immunogate.basis import Eigenbasis
from immunogate.kernels.antibody import AntibodySettings, make_antibodies
from immunogate.kernels.reference import CloneKey
from immunogate.structs import PIXELS

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.attacks import Apgd, LinfBall, Target, dodging, search, worst  # noqa: E402 - needs torch
from immunogate.networks.attacks.target import embedded_in_batches  # noqa: E402
from immunogate.networks.attacks.twins import TwinGate, variants_of  # noqa: E402
from immunogate.networks.recognisers import RecogniserSpec  # noqa: E402
from immunogate.networks.spectral import SpectralPurifier  # noqa: E402
from immunogate.networks.twin import TorchTwin  # noqa: E402

GENES = 24
DRAWN = ("sample", "select")
SETTINGS = {mode: AntibodySettings(mode, clones=16, keep=3, seed=9) for mode in ("threshold", *DRAWN)}


def clones(mode: str) -> Any:
    """The kernels' clones, as a gate draws them."""

    def kept(p: Any, genes: Any, rows: Any, draw: int) -> Any:
        key = CloneKey(9, np.full(len(rows), draw, np.uint32), rows.numpy().astype(np.uint32))
        found = make_antibodies(SETTINGS[mode], genes.numpy(), p.numpy(), key, PIXELS)
        return torch.from_numpy(found.weights)

    return kept


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "gated"])
def twin(request: Any) -> Any:
    draw = np.random.default_rng(4)
    axes, _ = np.linalg.qr(draw.standard_normal((PIXELS, GENES)))
    mean = (0.1 * draw.standard_normal(PIXELS)).astype(np.float32)
    basis = Eigenbasis(mean, np.ascontiguousarray(axes.T, np.float32), np.ones(GENES, np.float32), 30.0, 100)
    torch.manual_seed(1)
    recogniser = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8, 8), torch.nn.Tanh(), torch.nn.Flatten(),
                                     torch.nn.Linear(4 * 14 * 14, 8))  # fmt: skip
    purifier = SpectralPurifier(torch.full((GENES + 2,), 3.0), 16, gated=request.param)
    with torch.no_grad():
        purifier.generator.bias.normal_()
        purifier.generator.weight.mul_(30)
    spec = RecogniserSpec("made up", lambda: recogniser, 112, 112, 0, 127.5, 127.5, "any", 8, "a test")
    return TorchTwin(recogniser, spec, basis, "expected", 0, purifier.eval(), views=2)


@pytest.fixture(scope="module")
def faces(twin: Any) -> Any:
    draw = torch.Generator().manual_seed(2)
    coefficients = 3 * torch.randn(5, GENES, generator=draw)
    return (twin.mean + coefficients @ twin.basis + 0.05 * torch.randn(5, PIXELS, generator=draw)).clamp(-1, 1)


def gate(twin: Any, mode: str, variant: str | None = None) -> Any:
    return TwinGate(twin, mode, variant, clones(mode) if mode in DRAWN else None)


@pytest.mark.parametrize("mode", ["threshold", "sample", "select"])
def test_every_variant_but_the_soft_one_answers_as_the_gate_does(twin: Any, faces: Any, mode: str) -> None:
    rows = torch.tensor([3, 0, 7, 1, 2])
    with torch.no_grad():
        p = twin.probabilities(faces)
        spectrum = (faces - twin.mean) @ twin.basis.T
        if p.shape[1] > GENES:
            rest = (faces - twin.mean - spectrum @ twin.basis).norm(dim=1, keepdim=True)
            spectrum = torch.cat([spectrum, rest], dim=1)
        masks = (p > 0.5)[:, None].float() if mode == "threshold" else clones(mode)(p, spectrum, rows, 6)
        each = [twin.purify(faces, masks[:, kept]) for kept in range(masks.shape[1])]
        single = torch.stack([twin.embed(face) for face in each])
        seen = torch.stack([twin.embed(face.reshape(-1, 112, 112).flip(2).reshape(-1, PIXELS)) for face in each])
        wanted = torch.nn.functional.normalize(torch.cat([single, seen]).mean(dim=0), dim=1)
        for variant in variants_of(mode):
            answer = gate(twin, mode, variant)(faces, rows, 6)
            same = torch.allclose(answer, wanted, atol=1e-5)
            assert same == (variant != "expected"), variant


@pytest.mark.parametrize("mode", ["fixed", "expected", "threshold", "sample", "select"])
def test_rows_do_not_depend_on_what_else_is_in_the_batch(twin: Any, faces: Any, mode: str) -> None:
    for variant in variants_of(mode):
        attacked = gate(twin, mode, variant)
        whole = embedded_in_batches(attacked, faces, draw=3)
        some = torch.tensor([4, 1])
        torch.testing.assert_close(attacked(faces[some], some, 3).detach(), whole[some])
        other = embedded_in_batches(attacked, faces, draw=4)
        assert torch.equal(other, whole) == (not attacked.random or variant == "expected")


def gradients(twin: Any, faces: Any, mode: str, variant: str) -> Any:
    points = faces.clone().requires_grad_()
    goal = dodging(torch.ones(len(faces), 8))
    rows = torch.arange(len(faces))
    goal.gain(gate(twin, mode, variant)(points, rows, 1), rows).sum().backward()
    return points.grad


@pytest.mark.parametrize("mode", ["threshold", "sample", "select"])
def test_variants_give_different_gradients_and_only_the_constant_one_passes_the_network_by(
    twin: Any, faces: Any, mode: str
) -> None:
    found = {variant: gradients(twin, faces, mode, variant) for variant in variants_of(mode)}
    assert all(bool(gradient.isfinite().all()) for gradient in found.values())
    names = list(found)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            assert float((found[name] - found[other]).norm() / found[name].norm()) > 1e-3, (name, other)
    # The antibody held fixed: what is followed then is the projection and the recogniser alone.
    points, rows = faces.clone().requires_grad_(), torch.arange(len(faces))
    with torch.no_grad():
        attacked = gate(twin, mode, "constant")
        centred = points - twin.mean
        masks = attacked._antibodies(points, centred, centred @ twin.basis.T, rows, 1)
    dodge = dodging(torch.ones(len(faces), 8))
    purified = [twin.purify(points, masks[:, kept]) for kept in range(masks.shape[1])]
    dodge.gain(attacked._seen(purified), rows).sum().backward()
    torch.testing.assert_close(found["constant"], points.grad, atol=1e-7, rtol=1e-3)


def test_the_relaxed_gradient_agrees_with_its_masks(twin: Any, faces: Any) -> None:
    attacked, rows = gate(twin, "select", "relaxed"), torch.arange(len(faces))
    with torch.no_grad():
        p = twin.probabilities(faces)
        centred = faces - twin.mean
        masks = attacked._antibodies(faces, centred, centred @ twin.basis.T, rows, 1)
        soft = attacked._relaxed(p, masks, rows, 1)
    assert torch.equal(soft > 0.5, masks > 0.5)
    assert float(soft.std()) > 0.1


@pytest.mark.parametrize("mode", ["threshold", "select"])
def test_the_worst_over_variants_pushes_a_gate_whose_masks_have_no_gradient(twin: Any, faces: Any, mode: str) -> None:
    deployed = gate(twin, mode, "constant")
    goal = dodging(embedded_in_batches(deployed, faces))
    founds = []
    for variant in variants_of(mode):
        target = Target(deployed, gate(twin, mode, variant), deployed.random, 2 if deployed.random else 1)
        founds.append(search(target, faces, goal, LinfBall(0.1), Apgd(4)))
    both = worst(goal, founds)
    assert bool((both.scores <= torch.stack([found.scores for found in founds]).amin(dim=0)).all())
    assert float(both.scores.mean()) < 0.9
    assert float((both.points - faces).abs().max()) <= 0.1 + 1e-6


def test_wrong_variants_and_missing_clones_are_refused(twin: Any) -> None:
    for mode, variant in (("fixed", "relaxed"), ("expected", "straight-through"), ("threshold", "exact")):
        with pytest.raises(ValueError, match="variant"):
            TwinGate(twin, mode, variant)
    with pytest.raises(ValueError, match="draws clones"):
        TwinGate(twin, "select")
