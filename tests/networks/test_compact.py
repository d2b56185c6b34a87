from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks import compact  # noqa: E402 - needs torch
from immunogate.networks.purifier import Purifier  # noqa: E402


def cost(network: Any) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of convolutions and linear layers for one face, counted by hooks."""
    counted = []

    def count(module: Any, inputs: Any, output: Any) -> None:
        each = module.weight[0].numel()  # of one output value
        counted.append(each * output[0].numel())

    layers = [one for one in network.modules() if isinstance(one, torch.nn.Conv2d | torch.nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    network.eval()(torch.zeros(1, 1, 112, 112, device="meta"))
    for handle in handles:
        handle.remove()
    assert len(counted) == len(layers)
    return sum(weight.numel() for weight in network.parameters()), sum(counted)


def test_it_costs_a_tenth_of_the_paper_s() -> None:
    with torch.device("meta"):
        paper, small = cost(Purifier()), cost(Purifier(architecture="compact"))
    assert paper[1] == pytest.approx(2.65e9, rel=0.01)  # the counting itself is right
    assert 10 * small[0] <= paper[0], (small, paper)
    assert 10 * small[1] <= paper[1], (small, paper)


@pytest.mark.parametrize("gated", [True, False])
def test_shapes_and_ranges(gated: bool) -> None:
    torch.manual_seed(0)
    network = Purifier(30, architecture="compact", gated=gated).train()
    faces = torch.rand(3, 1, 112, 112) * 2 - 1
    maps = network.encoder(faces)
    assert maps.shape == (3, compact.BLOCKS[-1][0], 4, 4)
    assert network.pca_layer.fc1(maps).shape == (3, compact.FEATURES)
    found = network(faces)
    assert found.shape == (3, 30 + gated)
    assert bool(((found > 0) & (found < 1)).all())
    assert network.pca_layer.memory.units.embedding_dim == compact.FEATURES
    assert (network.architecture, network.reads, network.gated) == ("compact", "face", gated)


def test_every_weight_learns_but_the_memory() -> None:
    torch.manual_seed(0)
    network = Purifier(12, architecture="compact", gated=True).train()
    network(torch.rand(4, 1, 112, 112)).square().sum().backward()
    for name, weight in network.named_parameters():
        if name == "pca_layer.memory.units.weight":
            assert weight.grad is None
        else:
            assert weight.grad is not None, name
