"""The residual recognisers against the same networks said once more in plain functions of their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import torch.nn.functional as F  # noqa: E402, N812 - needs torch

from immunogate.networks.checkpoint import fit_state  # noqa: E402
from immunogate.networks.irse import Dialect, IrBlock  # noqa: E402
from immunogate.networks.recognisers import load_recogniser, recogniser_spec  # noqa: E402

FIRST_OF_STAGE = (0, 3, 7, 21)


def ir_block(normalised: Any, state: dict[str, Any], index: int, maps: Any, *, side: bool) -> Any:
    block, stride = f"body.{index}", 2 if index in FIRST_OF_STAGE else 1
    prelu, second, last = (3, 4, 5) if side else (2, 3, 4)
    res = f"{block}.res_layer"
    hidden = F.conv2d(normalised(state, f"{res}.0", maps), state[f"{res}.1.weight"], padding=1)
    hidden = normalised(state, f"{res}.2", hidden) if side else hidden
    hidden = F.prelu(hidden, state[f"{res}.{prelu}.weight"])
    hidden = F.conv2d(hidden, state[f"{res}.{second}.weight"], stride=stride, padding=1)
    hidden = normalised(state, f"{res}.{last}", hidden)
    if f"{res}.{last + 1}.fc1.weight" in state:
        squeezed = F.relu(F.conv2d(hidden.mean((2, 3), keepdim=True), state[f"{res}.{last + 1}.fc1.weight"]))
        hidden = hidden * torch.sigmoid(F.conv2d(squeezed, state[f"{res}.{last + 1}.fc2.weight"]))
    if f"{block}.shortcut_layer.0.weight" not in state:
        return hidden + maps[:, :, ::stride, ::stride]
    shortcut = F.conv2d(maps, state[f"{block}.shortcut_layer.0.weight"], stride=stride)
    return hidden + normalised(state, f"{block}.shortcut_layer.1", shortcut)


def ir_embeddings(normalised: Any, state: dict[str, Any], faces: Any) -> Any:
    maps = normalised(state, "input_layer.1", F.conv2d(faces, state["input_layer.0.weight"], padding=1))
    maps = F.prelu(maps, state["input_layer.2.weight"])
    for index in range(24):
        maps = ir_block(normalised, state, index, maps, side=False)
    flat = normalised(state, "output_layer.0", maps).reshape(len(maps), -1)
    flat = F.linear(flat, state["output_layer.3.weight"], state["output_layer.3.bias"])
    return normalised(state, "output_layer.4", flat)


def iresnet_block(normalised: Any, state: dict[str, Any], block: str, maps: Any) -> Any:
    first = f"{block}.downsample.0.weight" in state
    hidden = F.conv2d(normalised(state, f"{block}.bn1", maps), state[f"{block}.conv1.weight"], padding=1)
    hidden = F.prelu(normalised(state, f"{block}.bn2", hidden), state[f"{block}.prelu.weight"])
    hidden = F.conv2d(hidden, state[f"{block}.conv2.weight"], stride=2 if first else 1, padding=1)
    if first:
        shortcut = F.conv2d(maps, state[f"{block}.downsample.0.weight"], stride=2)
        maps = normalised(state, f"{block}.downsample.1", shortcut)
    return normalised(state, f"{block}.bn3", hidden) + maps


def iresnet_embeddings(normalised: Any, state: dict[str, Any], faces: Any, counts: tuple[int, ...]) -> Any:
    maps = normalised(state, "bn1", F.conv2d(faces, state["conv1.weight"], padding=1))
    maps = F.prelu(maps, state["prelu.weight"])
    for layer, count in enumerate(counts, start=1):
        for index in range(count):
            maps = iresnet_block(normalised, state, f"layer{layer}.{index}", maps)
    flat = normalised(state, "bn2", maps).reshape(len(maps), -1)
    return normalised(state, "features", F.linear(flat, state["fc.weight"], state["fc.bias"]))


def agree(actual: Any, expected: Any) -> None:
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.fixture(scope="module")
def faces() -> Any:
    return torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(4)) * 2 - 1


def test_a_public_irse50_loads_and_embeds_as_its_definition_says(
    random_state: Any, normalised: Any, faces: Any, tmp_path: Path
) -> None:
    state, path = random_state("irse50"), tmp_path / "model_ir_se50.pth"
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    network, spec = load_recogniser(path, "irse50")
    assert spec is recogniser_spec("irse50")
    assert not any(module.training for module in network.modules())
    with torch.inference_mode():
        embeddings = network(faces)
        agree(embeddings, ir_embeddings(normalised, state, faces))
    assert float(embeddings.norm()) != pytest.approx(1, abs=0.1)


def test_an_iresnet_embeds_as_its_definition_says(random_state: Any, normalised: Any, faces: Any) -> None:
    state, network = random_state("iresnet18"), recogniser_spec("iresnet18").build().eval()
    fit_state(network, state, "iresnet18")
    with torch.inference_mode():
        agree(network(faces), iresnet_embeddings(normalised, state, faces, (2, 2, 2, 2)))


@pytest.mark.parametrize("dialect", ["insightface", "side"])
@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize("index", [0, 1, 3], ids=["halving", "plain", "widening"])
def test_a_block_of_either_dialect_is_that_of_its_definition(
    index: int, squeeze: bool, dialect: Dialect, random_state: Any, normalised: Any
) -> None:
    name = ("irse50" if squeeze else "ir50") + ("_side" if dialect == "side" else "")
    state = random_state(name, under=f"body.{index}.")
    block = IrBlock(64, 128 if index == 3 else 64, 1 if index == 1 else 2, squeeze, dialect).eval()
    fit_state(block, {key.removeprefix(f"body.{index}."): value for key, value in state.items()}, "block")
    maps = torch.randn(2, 64, 12, 12, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        agree(block(maps), ir_block(normalised, state, index, maps, side=dialect == "side"))
