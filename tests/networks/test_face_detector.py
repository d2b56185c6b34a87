"""The default face detector: YuNet's input and outputs, whatever the network inside does."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from immunogate.errors import CheckpointError, UsageError
from immunogate.manifest import DETECTOR_OUTPUTS, DETECTOR_STRIDES
from immunogate.networks.face_detector import LUMA, PRIOR, FaceDetector, YunetOutputs, load_face_detector

pytestmark = pytest.mark.torch

MOST_PARAMETERS, MOST_BYTES = 80_000, 1_000_000


@pytest.fixture(scope="module")
def network() -> Any:
    """Random weights, and BatchNorm that has seen pictures, so that folding it has something to do."""
    torch.manual_seed(3)
    made = FaceDetector().train()
    for head in made.heads:
        torch.nn.init.normal_(head.last.weight, std=0.3)
    for _ in range(4):
        made(torch.rand(4, 1, 96, 96))
    return made.eval()


def luma_of(picture: Any) -> Any:
    return (picture * torch.tensor(LUMA).reshape(1, 3, 1, 1)).sum(dim=1, keepdim=True) / 255


@pytest.mark.parametrize("size", [(32, 32), (96, 160), (64, 32)])
def test_each_grid_has_its_cells(network: Any, size: tuple[int, int]) -> None:
    with torch.no_grad():
        grids = network(torch.rand(2, 1, *size))
    assert [tuple(grid.shape) for grid in grids] == [
        (2, size[0] * size[1] // stride**2, 15) for stride in DETECTOR_STRIDES
    ]


def test_it_is_tiny_and_sees_no_face_at_first() -> None:
    fresh = FaceDetector().eval()
    assert sum(value.numel() for value in fresh.parameters()) <= MOST_PARAMETERS
    with torch.no_grad():
        scores = torch.cat([grid[..., 0].sigmoid().flatten() for grid in fresh(torch.rand(1, 1, 64, 64))])
    assert float(scores.max()) < 5 * PRIOR


def test_folding_changes_nothing_and_leaves_the_network_alone(network: Any) -> None:
    picture = torch.rand(1, 3, 96, 64) * 255
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        outputs = dict(zip(DETECTOR_OUTPUTS, YunetOutputs(network)(picture), strict=True))
        grids = network(luma_of(picture))
    for stride, grid in zip(DETECTOR_STRIDES, grids, strict=True):
        torch.testing.assert_close(outputs[f"cls_{stride}"], grid[..., :1].sigmoid(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outputs[f"obj_{stride}"], outputs[f"cls_{stride}"])
        torch.testing.assert_close(outputs[f"bbox_{stride}"], grid[..., 1:5], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(outputs[f"kps_{stride}"], grid[..., 5:], rtol=1e-3, atol=1e-4)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not [part for part in YunetOutputs(network).modules() if isinstance(part, torch.nn.BatchNorm2d)]


def test_scores_can_be_lowered_and_nothing_else(network: Any) -> None:
    picture = torch.rand(1, 1, 64, 64)
    lower = copy.deepcopy(network)
    lower.lower_scores(1.5)
    with torch.no_grad():
        for before, after in zip(network(picture), lower(picture), strict=True):
            torch.testing.assert_close(before[..., 0] - 1.5, after[..., 0])
            torch.testing.assert_close(before[..., 1:], after[..., 1:])


def test_colour_counts_only_as_luma(network: Any) -> None:
    blue_and_red = torch.rand(1, 3, 32, 32) * 255
    grey = (luma_of(blue_and_red) * 255).expand(-1, 3, -1, -1)
    outputs = YunetOutputs(network)
    with torch.no_grad():
        for coloured, plain in zip(outputs(blue_and_red), outputs(grey), strict=True):
            torch.testing.assert_close(coloured, plain, rtol=1e-3, atol=1e-4)


def test_a_checkpoint_comes_back(network: Any, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "detector.pt")
    again = load_face_detector(tmp_path / "detector.pt")
    assert not again.training
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))


def test_what_is_no_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        load_face_detector(tmp_path / "nothing.pt")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="face detector"):
        load_face_detector(tmp_path / "other.pt")


@pytest.fixture(scope="module")
def exported(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from immunogate.export.detector_graph import export_detector

    path = tmp_path_factory.mktemp("detector") / "detector.onnx"
    export_detector(network, path)
    return path


@pytest.mark.parametrize("size", [(32, 32), (480, 640), (96, 1024)])
def test_the_graph_gives_what_torch_gives_at_any_size(network: Any, exported: Path, size: tuple[int, int]) -> None:
    from immunogate.runtime.runners.onnx import OnnxRunner

    runner = OnnxRunner(exported.read_bytes(), "detector")
    runner.expect([1, 3, None, None], DETECTOR_OUTPUTS)
    picture = np.random.default_rng(1).uniform(0, 255, (1, 3, *size)).astype(np.float32)
    found = runner.run(picture)
    with torch.no_grad():
        wanted = YunetOutputs(network)(torch.from_numpy(picture))
    for name, values in zip(DETECTOR_OUTPUTS, wanted, strict=True):
        np.testing.assert_allclose(found[name], values.numpy(), rtol=1e-3, atol=1e-3)


def test_the_file_is_small_folded_and_tells_nothing_of_its_maker(exported: Path) -> None:
    import onnx

    content = exported.read_bytes()
    assert len(content) < MOST_BYTES
    assert b"face_detector.py" not in content
    assert str(Path(__file__).parents[2]).encode() not in content
    model = onnx.load_model_from_string(content)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert [output.name for output in model.graph.output] == list(DETECTOR_OUTPUTS)


def test_a_bundle_takes_it_like_a_yunet_and_the_gate_runs_it(exported: Path) -> None:
    from immunogate.export.onnx_graph import portable_yunet
    from immunogate.runtime.detect import Detector
    from immunogate.runtime.runners.onnx import OnnxRunner

    detector = Detector(OnnxRunner(portable_yunet(exported).SerializeToString(), "detector"))
    for size in ((31, 57), (270, 480)):
        detector.detect(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))
