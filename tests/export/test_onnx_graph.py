"""The graphs: any batch, nothing of the machine that made them, the same numbers as torch."""

from __future__ import annotations

import copy
import getpass
import re
import socket
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx
import onnxruntime as ort
import torch
from torch import nn

from immunogate.errors import InputError, UsageError
from immunogate.export.onnx_graph import (
    OPSET,
    graph_of,
    in_half_precision,
    in_precision,
    portable_yunet,
    with_half_weights,
)
from immunogate.manifest import DETECTOR_OUTPUTS
from immunogate.networks.recognisers import load_recogniser
from immunogate.networks.twin import UnitEmbedding
from immunogate.runtime.detect import Detector
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.structs import Floats

pytestmark = pytest.mark.torch


class Small(nn.Module):
    """Convolution, BatchNorm, PReLU and a reshape that a careless export would pin to one batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.PReLU(4))
        self.last = nn.Linear(4 * 7 * 7, 5)

    def forward(self, faces: Any) -> Any:
        cells = self.layers(faces)
        return self.last(cells.reshape(cells.shape[0], -1))


@pytest.fixture(scope="module")
def small() -> Any:
    network = Small().train()
    for _ in range(3):
        network(torch.rand(8, 1, 16, 16))
    return network.eval()


@pytest.fixture(scope="module")
def graph(small: Any) -> Any:
    return graph_of(small, (1, 16, 16), "face", "answer")


@pytest.fixture(scope="module")
def real(recogniser: Path) -> Any:
    """The real recogniser as it is exported, and its graph."""
    network = UnitEmbedding(load_recogniser(recogniser, "mobilefacenet")[0]).eval()
    return network, graph_of(network, (3, 112, 96), "face", "embedding")


def _run(graph: Any, batch: Any, output: str) -> Any:
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([output], {session.get_inputs()[0].name: batch})[0]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_batch_gives_what_torch_gives(small: Any, graph: Any, batch: int) -> None:
    faces = torch.rand(batch, 1, 16, 16)
    with torch.no_grad():
        expected = small(faces).numpy()
    found = _run(graph, faces.numpy(), "answer")
    assert found.shape == (batch, 5)
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.data
@pytest.mark.parametrize("batch", [1, 2, 6])
def test_any_batch_of_the_real_recogniser(real: Any, rows_of_faces: Floats, batch: int) -> None:
    network, graph = real
    planes = np.repeat(rows_of_faces[:batch].reshape(-1, 1, 112, 112)[..., 8:104], 3, axis=1) * np.float32(127.5 / 128)
    with torch.no_grad():
        expected = network(torch.from_numpy(planes)).numpy()
    found = _run(graph, planes, "embedding")
    assert np.abs(found - expected).max() < 1e-5
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(batch), abs=1e-5)


def test_a_network_in_training_mode_is_exported_as_it_infers(small: Any) -> None:
    faces = torch.rand(4, 1, 16, 16)
    with torch.no_grad():
        expected = small(faces).numpy()
    network = Small().train()
    network.load_state_dict(small.state_dict())
    found = _run(graph_of(network, (1, 16, 16), "face", "answer"), faces.numpy(), "answer")
    assert np.abs(found - expected).max() < 1e-5


def test_names_shapes_and_opset_are_as_stated(graph: Any) -> None:
    (frame,), (answer,) = graph.graph.input, graph.graph.output
    assert (frame.name, answer.name) == ("face", "answer")
    dims = [dim.dim_param or dim.dim_value for dim in frame.type.tensor_type.shape.dim]
    assert isinstance(dims[0], str)
    assert dims[1:] == [1, 16, 16]
    assert [entry.version for entry in graph.opset_import if entry.domain == ""] == [OPSET] == [18]
    assert {entry.domain for entry in graph.opset_import} <= {"", "ai.onnx", "pkg.onnxscript.torch_lib.common"}
    assert all(node.domain == "" for node in graph.graph.node), "plain operators only: any runner takes them"
    assert not graph.functions


def test_the_same_network_gives_the_same_bytes(small: Any, graph: Any) -> None:
    assert graph_of(small, (1, 16, 16), "face", "answer").SerializeToString() == graph.SerializeToString()


def test_prelu_is_written_out_for_cpus_and_one_node_in_float16(small: Any) -> None:
    uneven = copy.deepcopy(small)
    uneven.layers[2].weight.data = torch.tensor([-0.5, 0.0, 0.25, 1.5])
    faces = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        expected = uneven(faces).numpy()
    graph = graph_of(uneven, (1, 16, 16), "face", "answer")
    for precision, there in (("fp32", False), ("fp16-weights", False), ("fp16", True)):
        made = in_precision(copy.deepcopy(graph), precision)
        assert ("PRelu" in {node.op_type for node in made.graph.node}) is there
        assert np.abs(_run(made, faces.numpy(), "answer") - expected).max() < (1e-5 if precision == "fp32" else 1e-2)


def test_weights_lie_inside(graph: Any) -> None:
    assert all(not weight.external_data for weight in graph.graph.initializer)


@pytest.mark.data
def test_nothing_of_this_machine_is_in_the_bytes(real: Any, graph: Any, recogniser: Path) -> None:
    secrets = [
        str(Path.home()), str(Path.cwd()), str(recogniser.parent), socket.gethostname(), "site-packages", ".py",
        "stack_trace", "Traceback", "/usr/", "/tmp", "/home/",
    ]  # fmt: skip
    if getpass.getuser() != "root":  # a word that may well stand somewhere by chance
        secrets.append(getpass.getuser())
    for model in (real[1], graph):
        text = b" ".join(re.findall(rb"[\x20-\x7e]{5,}", _without_weights(model))).decode()
        for secret in secrets:
            assert secret not in text, secret
        assert not model.metadata_props
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def _without_weights(model: Any) -> Any:
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for weight in bare.graph.initializer:
        weight.ClearField("raw_data")
    return bare.SerializeToString()


@pytest.mark.data
@pytest.mark.parametrize("halve", [in_half_precision, with_half_weights])
def test_half_precision_changes_a_real_embedding_little_and_halves_the_file(
    real: Any, rows_of_faces: Floats, halve: Any
) -> None:
    graph = real[1]
    half = halve(copy.deepcopy(graph))
    planes = np.repeat(rows_of_faces.reshape(-1, 1, 112, 112)[..., 8:104], 3, axis=1) * np.float32(127.5 / 128)
    found, expected = _run(half, planes, "embedding"), _run(graph, planes, "embedding")
    assert found.dtype == np.float32
    assert np.einsum("ij,ij->i", found, expected).min() > 0.9995
    assert np.abs(found - expected).max() > 1e-6, "nothing was converted"
    assert len(half.SerializeToString()) < 0.6 * len(graph.SerializeToString())


@pytest.fixture(scope="module")
def yunets(yunet: Path) -> Any:
    """The original, of 640 x 640 pixels, and the portable one."""
    portable = portable_yunet(yunet).SerializeToString()
    return tuple(ort.InferenceSession(model, providers=["CPUExecutionProvider"]) for model in (str(yunet), portable))


def _padded(pixels: Any, height: int, width: int) -> Any:
    planes = np.zeros((1, 3, height, width), np.float32)
    planes[0, :, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1)
    return planes


@pytest.mark.data
def test_the_portable_detector_is_the_original_at_its_own_size(yunets: Any, data_dir: Path) -> None:
    found, pixels = cv2.VideoCapture(str(data_dir / "video/head-pose-face-detection-male.gif")).read()
    assert found
    frame = _padded(pixels, 640, 640)
    original, portable = (session.run(DETECTOR_OUTPUTS, {"input": frame}) for session in yunets)
    for name, first, second in zip(DETECTOR_OUTPUTS, original, portable, strict=True):
        assert np.array_equal(first, second), name
    assert max(scores.max() for scores in portable[:3]) > 0.5, "there is a face to find"


@pytest.mark.data
@pytest.mark.parametrize(("height", "width"), [(320, 480), (288, 512), (1088, 1920), (32, 32), (640, 32)])
def test_the_portable_detector_takes_any_multiple_of_32(yunets: Any, data_dir: Path, height: int, width: int) -> None:
    pixels = cv2.VideoCapture(str(data_dir / "video/head-pose-face-detection-male.gif")).read()[1]
    height_shown, width_shown = min(height, pixels.shape[0]), min(width, pixels.shape[1])
    frame = _padded(pixels[:height_shown, :width_shown], height, width)
    outputs = dict(zip(DETECTOR_OUTPUTS, yunets[1].run(DETECTOR_OUTPUTS, {"input": frame}), strict=True))
    for stride in (8, 16, 32):
        cells = (height // stride) * (width // stride)
        for part, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            assert outputs[f"{part}_{stride}"].shape == (1, cells, channels)


@pytest.mark.data
def test_the_portable_detector_finds_the_same_face_on_a_smaller_frame(yunet: Path, data_dir: Path) -> None:
    pixels = cv2.VideoCapture(str(data_dir / "video/head-pose-face-detection-male.gif")).read()[1].astype(np.uint8)
    square = np.zeros((640, 640, 3), np.uint8)
    square[: pixels.shape[0], : pixels.shape[1]] = pixels
    original = Detector(OnnxRunner(yunet.read_bytes(), "original"), 640).detect(square)
    portable = Detector(OnnxRunner(portable_yunet(yunet).SerializeToString(), "portable"), 640).detect(pixels)
    assert len(original) == len(portable) == 1
    assert np.abs(original.boxes - portable.boxes).max() < 1
    assert np.abs(original.landmarks - portable.landmarks).max() < 1


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x07" + bytes(50), b"PK\x03\x04 an archive"])
def test_garbage_is_no_detector(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "yunet.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"yunet\.onnx"):
        portable_yunet(path)


def test_another_network_is_no_detector(tmp_path: Path, graph: Any) -> None:
    path = tmp_path / "other.onnx"
    onnx.save(graph, path)
    with pytest.raises(InputError, match=r"not a YuNet detector.*answer.*Expected the outputs cls_8"):
        portable_yunet(path)


@pytest.mark.data
def test_a_detector_that_is_cut_short(tmp_path: Path, yunet: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(yunet.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"cut\.onnx"):
        portable_yunet(path)


def test_a_detector_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no detector"):
        portable_yunet(tmp_path / "nowhere.onnx")
