"""Recognisers that learn folded and come back unfolded."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from immunogate.networks.recognisers import RECOGNISERS  # noqa: E402
from immunogate.networks.tunable import Tunable  # noqa: E402

pytestmark = pytest.mark.torch


def lived(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A network whose BatchNorms have seen something, and an input."""
    torch.manual_seed(1)
    spec = RECOGNISERS[name]
    network = spec.build()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.1)
    return network.eval(), torch.randn(2, 3, spec.height, spec.width)


@pytest.mark.parametrize("name", ["mobilefacenet", "gateface", "ir50"])
def test_what_was_learned_comes_back_under_the_names_it_came_with(name: str) -> None:
    network, planes = lived(name)
    tunable = Tunable(network)
    with torch.no_grad():
        assert torch.allclose(tunable(planes), network(planes), rtol=1e-3, atol=1e-4)
    tunable(planes).square().mean().backward()
    with torch.no_grad():
        for weight in tunable.parameters():
            if weight.grad is not None:
                weight += 3e-3 * weight.grad.sign()
    again = copy.deepcopy(network)
    again.load_state_dict(tunable.unfolded())
    with torch.no_grad():
        learned, expected = tunable(planes), again(planes)
        assert torch.allclose(learned, expected, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(learned, network(planes), rtol=1e-3, atol=1e-4)


def test_every_layer_learns_and_the_network_it_was_made_of_stays() -> None:
    network, planes = lived("mobilefacenet")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tunable = Tunable(network)
    tunable(planes).sum().backward()
    layers = [part for part in tunable.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert all(layer.weight.grad is not None and float(layer.weight.grad.abs().sum()) > 0 for layer in layers)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_norm_that_could_not_take_an_offset_is_refused() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False))
    with pytest.raises(ValueError, match="no scale and offset"):
        Tunable(plain.eval())
    with pytest.raises(ValueError, match="to tune"):
        Tunable(nn.Sequential(nn.ReLU()))
