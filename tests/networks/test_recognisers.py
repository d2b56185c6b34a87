from __future__ import annotations

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
    RECOGNISERS,
    load_recogniser,
    recogniser_spec,
)

MILLIONS = {"mobilefacenet": 1.0, "ir50": 43.6, "irse50": 43.8, "iresnet50": 43.6}
WRITTEN_DOWN = ("ir50", "irse50", "ir50_side", "irse50_side", "iresnet18", "iresnet50", "mobilefacenet")


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
