"""The student's shape, size and end."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from torch import nn  # noqa: E402 - needs torch

from immunogate.networks.gateface import GateFace  # noqa: E402
from immunogate.networks.recognisers import recogniser_spec  # noqa: E402
from immunogate.networks.twin import UnitEmbedding  # noqa: E402


def multiply_accumulates(network: Any, width: int) -> int:
    total = 0

    def count(module: Any, _: Any, output: Any) -> None:
        nonlocal total
        total += module.weight[0].numel() * output[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.device("meta"), torch.no_grad():
        network.to("meta").eval()(torch.empty(1, 3, 112, width))
    return total


def test_it_is_no_larger_than_promised_and_lighter_than_its_teacher() -> None:
    own, teacher = (recogniser_spec(name).build() for name in ("gateface", "mobilefacenet"))
    weights = sum(weight.numel() for weight in own.parameters())
    assert weights / 1e6 == pytest.approx(0.96, abs=0.01)
    work = multiply_accumulates(own, 96)
    assert work / 1e6 == pytest.approx(147, abs=1)
    assert work < multiply_accumulates(teacher, 96)


def test_its_maps_and_its_end_make_the_embedding() -> None:
    network = GateFace().eval()
    faces = torch.rand(2, 3, 112, 96) * 2 - 1
    with torch.inference_mode():
        maps = network.maps(faces)
        assert [tuple(each.shape[1:]) for each in maps] == [(48, 28, 24), (96, 14, 12), (128, 7, 6), (512, 7, 6)]
        torch.testing.assert_close(network.head(maps[-1]), network(faces))
        assert UnitEmbedding(network)(faces).norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_each_place_of_the_last_map_has_weights_of_its_own() -> None:
    place = GateFace().place[0]
    assert place.weight.shape == (512, 1, 7, 6)
    assert place.groups == 512


def test_the_input_is_the_teachers() -> None:
    own, teacher = recogniser_spec("gateface"), recogniser_spec("mobilefacenet")
    for name in ("height", "width", "crop_left", "mean", "std", "embedding_dimension"):
        assert getattr(own, name) == getattr(teacher, name)


def test_the_quick_way_of_training_is_the_same_map() -> None:
    network = GateFace()
    neck = torch.rand(4, 512, 7, 6, generator=torch.Generator().manual_seed(8))
    quick = network.train().head(neck)
    network.train().place(neck)  # both take the batch's own statistics
    network.training = False
    torch.testing.assert_close(network.head(neck), quick, rtol=1e-4, atol=1e-4)
