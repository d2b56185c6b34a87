"""What all tests share: the development data, a real bundle made of it, and a tiny one that needs no data.

Bundles are shared by the whole session: whoever wants to damage one copies it first.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_device import build_emulator

from immunogate.basis import Eigenbasis, save_basis
from immunogate.bundle import Bundle, open_bundle, write_manifest
from immunogate.faces_file import AlignedFaces, identity_split, load_aligned_faces
from immunogate.files import find_data, sha256_of_file
from immunogate.manifest import (
    AnalyzerEntry,
    Calibration,
    DetectorEntry,
    FileEntry,
    Manifest,
    PurifierEntry,
    RecogniserEntry,
    Threshold,
)
from immunogate.runtime.camera.capture import quieten
from immunogate.structs import PIXELS

YUNET = "models/face_detection_yunet_2023mar.onnx"
FITTED, COMPONENTS, CALIBRATED = 900, 850, 350
TINY_GENES, TINY_EMBEDDING = 64, 16

MakeBundle = Callable[..., Bundle]


@pytest.fixture(scope="session", autouse=True)
def quiet_video() -> None:
    """FFmpeg asks once in a process how loud it may be: as at a gate, before anybody opens a video."""
    quieten()


@pytest.fixture(scope="session")
def one_torch_thread() -> Callable[[], AbstractContextManager[None]]:
    """Keeps torch on one thread for a while, where any test could import it; nothing is imported for it."""

    @contextmanager
    def keep() -> Iterator[None]:
        torch = sys.modules.get("torch")
        before = torch.get_num_threads() if torch else 0
        if torch:
            torch.set_num_threads(1)
        yield
        if torch:
            torch.set_num_threads(before)

    return keep


@pytest.fixture(scope="session")
def emulator_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """All CUDA kernels, to be run on the host."""
    return build_emulator(tmp_path_factory.mktemp("emulator"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of development data."""
    folder = find_data()
    if folder is None:
        pytest.skip("the development data is not here (IMMUNOGATE_DATA or ../shared/data)")
    return folder


@pytest.fixture(scope="session")
def aligned_faces(data_dir: Path) -> AlignedFaces:
    """All aligned development faces."""
    return load_aligned_faces(data_dir / "faces" / "lfw_dev_aligned_112.npz")


@pytest.fixture(scope="session")
def fit_and_kept_back(aligned_faces: AlignedFaces) -> tuple[AlignedFaces, AlignedFaces]:
    """900 faces to fit on and 350 of other people, whole people in the order of the file."""
    assert aligned_faces.identities is not None
    masks = identity_split(aligned_faces.identities, 1, 0.3)
    fit, kept_back = (np.flatnonzero(mask) for mask in masks)
    return aligned_faces.take(fit[:FITTED]), aligned_faces.take(kept_back[:CALIBRATED])


@pytest.fixture(scope="session")
def real_bundle(
    data_dir: Path,
    fit_and_kept_back: tuple[AlignedFaces, AlignedFaces],
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """A real MobileFaceNet and YuNet behind 850 eigenfaces of 900 faces, calibrated on 350 faces of other people.

    Mode fixed, all eigenfaces; 300 make a bundle faster but lose too much of a face for the gate to know anybody.
    """
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from immunogate.cli.calibrate import calibrate_bundle
    from immunogate.export.assemble import ExportOptions, export_bundle
    from immunogate.export.sources import load_sources
    from immunogate.training.eigenbasis import fit_eigenbasis

    folder = tmp_path_factory.mktemp("real")
    fit, kept_back = fit_and_kept_back
    save_basis(folder / "basis.npz", fit_eigenbasis(fit.images, COMPONENTS))
    recogniser = data_dir / "models" / "mobilefacenet_casia_112x96.pt"
    sources = load_sources(folder / "basis.npz", recogniser, "mobilefacenet")
    bundle = export_bundle(sources, data_dir / YUNET, folder / "bundle", ExportOptions())
    assert kept_back.identities is not None
    np.savez(folder / "kept_back.npz", images=kept_back.images, identities=kept_back.identities)
    return calibrate_bundle(bundle, folder / "kept_back.npz")


@pytest.fixture(scope="session")
def make_tiny_bundle() -> MakeBundle:
    """Make a bundle of random parts: ``make(folder, analyzer=True, mode="fixed")``; see `tiny_bundle`."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    return _write_tiny_bundle


@pytest.fixture(scope="session")
def tiny_bundle(make_tiny_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Random recogniser (16 numbers) and analyzer behind 64 random eigenfaces: every mode runs, nobody is recognised.

    The detector is YuNet where the data is there, else a network of YuNet's outputs that never finds a face. The
    calibration (threshold 0.5, alarm 2) is made up.
    """
    return make_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def dynamic_yunet(data_dir: Path) -> bytes:
    """The real YuNet for frames of any size, made without torch."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    return _dynamic_yunet(data_dir / YUNET)


def _write_tiny_bundle(folder: Path, *, analyzer: bool = True, mode: str = "fixed") -> Bundle:
    folder.mkdir(parents=True)
    draw = np.random.default_rng(7)
    basis, draw.bit_generator.state = _random_basis()
    save_basis(folder / "basis.npz", basis)
    (folder / "recogniser.onnx").write_bytes(_random_network(draw, 3, 96, TINY_EMBEDDING, "embedding"))
    if analyzer:
        (folder / "analyzer.onnx").write_bytes(_random_network(draw, 1, 112, TINY_GENES, "probabilities"))
    data = find_data()
    (folder / "detector.onnx").write_bytes(_blind_detector() if data is None else _dynamic_yunet(data / YUNET))
    manifest = Manifest(
        model_id="tiny",
        license="none",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        files={path.name: FileEntry(sha256_of_file(path), path.stat().st_size) for path in sorted(folder.iterdir())},
        detector=DetectorEntry("detector.onnx", "yunet"),
        recogniser=RecogniserEntry(
            "recogniser.onnx", "tiny", 112, 96, 8, 127.5, 128.0, "RGB", TINY_EMBEDDING, 18, "fp32"
        ),
        purifier=PurifierEntry("basis.npz", TINY_GENES, "float32", mode, 48, 32, 3, 11),
        analyzer=AnalyzerEntry("analyzer.onnx", "tiny", 18, "fp32", "face", False) if analyzer else None,
    )
    write_manifest(folder, manifest)
    made_up = [Threshold(rate, 0.5, rate, 4 * round(1 / rate), 0.5, 100) for rate in (1e-2, 1e-3, 1e-4)]
    limits = Calibration("measured", made_up, 2.0, 0.0, manifest.embedding_hash(), "made up for tests")
    return open_bundle(folder).with_calibration(limits)


@cache
def _random_basis() -> tuple[Eigenbasis, Any]:
    """Smooth, as eigenfaces are, so that a face is not lost altogether in the projection; and how draws go on."""
    draw = np.random.default_rng(7)
    coarse = draw.standard_normal((TINY_GENES, 14, 14))
    smooth = np.kron(coarse, np.ones((1, 8, 8))).reshape(TINY_GENES, PIXELS)
    rows = np.linalg.qr(smooth.T)[0].T.astype(np.float32)
    mean = draw.uniform(-0.3, 0.3, PIXELS).astype(np.float32)
    values = np.geomspace(400, 1, TINY_GENES).astype(np.float32)
    basis = Eigenbasis(mean, np.ascontiguousarray(rows), values, float(values.sum()) * 1.1, 1000)
    return basis, draw.bit_generator.state


def _random_network(draw: np.random.Generator, channels: int, width: int, outputs: int, name: str) -> bytes:
    """One convolution, one dense layer; embeddings come out at unit length, probabilities through a sigmoid."""
    from onnx import TensorProto, checker, helper, numpy_helper

    cells = 6 * 14 * (width // 8)
    weights = {
        "filters": draw.standard_normal((6, channels, 8, 8)) / 4,
        "dense": draw.standard_normal((cells, outputs)) / np.sqrt(cells),
        "offset": draw.standard_normal(outputs) / 10,
    }
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "embedding": ("LpNormalization", {"axis": 1, "p": 2}),
        "probabilities": ("Sigmoid", {}),
    }
    last, options = kinds[name]
    nodes = [
        helper.make_node("Conv", ["face", "filters"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Relu", ["cells"], ["positive"]),
        helper.make_node("Flatten", ["positive"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "dense", "offset"], ["mixed"]),
        helper.make_node(last, ["mixed"], [name], **options),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["batch", channels, 112, width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", outputs])],
        [numpy_helper.from_array(array.astype(np.float32), key) for key, array in weights.items()],
    )
    return _serialised(graph, checker)


def _blind_detector() -> bytes:
    """YuNet's inputs and outputs; all scores are 0."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes, outputs, weights = [], [], []
    for stride in (8, 16, 32):
        nodes.append(
            helper.make_node(
                "AveragePool", ["input"], [f"cells{stride}"], kernel_shape=[stride, stride], strides=[stride, stride]
            )
        )
        for part, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            name = f"{part}_{stride}"
            weights.append(numpy_helper.from_array(np.zeros((channels, 3, 1, 1), np.float32), f"w_{name}"))
            weights.append(numpy_helper.from_array(np.array([1, -1, channels]), f"shape_{name}"))
            nodes += [
                helper.make_node("Conv", [f"cells{stride}", f"w_{name}"], [f"grid_{name}"]),
                helper.make_node("Transpose", [f"grid_{name}"], [f"last_{name}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"last_{name}", f"shape_{name}"], [name]),
            ]
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, f"cells_{stride}", channels]))
    frame = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])
    return _serialised(helper.make_graph(nodes, "blind", [frame], outputs, weights), checker)


def _serialised(graph: Any, checker: Any) -> bytes:
    from onnx import helper

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _dynamic_yunet(path: Path) -> bytes:
    """YuNet is fully convolutional; only the recorded sizes fix its input."""
    import onnx

    model = onnx.load(path)
    frame = model.graph.input[0].type.tensor_type.shape.dim
    frame[2].dim_param, frame[3].dim_param = "height", "width"
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"cells_{output.name}"
    del model.graph.value_info[:]
    data: bytes = model.SerializeToString()
    return data
