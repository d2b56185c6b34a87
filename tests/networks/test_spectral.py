from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from immunogate.basis import LEAST_REMAINDER, Eigenbasis
from immunogate.errors import UsageError
from immunogate.kernels import reference

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.recognisers import RecogniserSpec  # noqa: E402 - needs torch
from immunogate.networks.spectral import SlotMemory, SpectralPurifier, analyzer_input  # noqa: E402
from immunogate.networks.twin import TorchTwin  # noqa: E402

GENES, PIXELS = 24, 112 * 112


@pytest.fixture(scope="module")
def basis() -> Eigenbasis:
    draw = np.random.default_rng(3)
    rows = np.linalg.qr(draw.normal(size=(PIXELS, GENES)))[0].T
    values = np.geomspace(40, 0.5, GENES).astype(np.float32)
    mean = draw.uniform(-0.3, 0.3, PIXELS).astype(np.float32)
    return Eigenbasis(mean, np.ascontiguousarray(rows, np.float32), values, float(values.sum()) + 9, 100)


@pytest.fixture(scope="module")
def faces() -> Any:
    return torch.from_numpy(np.random.default_rng(4).uniform(-1, 1, (5, PIXELS)).astype(np.float32))


def network(gated: bool = True) -> SpectralPurifier:
    torch.manual_seed(1)
    made = SpectralPurifier(torch.linspace(5, 0.5, GENES + 2), 16, gated=gated)
    with torch.no_grad():
        made.own.normal_()
        made.generator.weight.normal_()
        made.direct.weight.normal_(std=0.1)
    return made.eval()


def twin_of(basis: Eigenbasis, mode: str = "expected", gated: bool = True) -> TorchTwin:
    pool = torch.nn.Sequential(torch.nn.AvgPool2d(16), torch.nn.Flatten())
    spec = RecogniserSpec("pool", lambda: pool, 112, 112, 0, 127.5, 127.5, "RGB", 147, "this test")
    return TorchTwin(pool, spec, basis, mode, purifier=network(gated))


def test_the_spectrum_is_that_of_the_definition(basis: Eigenbasis, faces: Any) -> None:
    centred = faces - torch.from_numpy(basis.mean)
    coefficients = centred @ torch.from_numpy(basis.basis).T
    found = analyzer_input(faces, centred, coefficients).numpy()
    exact = reference.spectrum(faces.numpy(), basis.mean, reference.project(faces.numpy(), basis.mean, basis.basis))
    assert found.shape == (5, GENES + 2)
    np.testing.assert_allclose(found, reference.analyzer_input(faces.numpy(), exact), rtol=1e-5, atol=1e-4)
    remainder = (centred - coefficients @ torch.from_numpy(basis.basis)).norm(dim=1).numpy()
    np.testing.assert_allclose(found[:, GENES], remainder, rtol=1e-5)


def test_a_face_that_eigenfaces_explain_has_the_least_remainder(basis: Eigenbasis) -> None:
    centred = torch.from_numpy(3 * basis.basis[:2])
    length = analyzer_input(centred, centred, centred @ torch.from_numpy(basis.basis).T)[:, GENES]
    assert bool((length >= LEAST_REMAINDER).all())
    assert bool((length < 5 * LEAST_REMAINDER).all())


def test_grain_grows_with_noise_and_passes_a_gradient(basis: Eigenbasis) -> None:
    smooth = torch.linspace(-0.5, 0.5, PIXELS).repeat(4, 1)
    noise = torch.randn(1, PIXELS, generator=torch.Generator().manual_seed(3))
    levels = torch.tensor([[0.0], [0.005], [0.01], [0.2]])
    faces = (smooth + levels * noise).clamp(-1, 1).requires_grad_()
    grain = analyzer_input(faces, faces, faces @ torch.from_numpy(basis.basis).T)[:, -1]
    grain, kept = grain.detach(), grain
    assert float(grain[0]) < 1e-4
    assert float(grain[1]) == pytest.approx(0.8 * 0.005, rel=0.05)
    assert float(grain[2]) == pytest.approx(0.8 * 0.01, rel=0.05)
    assert float(grain[2]) < float(grain[3]) <= 4 / 127.5
    (gradient,) = torch.autograd.grad(kept.sum(), faces)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient[1].abs().max()) > 0


def test_no_gradient_is_infinite_at_the_least_remainder(basis: Eigenbasis) -> None:
    centred = torch.zeros(1, PIXELS, requires_grad=True)
    network()(analyzer_input(centred, centred, centred @ torch.from_numpy(basis.basis).T)).sum().backward()
    assert bool(torch.isfinite(centred.grad).all())


@pytest.mark.parametrize("gated", [True, False])
def test_the_gate_is_one_more_probability(gated: bool) -> None:
    spectrum = torch.randn(6, GENES + 2, generator=torch.Generator().manual_seed(2)).abs() + 0.1
    found = network(gated)(spectrum)
    assert found.shape == (6, GENES + gated)
    assert bool(((found > 0) & (found < 1)).all())
    assert network(gated).reads == "spectrum"


def test_scales_of_nothing_and_wild_inputs_give_probabilities() -> None:
    made = SpectralPurifier(torch.zeros(GENES + 2), 8)
    for value in (0.0, 1e-30, 1.0, 1e12):
        with torch.no_grad():
            found = made(torch.full((2, GENES + 2), value))
        assert bool(torch.isfinite(found).all()), value
        assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_it_begins_near_the_wiener_filter_for_the_noise_that_the_grain_tells() -> None:
    """At twice the usual grain the stated deviation holds; the more grain, the less passes, the gate first of all."""
    deviation = 0.5
    scale = torch.tensor([4.0, 1.0, 0.5, 0.3, 0.2, 0.7, 0.01])
    made = SpectralPurifier(scale, 64)
    made.begin_as_filter(deviation)
    spectrum = scale * torch.randn(200, 7, generator=torch.Generator().manual_seed(5)).abs()
    wanted = scale[:5].square() / (scale[:5].square() + deviation**2)
    found = []
    for grain in (0.5, 1.0, 2.0, 4.0):
        spectrum[:, -1] = grain * scale[-1]
        with torch.no_grad():
            found.append(made(spectrum).mean(dim=0))
    torch.testing.assert_close(found[2][:5], wanted, atol=0.05, rtol=0)
    for quiet, loud in itertools.pairwise(found):
        assert bool((loud < quiet).all())
        odds = torch.logit(quiet) - torch.logit(loud)
        assert float(odds[5]) == pytest.approx(3 * float(odds[:5].mean()), rel=0.1)


def test_a_coefficient_s_own_magnitude_acts_on_its_own_probability_alone() -> None:
    made = network()
    with torch.no_grad():
        made.generator.weight.zero_()  # nothing comes through analyzer and memory
        made.direct.weight.zero_()
        made.own.fill_(1.0)
    quiet = torch.ones(1, GENES + 2)
    loud = quiet.clone()
    loud[0, 4] = 9.0
    with torch.no_grad():
        change = made(loud) - made(quiet)
    assert float(change[0, 4]) > 0.01
    assert float(change[0, [i for i in range(GENES + 1) if i != 4]].abs().max()) < 1e-6


def test_signs_reach_the_analyzer_and_every_probability_sees_all_coefficients() -> None:
    made = network()
    spectrum = torch.randn(1, GENES + 2, generator=torch.Generator().manual_seed(7))
    spectrum[:, GENES:] = 1.0
    jacobian = torch.autograd.functional.jacobian(made, spectrum)[0, :, 0]
    assert jacobian.shape == (GENES + 1, GENES + 2)
    assert float((jacobian.abs() > 0).float().mean()) > 0.95
    flipped = spectrum.clone()
    flipped[0, 0] *= -1
    assert not torch.allclose(made(flipped), made(spectrum))


def test_the_memory_reads_the_slot_that_is_nearest_when_it_is_sharp() -> None:
    memory = SlotMemory(8, 5)
    with torch.no_grad():
        memory.log_sharpness.fill_(9.0)
    features = memory.keys[[3, 1]] * 2
    torch.testing.assert_close(memory(features), features + memory.values[[3, 1]])
    memory(features).sum().backward()
    assert memory.values.grad is not None
    assert float(memory.values.grad[[3, 1]].abs().min()) > 0.9


def test_a_width_of_nothing_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="width 0"):
        SpectralPurifier(torch.ones(5), 0)


def test_gate_1_and_mask_1_give_the_face_back_and_gate_0_is_no_gate(basis: Eigenbasis, faces: Any) -> None:
    twin = twin_of(basis)
    torch.testing.assert_close(twin.purify(faces, torch.ones(5, GENES + 1)), faces, atol=1e-5, rtol=0)
    kept = torch.rand(5, GENES, generator=torch.Generator().manual_seed(8))
    closed = torch.cat([kept, torch.zeros(5, 1)], dim=1)
    torch.testing.assert_close(twin.purify(faces, closed), twin.purify(faces, kept), atol=1e-6, rtol=0)
    bare = torch.cat([torch.zeros(5, GENES), torch.ones(5, 1)], dim=1)  # nothing but the remainder
    remainder = twin.purify(faces, bare) - twin.mean
    assert float((remainder @ twin.basis.T).abs().max()) < 1e-4


def test_the_twin_acts_as_defined(basis: Eigenbasis, faces: Any) -> None:
    weights = torch.rand(5, GENES + 1, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        found = twin_of(basis).purify(faces, weights).numpy()
    exact = reference.project(faces.numpy(), basis.mean, basis.basis)
    wanted = reference.act(exact, weights.numpy()[:, None], basis.mean, basis.basis, faces.numpy())[:, 0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("mode", ["expected", "threshold"])
def test_modes_of_the_twin_make_their_antibodies_of_the_probabilities(basis: Eigenbasis, faces: Any, mode: str) -> None:
    twin = twin_of(basis, mode)
    with torch.no_grad():
        p = twin.probabilities(faces)
        weights = p if mode == "expected" else (p > 0.5).float()
        torch.testing.assert_close(twin.purify(faces), twin.purify(faces, weights))
    assert p.shape == (5, GENES + 1)


def test_gradients_go_through_the_gate(basis: Eigenbasis, faces: Any) -> None:
    twin = twin_of(basis)
    point = faces[:1].clone().requires_grad_()
    torch.autograd.backward(twin(point)[0, 0])
    assert bool(torch.isfinite(point.grad).all())
    held = faces[:1].clone().requires_grad_()
    twin.embed(twin.purify(held, twin.probabilities(faces[:1]).detach()))[0, 0].backward()
    assert float((point.grad - held.grad).abs().max()) > 1e-3 * float(held.grad.abs().max())
