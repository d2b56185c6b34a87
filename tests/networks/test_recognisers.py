from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.errors import CheckpointError, UsageError
from immunogate.files import find_data

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.recognisers import (  # noqa: E402 - needs torch
    AUTO,
    RECOGNISERS,
    load_recogniser,
    recogniser_spec,
)

MILLIONS = {
    "mobilefacenet": 1.0,
    "ir50": 43.6,
    "irse50": 43.8,
    "iresnet50": 43.6,
    "iresnet200": 118.8,
    "mobilefacenet_square": 1.2,
}
WRITTEN_DOWN = (
    "ir50", "irse50", "ir50_side", "irse50_side", "iresnet18", "iresnet34", "iresnet50", "iresnet100", "iresnet200",
    "mobilefacenet", "mobilefacenet_square",
)  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN_DOWN)
def test_keys_and_shapes_are_those_of_the_public_checkpoints(name: str, public_shapes: dict[str, Any]) -> None:
    with torch.device("meta"):
        state = recogniser_spec(name).build().state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == public_shapes[name]


@pytest.mark.parametrize("name", RECOGNISERS)
def test_the_network_takes_what_its_table_row_says(name: str) -> None:
    spec = recogniser_spec(name)
    assert spec.name == name
    assert spec.crop_left + spec.width <= 112
    with torch.device("meta"):
        network = spec.build().eval()
        embeddings = network(spec.prepare(torch.empty(2, 1, 112, 112)))
    assert embeddings.shape == (2, spec.embedding_dimension)
    if name in MILLIONS:
        count = sum(parameter.numel() for parameter in network.parameters())
        assert count / 1e6 == pytest.approx(MILLIONS[name], abs=0.05)


def test_preparing_normalises_pixel_values_and_crops_columns() -> None:
    values = torch.arange(112.0).expand(1, 1, 112, 112)  # the pixel value is the column's number
    faces = values / 127.5 - 1
    small = recogniser_spec("mobilefacenet").prepare(faces)
    assert small.shape == (1, 3, 112, 96)
    torch.testing.assert_close(small[0, 2, 50], (torch.arange(8.0, 104.0) - 127.5) / 128)
    torch.testing.assert_close(recogniser_spec("irse50").prepare(faces), faces.expand(1, 3, 112, 112))


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no recogniser architecture 'resnet'.*mobilefacenet, .*ir50, irse50"):
        load_recogniser(tmp_path / "absent.pt", "resnet")


@pytest.mark.parametrize(
    ("truth", "named"), [("irse50", "ir50"), ("irse50_side", "irse50"), ("mobilefacenet", "iresnet50")]
)
def test_a_wrong_name_is_refused_with_the_one_that_fits(
    thin_state: Any, tmp_path: Path, truth: str, named: str
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(thin_state(truth), path)
    with pytest.raises(CheckpointError) as caught:
        load_recogniser(path, named)
    assert f"{path} as {named} does not fit" in caught.value.what
    assert caught.value.mend == f"It fits the architecture {truth}: name it with --recogniser-arch {truth}."


def test_a_stranger_gets_no_hint(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"conv.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"\.\.\. and \d+ more; 1 unknown.*: conv\.weight.*It fits none of"):
        load_recogniser(path, "mobilefacenet")


def test_a_stranger_is_told_what_comes_nearest(thin_state: Any, tmp_path: Path) -> None:
    state = thin_state("iresnet50")
    state["fc.weight"] = torch.tensor(0.5).expand(256, 25088)
    torch.save(state, tmp_path / "narrow.pth")
    with pytest.raises(CheckpointError) as caught:
        load_recogniser(tmp_path / "narrow.pth", AUTO)
    assert "fits no known recogniser: it holds" in caught.value.what
    assert "conv1.weight (64, 3, 3, 3) to fc.weight (256, 25088)" in caught.value.what
    total = sum(not key.endswith("num_batches_tracked") for key in state)
    assert f"Nearest come iresnet50 ({total - 1} of its {total} agree), iresnet34" in caught.value.mend


@pytest.mark.parametrize("name", WRITTEN_DOWN)
def test_auto_takes_the_architecture_that_fits_and_says_why(
    name: str, thin_state: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({f"module.{key}": value for key, value in thin_state(name).items()}, tmp_path / "backbone.pth")
    with caplog.at_level("INFO", logger="immunogate"), _without_initialisation():
        network, spec = load_recogniser(tmp_path / "backbone.pth", AUTO)
    assert spec.name == name
    assert f"{name} of {spec.source}, all names and shapes agree" in caplog.text
    last, value = next((k, v) for k, v in reversed(thin_state(name).items()) if k.endswith("running_var"))
    assert torch.equal(network.state_dict()[last], value)
    assert not network.training


def _without_initialisation() -> Any:
    """Skip torch's random initialisation, which takes seconds for the largest and is overwritten anyway."""
    patch = pytest.MonkeyPatch()
    for name in ("kaiming_uniform_", "uniform_"):
        patch.setattr(torch.nn.init, name, lambda tensor, *rest, **more: tensor)

    @contextlib.contextmanager
    def undone() -> Any:
        try:
            yield
        finally:
            patch.undo()

    return undone()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1, "momentum": [torch.ones(2)]}},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}, "iteration": 7},
        lambda state: {"state_dict": state, "best": torch.tensor(0.97)},
        lambda state: {"state_dict_backbone": state, "state_dict_softmax_fc": {"weight": torch.ones(3)}, "epoch": 1},
        lambda state: {"state_dict": {"model": {f"_orig_mod.{key}": value for key, value in state.items()}}},
        lambda state: {f"backbone.{key}": value for key, value in state.items()} | {"head.kernel": torch.ones(4)},
        lambda state: {"net": {f"module.backbone.{key}": value for key, value in state.items()}},
        lambda state: {key: value.half() for key, value in state.items()},
        lambda state: {key: value.bfloat16() for key, value in state.items()},
    ],
    ids=[
        "state_dict",
        "model, parallel",
        "tensor beside",
        "arcface_torch",
        "compiled",
        "with head",
        "deep",
        "float16",
        "bfloat16",
    ],
)
@pytest.mark.parametrize("named", [AUTO, "mobilefacenet_square"])
def test_weights_are_found_however_they_are_wrapped(wrap: Any, named: str, random_state: Any, tmp_path: Path) -> None:
    state = random_state("mobilefacenet_square")
    torch.save(wrap(state), tmp_path / "checkpoint.pt")
    network, spec = load_recogniser(tmp_path / "checkpoint.pt", named)
    assert spec.name == "mobilefacenet_square"
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, state[key], atol=0.01, rtol=0)
        assert value.dtype == state[key].dtype


def test_nothing_is_taken_from_under_a_name_that_nobody_wrote_down(random_state: Any, tmp_path: Path) -> None:
    state = random_state("mobilefacenet_square")
    torch.save({"discriminator": state}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="no plain real tensors: discriminator"):
        load_recogniser(tmp_path / "checkpoint.pt", AUTO)
    torch.save({f"critic.{key}": value for key, value in state.items()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"fits no known recogniser.*critic\.conv1\.conv\.weight"):
        load_recogniser(tmp_path / "checkpoint.pt", AUTO)


def test_the_square_mobilefacenet_computes_what_its_project_does(random_state: Any, normalised: Any) -> None:
    """The network, said once more in plain functions."""
    functional = torch.nn.functional
    state = random_state("mobilefacenet_square")

    def layer(name: str, maps: Any, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
        maps = functional.conv2d(maps, state[f"{name}.conv.weight"], None, stride, padding, 1, groups)
        maps = normalised(state, f"{name}.bn", maps)
        return functional.prelu(maps, state[f"{name}.prelu.weight"]) if f"{name}.prelu.weight" in state else maps

    def block(name: str, maps: Any, inner: int, stride: int) -> Any:
        return layer(f"{name}.project", layer(f"{name}.conv_dw", layer(f"{name}.conv", maps), stride, 1, inner))

    faces = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(4)) * 2 - 1
    maps = layer("conv2_dw", layer("conv1", faces, 2, 1), 1, 1, 64)
    for down, inner, kept, count, width in (
        ("23", 128, "3", 4, 128),
        ("34", 256, "4", 6, 256),
        ("45", 512, "5", 2, 256),
    ):
        maps = block(f"conv_{down}", maps, inner, 2)
        for index in range(count):
            maps = maps + block(f"conv_{kept}.model.{index}", maps, width, 1)
    maps = layer("conv_6_dw", layer("conv_6_sep", maps), groups=512)
    expected = normalised(state, "bn", functional.linear(maps.flatten(1), state["linear.weight"]))
    network = recogniser_spec("mobilefacenet_square").build().eval()
    network.load_state_dict(state)
    with torch.inference_mode():
        actual = network(faces)
    assert float(expected.std()) > 0.01
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_broken_weights_are_named(random_state: Any, tmp_path: Path) -> None:
    state = random_state("mobilefacenet")
    state["linear1.conv.weight"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(CheckpointError, match=r"not finite.*linear1\.conv\.weight"):
        load_recogniser(tmp_path / "nan.pt", "mobilefacenet")


def development_faces(folder: Path, people: int) -> tuple[Any, Any]:
    """Two pictures of each of the first people that have two: (2 * people, 1, 112, 112) in [-1, 1], identities."""
    try:
        with np.load(folder / "faces" / "lfw_dev_aligned_112.npz") as archive:
            images, identities = archive["images"], archive["identities"]
    except (FileNotFoundError, zipfile.BadZipFile) as error:
        pytest.skip(f"no development faces: {error}")
    _, starts, counts = np.unique(identities, return_index=True, return_counts=True)
    first = starts[counts >= 2][:people]
    chosen = np.stack([first, [np.flatnonzero(identities == identities[index])[1] for index in first]], axis=1)
    faces = torch.from_numpy(images[chosen.ravel()]).float()[:, None] / 127.5 - 1
    return faces, identities[chosen.ravel()]


@pytest.mark.data
def test_the_real_mobilefacenet_tells_people_apart() -> None:
    folder = find_data()
    if folder is None:
        pytest.skip("no development data: set IMMUNOGATE_DATA or provide ../shared/data")
    network, spec = load_recogniser(folder / "models" / "mobilefacenet_casia_112x96.pt", "mobilefacenet")
    faces, identities = development_faces(folder, people=30)
    with torch.inference_mode():
        embeddings = torch.nn.functional.normalize(network(spec.prepare(faces)), dim=1)
    cosines = (embeddings @ embeddings.T).numpy()
    same = identities[:, None] == identities[None]
    genuine = cosines[same & ~np.eye(len(same), dtype=bool)]
    impostor = cosines[~same]
    assert genuine.mean() > impostor.mean() + 0.4
    assert np.mean(genuine > np.quantile(impostor, 0.99)) > 0.9
