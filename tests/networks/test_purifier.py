from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from immunogate.errors import CheckpointError, UsageError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import torch.nn.functional as F  # noqa: E402, N812 - needs torch
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from immunogate.networks.analyzer import AntigenEncoder  # noqa: E402
from immunogate.networks.generator import AntibodyGenerator  # noqa: E402
from immunogate.networks.purifier import AntibodyNetwork, Purifier, checkpoint_of, load_purifier  # noqa: E402
from immunogate.networks.spectral import SpectralPurifier  # noqa: E402


def parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shapes(module: Any) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def checkpoint(random_state: Any) -> dict[str, Any]:
    return {"encoder": random_state("encoder"), "pca_layer": random_state("pca_layer")}


@pytest.fixture(scope="module")
def saved(checkpoint: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("purifier") / "ckpt.pth"
    torch.save({**checkpoint, "epoches": 4, "optimizer": {"state": {}, "param_groups": [{"lr": 0.01}]}}, path)
    return path


@pytest.fixture(scope="module")
def purifier(saved: Path) -> Purifier:
    return load_purifier(saved)


def encoded(normalised: Any, state: dict[str, Any], faces: Any) -> Any:
    """The encoder, said once more in plain functions."""
    maps = F.prelu(F.conv2d(faces, state["in_layer.0.weight"], padding=1), state["in_layer.1.weight"])
    for number, stride in enumerate((2, 1, 2, 1, 2, 1, 2, 1), start=1):
        block = f"block{number}"
        shortcut = F.conv2d(maps, state[f"{block}.shortcut_layer.0.weight"], stride=stride)
        shortcut = normalised(state, f"{block}.shortcut_layer.1", shortcut)
        hidden = normalised(state, f"{block}.bn1", F.conv2d(maps, state[f"{block}.conv1.weight"], padding=1))
        hidden = F.prelu(hidden, state[f"{block}.nolinear1.weight"])
        hidden = F.conv2d(hidden, state[f"{block}.conv2.weight"], stride=stride, padding=1)
        maps = F.prelu(normalised(state, f"{block}.bn2", hidden), state[f"{block}.nolinear2.weight"]) + shortcut
    return maps


def generated(normalised: Any, state: dict[str, Any], maps: Any, temperature: float) -> Any:
    """The generator, said once more in plain functions."""
    feature = F.linear(maps.reshape(len(maps), -1), state["fc1.1.weight"], state["fc1.1.bias"])
    feature = F.prelu(normalised(state, "fc1.2", feature), state["fc1.3.weight"])
    slots = state["memory.units.weight"]
    score = F.cosine_similarity(feature[:, None], slots[None], dim=2)
    read = torch.softmax(score / temperature, dim=1) @ slots
    return torch.sigmoid(normalised(state, "fc2.1", F.linear(read, state["fc2.0.weight"], state["fc2.0.bias"])))


def test_sizes_are_those_of_the_method() -> None:
    with torch.device("meta"):
        purifier = Purifier().eval()
        with FlopCounterMode(display=False) as counter:
            probabilities = purifier(torch.empty(1, 1, 112, 112))
    assert probabilities.shape == (1, 1500)
    assert parameters(purifier.encoder) == pytest.approx(11.5e6, rel=0.005)
    assert parameters(purifier.pca_layer) == pytest.approx(13.7e6, rel=0.005)
    assert counter.get_total_flops() / 2 == pytest.approx(2.65e9, rel=0.002)


def test_keys_and_shapes_are_those_of_the_public_checkpoints(public_shapes: dict[str, Any]) -> None:
    with torch.device("meta"):
        assert shapes(AntigenEncoder()) == public_shapes["encoder"]
        assert shapes(AntibodyGenerator()) == public_shapes["pca_layer 1500"]


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_the_output_is_that_of_the_published_equations(
    saved: Path, checkpoint: dict[str, Any], normalised: Any, temperature: float
) -> None:
    faces = torch.rand(2, 1, 112, 112, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.inference_mode():
        maps = encoded(normalised, checkpoint["encoder"], faces)
        expected = generated(normalised, checkpoint["pca_layer"], maps, temperature)
        actual = load_purifier(saved, temperature)(faces)
    assert actual.shape == (2, 40)
    assert float(actual.std()) > 0.01
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_loading_states_the_number_of_eigenfaces(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="immunogate"):
        loaded = load_purifier(saved)
    assert loaded.components == 40
    assert not any(module.training for module in loaded.modules())
    assert "40 eigenfaces" in caplog.text


def test_an_evaluated_purifier_is_differentiable_and_keeps_its_state(purifier: Purifier) -> None:
    before = {key: value.clone() for key, value in purifier.state_dict().items()}
    faces = torch.zeros(2, 1, 112, 112, requires_grad=True)
    purifier(faces).sum().backward()
    assert float(faces.grad.abs().sum()) > 0
    assert all(torch.equal(value, before[key]) for key, value in purifier.state_dict().items())


def test_what_a_purifier_saves_loads_again(purifier: Purifier, tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    torch.save(checkpoint_of(purifier), path)
    again = load_purifier(path).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in purifier.state_dict().items())


def test_prefixed_and_uncounted_weights_load(checkpoint: dict[str, Any], purifier: Purifier, tmp_path: Path) -> None:
    old = {
        name: {f"module.{key}": value for key, value in part.items() if "num_batches" not in key}
        for name, part in checkpoint.items()
    }
    path = tmp_path / "parallel.pth"
    torch.save(old, path)
    faces = torch.zeros(1, 1, 112, 112)
    with torch.inference_mode():
        assert torch.equal(load_purifier(path)(faces), purifier(faces))


def test_a_missing_section_is_named(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    torch.save({"encoder": checkpoint["encoder"], "epoch": 3}, path)
    with pytest.raises(CheckpointError, match=r"lacks pca_layer; it holds encoder, epoch"):
        load_purifier(path)


def test_a_generator_without_its_last_layer_is_refused(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "headless.pth"
    head = {key: value for key, value in checkpoint["pca_layer"].items() if not key.startswith("fc2")}
    torch.save({"encoder": checkpoint["encoder"], "pca_layer": head}, path)
    with pytest.raises(CheckpointError, match=r"number of eigenfaces.*fc2\.0\.weight"):
        load_purifier(path)


def test_a_wrong_shape_names_section_key_and_both_shapes(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "colour.pth"
    encoder = {**checkpoint["encoder"], "in_layer.0.weight": torch.zeros(64, 3, 3, 3)}
    torch.save({"encoder": encoder, "pca_layer": checkpoint["pca_layer"]}, path)
    with pytest.raises(
        CheckpointError,
        match=r"\(encoder\).*in_layer\.0\.weight: checkpoint \(64, 3, 3, 3\), architecture \(64, 1, 3, 3\)",
    ):
        load_purifier(path)


def test_no_eigenfaces_and_no_temperature_are_wrong_use(saved: Path) -> None:
    with pytest.raises(UsageError, match="0 eigenfaces"):
        AntibodyGenerator(0)
    with pytest.raises(UsageError, match="temperature"):
        load_purifier(saved, temperature=0)


def made(architecture: str, gated: bool) -> AntibodyNetwork:
    torch.manual_seed(6)
    if architecture == "spectral":
        return SpectralPurifier(torch.linspace(3, 0.2, 14), 10, gated=gated).eval()
    return Purifier(12, 0.3, architecture=architecture, gated=gated).eval()


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("architecture", ["compact", "spectral"])
def test_a_checkpoint_says_what_it_is(architecture: str, gated: bool, tmp_path: Path) -> None:
    network = made(architecture, gated)
    torch.save(checkpoint_of(network), tmp_path / "p.pt")
    loaded = load_purifier(tmp_path / "p.pt")
    assert type(loaded) is type(network)
    assert (loaded.architecture, loaded.gated, loaded.components) == (architecture, gated, 12)
    assert loaded.reads == ("spectrum" if architecture == "spectral" else "face")
    assert not any(module.training for module in loaded.modules())
    shape = (2, 14) if architecture == "spectral" else (2, 1, 112, 112)
    with torch.inference_mode():
        found = loaded(torch.ones(shape))
        assert torch.equal(found, network(torch.ones(shape)))
    assert found.shape == (2, 12 + gated)
    if isinstance(loaded, Purifier):
        assert loaded.pca_layer.memory.temperature == 0.3


def test_a_temperature_that_the_checkpoint_contradicts_is_refused(tmp_path: Path) -> None:
    torch.save(checkpoint_of(made("compact", True)), tmp_path / "p.pt")
    assert isinstance(load_purifier(tmp_path / "p.pt", 0.3), Purifier)
    with pytest.raises(UsageError, match=r"trained with temperature 0\.3, 0\.5 was given"):
        load_purifier(tmp_path / "p.pt", 0.5)


@pytest.mark.parametrize(
    ("architecture", "change", "words"),
    [
        ("spectral", {"architecture": "huge"}, "architecture 'huge'.*paper, compact, spectral"),
        ("spectral", {"architecture": ["spectral"]}, "names the architecture"),
        ("spectral", {"gated": 1}, "gated: 1"),
        ("spectral", {"gated": False}, "does not fit.*generator"),
        ("compact", {"gated": False}, None),
        ("spectral", {"spectral": {"scale": torch.ones(14)}}, "number of eigenfaces"),
        ("spectral", {"spectral": {}}, "state dict"),
        ("compact", {"architecture": "paper"}, "does not fit"),
        ("compact", {"architecture": "spectral"}, "lacks spectral"),
        ("spectral", {"architecture": "compact"}, "lacks encoder, pca_layer"),
        ("compact", {"temperature": "warm"}, "no number"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(
    architecture: str, change: dict[str, Any], words: str | None, tmp_path: Path
) -> None:
    torch.save({**checkpoint_of(made(architecture, True)), **change}, tmp_path / "p.pt")
    if words is None:  # a gate is one more output: without the word of it, it is one more eigenface
        assert load_purifier(tmp_path / "p.pt").components == 13
        return
    with pytest.raises(CheckpointError, match=words):
        load_purifier(tmp_path / "p.pt")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = made("spectral", True)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = float("inf")
    torch.save(checkpoint_of(network), tmp_path / "p.pt")
    with pytest.raises(CheckpointError, match="not finite"):
        load_purifier(tmp_path / "p.pt")


def test_an_architecture_that_reads_no_pixels_is_refused() -> None:
    with pytest.raises(UsageError, match="'spectral' reads pixels"):
        Purifier(3, architecture="spectral")


@pytest.mark.parametrize("architecture", ["paper", "compact"])
def test_a_network_of_pixels_begins_as_the_filter_of_the_variances(architecture: str) -> None:
    variances = torch.tensor([4.0, 1.0, 0.01, 0.0])
    network = Purifier(4, architecture=architecture).eval()

    network.begin_as_filter(variances, deviation=1.0)

    with torch.no_grad():
        p = network(torch.rand(3, 1, 112, 112) * 2 - 1).mean(dim=0)
    assert torch.allclose(p[:2], torch.tensor([0.8, 0.5]), atol=0.12)
    assert p[2] < 0.05
    assert p[3] < p[2]
