"""Frozen copies give what the network gives, forward and backward, and nothing of the network changes."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from torch import nn  # noqa: E402 - needs torch

from immunogate.networks.checkpoint import fit_state  # noqa: E402
from immunogate.networks.frozen import Affine, FrozenPReLU, frozen  # noqa: E402
from immunogate.networks.recognisers import RECOGNISERS, recogniser_spec  # noqa: E402
from immunogate.networks.twin import UnitEmbedding  # noqa: E402


def gradients(network: Any, faces: Any) -> tuple[Any, Any]:
    """Unit embeddings, and the gradient of a weighted sum of them."""
    faces = faces.clone().requires_grad_()
    embeddings = UnitEmbedding(network)(faces)
    weights = torch.linspace(-1, 1, embeddings.shape[1])
    return embeddings.detach(), torch.autograd.grad((embeddings * weights).sum(), faces)[0]


def kinds(network: Any) -> set[type]:
    return {type(module) for module in network.modules()}


@pytest.mark.parametrize("name", ["mobilefacenet", "irse50", "iresnet18"])
def test_outputs_and_gradients_are_those_of_the_network(name: str, random_state: Any) -> None:
    spec = recogniser_spec(name)
    network = spec.build()
    fit_state(network, random_state(name), name)
    network.eval()
    faces = torch.rand(2, 3, spec.height, spec.width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected, slope = gradients(network, faces)
    found, steepness = gradients(frozen(network), faces)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert float(slope.abs().max()) > 1e-6
    torch.testing.assert_close(steepness, slope, rtol=1e-3, atol=2e-3 * float(slope.abs().max()))


@pytest.mark.parametrize("name", RECOGNISERS)
def test_every_recogniser_is_folded(name: str) -> None:
    with torch.device("meta"):
        twin = frozen(recogniser_spec(name).build())
    assert not {nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU, nn.Dropout} & kinds(twin)
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    if name in ("mobilefacenet", "gateface"):  # the others have norms before padded convolutions, which can not fold
        assert Affine not in kinds(twin)


def test_the_network_itself_stays_as_it_was() -> None:
    network = recogniser_spec("mobilefacenet").build().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    frozen(network)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class _Awkward(nn.Module):
    """A convolution with two users, one norm called twice, one norm that knows only the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 1)
        self.shared = nn.BatchNorm2d(4)
        self.batch = nn.BatchNorm2d(4, track_running_stats=False)
        self.prelu = nn.PReLU()

    def forward(self, maps: Any) -> Any:
        first = self.conv(maps)
        second = self.shared(self.twice(self.shared(self.norm(first) + first)))
        return self.prelu(self.batch(self.twice(second))).mean((2, 3))


class _Untraceable(_Awkward):
    def forward(self, maps: Any) -> Any:
        return super().forward(maps) if float(maps.detach().sum()) > -1e9 else maps


@pytest.mark.parametrize("kind", [_Awkward, _Untraceable])
def test_what_can_not_be_folded_is_left(kind: Any) -> None:
    torch.manual_seed(3)
    network = kind()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    network.eval()
    faces = torch.randn(4, 3, 8, 8)
    for found, expected in zip(gradients(frozen(network), faces), gradients(network, faces), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert {Affine, FrozenPReLU, nn.BatchNorm2d} <= kinds(frozen(network))


def test_a_frozen_prelu_bends_where_prelu_does() -> None:
    prelu = nn.PReLU(2)
    prelu.weight.data = torch.tensor([-0.5, 0.25])
    values = torch.tensor([[-2.0, -2.0], [0.0, 0.0], [3.0, 3.0]])
    for found, expected in zip(_bent(FrozenPReLU(prelu.weight), values), _bent(prelu, values), strict=True):
        torch.testing.assert_close(found, expected)


def _bent(bend: Any, values: Any) -> tuple[Any, Any]:
    values = values.clone().requires_grad_()
    bent = bend(values)
    return bent.detach(), torch.autograd.grad(bent.sum(), values)[0]
