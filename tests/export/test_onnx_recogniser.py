"""ONNX recognisers of other makers, from their file to a bundle."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from immunogate.cli import main
from immunogate.errors import InputError, UsageError
from immunogate.export.assemble import ExportOptions, export_bundle
from immunogate.export.description import READY, RecogniserDescription
from immunogate.export.onnx_recogniser import load_onnx_recogniser
from immunogate.export.sources import load_sources
from immunogate.networks.recognisers import load_recogniser
from immunogate.runtime.chain import open_chain

pytestmark = pytest.mark.torch

EMBEDDING = 24
PLAIN = RecogniserDescription("plain", embedding=EMBEDDING)


def network(
    *, batch: int | str = "None", opset: int = 11, ir: int = 6, channels: int = 3, size: tuple[int, int] = (112, 112),
    layout: str = "NCHW", raw: bool = False, unit: bool = False, map_output: bool = False, written_batch: bool = False,
    weights_are_inputs: bool = False, two_outputs: bool = False, kind: int = TensorProto.FLOAT, domain: str = "",
) -> onnx.ModelProto:  # fmt: skip
    """A small recogniser as others write them: convolution, BatchNorm, PReLU, dense layer."""
    draw = np.random.default_rng(3)
    cells = 6 * (size[0] // 8) * (size[1] // 8)
    weights: dict[str, Any] = {
        "filters": draw.standard_normal((6, channels, 8, 8)) / 8,
        **{name: draw.uniform(0.5, 1.5, 6) for name in ("scale", "bias", "mean", "variance")},
        "slope": draw.uniform(0.1, 0.4, (6, 1, 1)),
        "dense": draw.standard_normal((cells, EMBEDDING)) / np.sqrt(cells),
        "offset": draw.standard_normal(EMBEDDING) / 10,
        **({"centre": np.array([127.5]), "range": np.array([1 / 127.5])} if raw else {}),
    }
    arrays = {name: numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()}
    nodes, at = [], "input.1"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [at], ["planes"], perm=[0, 3, 1, 2]))
        at = "planes"
    if raw:
        nodes += [
            helper.make_node("Sub", [at, "centre"], ["_minus"]),
            helper.make_node("Mul", ["_minus", "range"], ["_mul"]),
        ]
        at = "_mul"
    nodes += [
        helper.make_node("Conv", [at, "filters"], ["face"], kernel_shape=[8, 8], strides=[8, 8]),  # a name of ours
        helper.make_node("BatchNormalization", ["face", "scale", "bias", "mean", "variance"], ["normal"]),
        helper.make_node("PRelu", ["normal", "slope"], ["bent"]),
    ]
    if written_batch:
        arrays["shape"] = numpy_helper.from_array(np.array([1, cells]), "shape")
        as_torch_does = {"allowzero": 1} if opset >= 14 else {}
        nodes.append(helper.make_node("Reshape", ["bent", "shape"], ["flat"], **as_torch_does))
    else:
        nodes.append(helper.make_node("Flatten", ["bent"], ["flat"]))
    last = "683" if not (unit or map_output) else "dense_out"
    nodes.append(helper.make_node("Gemm", ["flat", "dense", "offset"], [last], domain=domain))
    if unit:
        nodes.append(helper.make_node("LpNormalization", [last], ["683"], axis=1, p=2))
    if map_output:
        arrays["square"] = numpy_helper.from_array(np.array([-1, EMBEDDING, 1, 1]), "square")
        nodes.append(helper.make_node("Reshape", [last, "square"], ["683"]))
    sides = [channels, *size] if layout == "NCHW" else [*size, channels]
    inputs = [helper.make_tensor_value_info("input.1", kind, [batch, *sides])]
    if weights_are_inputs:
        inputs += [helper.make_tensor_value_info(n, a.data_type, list(a.dims)) for n, a in arrays.items()]
    gives = [1 if isinstance(batch, int) else batch, EMBEDDING, *([1, 1] if map_output else [])]
    outputs = [helper.make_tensor_value_info("683", TensorProto.FLOAT, gives)]
    if two_outputs:
        outputs.append(helper.make_tensor_value_info("bent", TensorProto.FLOAT, [batch, 6, size[0] // 8, size[1] // 8]))
    graph = helper.make_graph(nodes, "theirs", inputs, outputs, list(arrays.values()), doc_string="/home/them")
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir, producer_name="their tool")


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(**options: Any) -> Path:
        path = tmp_path / "theirs.onnx"
        onnx.save(network(**options), path)
        return path

    return save


def embedded(model: bytes | Path, name: str, faces: Any) -> Any:
    data = model if isinstance(model, bytes) else model.read_bytes()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {name: face[None]})[0].reshape(1, -1) for face in faces])


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


GREY = np.random.default_rng(5).uniform(0, 255, (3, 1, 112, 112)).astype(np.float32)
"""Pixel values."""

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as insightface's": ({}, {}),
    "batch of 1": ({"batch": 1}, {}),
    "batch of 1, written down": ({"batch": 1, "written_batch": True}, {}),
    "batch of 1, written down by torch": ({"batch": 1, "written_batch": True, "opset": 20, "ir": 10}, {}),
    "old": ({"opset": 8, "ir": 3, "weights_are_inputs": True, "batch": 1}, {}),
    "of our own operator set": ({"opset": 18, "ir": 8}, {}),
    "newer file format": ({"opset": 18, "ir": 10}, {}),
    "of unit length already": ({"unit": True}, {"normalised": True}),
    "of unit length, not said": ({"unit": True}, {}),
    "map of one cell": ({"map_output": True}, {}),
    "normalises itself": ({"raw": True}, {"mean": 0.0, "std": 1.0}),
    "channels last": ({"layout": "NHWC"}, {"layout": "NHWC"}),
    "one channel": ({"channels": 1}, {"colour": "GREY"}),
    "narrow": ({"size": (112, 96)}, {"width": 96, "crop_left": 8}),
    "three means": ({}, {"mean": [120.0, 110.0, 100.0], "std": [60.0, 61.0, 62.0]}),
    "three means, channels last": ({"layout": "NHWC"}, {"mean": [120.0, 110.0, 100.0], "layout": "NHWC"}),
    "two outputs": ({"two_outputs": True}, {"output": "683"}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_gives_its_own_embedding_at_unit_length(variant: str, saved: Any) -> None:
    """What is expected is computed here from the pixel values, with the file as it came."""
    options, words = VARIANTS[variant]
    path = saved(**options)
    description = RecogniserDescription("theirs", **words)
    made = load_onnx_recogniser(path, description)
    pixels = GREY[..., description.crop_left : description.crop_left + description.width]
    mean, std = (
        np.array(description.per_channel(v), np.float32)[:, None, None] for v in (description.mean, description.std)
    )
    theirs = (np.repeat(pixels, description.channels, axis=1) - mean) / std
    theirs = theirs.transpose(0, 2, 3, 1) if description.layout == "NHWC" else theirs
    expected = unit(embedded(path, "input.1", np.ascontiguousarray(theirs, np.float32)))
    ours = (pixels - 127.5) / 127.5 if description.is_plain and mean.flat[0] else pixels
    session = onnxruntime.InferenceSession(made.graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(["embedding"], {"face": np.repeat(ours, 3, axis=1)})[0]
    assert made.embedding == EMBEDDING
    assert session.get_inputs()[0].shape == ["batch", 3, description.height, description.width]
    assert session.get_outputs()[0].shape == ["batch", EMBEDDING]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    assert [(entry.domain, entry.version) for entry in made.graph.opset_import] == [("", 18)]
    assert 8 <= made.graph.ir_version <= 10
    assert b"/home/them" not in made.graph.SerializeToString()
    assert len(made.graph.graph.input) == 1
    assert "PRelu" not in {node.op_type for node in made.graph.graph.node}, "it is written out, whoever made it"


@pytest.mark.parametrize(
    ("options", "words", "refusal"),
    [
        ({"size": (112, 96)}, {}, r"takes any x 3 x 112 x 96, its description says any x 3 x 112 x 112 \(NCHW\)"),
        ({"layout": "NHWC"}, {}, r"takes any x 112 x 112 x 3, .*Correct height, width, colour or layout"),
        ({"channels": 1}, {}, r"takes any x 1 x 112 x 112"),
        ({"batch": 4}, {}, r"takes batches of 4 only.*opset_version=18\), with dynamic_shapes"),
        ({}, {"embedding": 512}, r"gives 1 x 24, its description says 1 x 512"),
        ({}, {"normalised": True}, r"embeddings of length \d.*Write normalised = false"),
        ({}, {"output": "516"}, r"has none called '516' of these outputs: 683"),
        ({"two_outputs": True}, {}, r"more than one of these outputs: 683, bent"),
        ({"kind": TensorProto.UINT8}, {}, r"is no valid ONNX file|takes uint8; float32 is needed"),
        ({"domain": "com.microsoft"}, {}, r"uses operators of 'com\.microsoft'"),
        ({"opset": 999, "ir": 8}, {}, r"Export it again: torch\.onnx\.export"),
    ],
)
def test_what_does_not_agree_is_said_in_words(options: Any, words: Any, refusal: str, saved: Any) -> None:
    with pytest.raises(InputError, match=refusal) as caught:
        load_onnx_recogniser(saved(**options), RecogniserDescription("theirs", **words))
    assert "theirs.onnx" in caught.value.what


def test_a_batch_that_can_not_be_freed_is_found_by_running_it(saved: Any, tmp_path: Path) -> None:
    """A mean over the batch: right for one face, another value for three."""
    model = onnx.load(saved(batch=1, opset=17, ir=8))
    model.graph.node.insert(3, helper.make_node("ReduceMean", ["bent"], ["shared"], axes=[0], keepdims=1))
    model.graph.node.insert(4, helper.make_node("Sub", ["bent", "shared"], ["apart"]))
    model.graph.node.insert(5, helper.make_node("Add", ["apart", "normal"], ["mixed"]))
    model.graph.node[6].input[0] = "mixed"
    onnx.save(model, tmp_path / "theirs.onnx")
    with pytest.raises(InputError, match=r"another embedding for a batch of 3 \(by 0\.\d+\).*dynamic_shapes"):
        load_onnx_recogniser(tmp_path / "theirs.onnx", PLAIN)


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "theirs.onnx", save_as_external_data=True, size_threshold=0, location="theirs.data")
    with pytest.raises(InputError, match=r"weights in other files.*save_as_external_data=False"):
        load_onnx_recogniser(tmp_path / "theirs.onnx", PLAIN)


@pytest.mark.parametrize("content", [b"", b"no ONNX at all", b"\x08\x08"])
def test_another_kind_of_file_is_no_onnx(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "theirs.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"theirs\.onnx is no ONNX file"):
        load_onnx_recogniser(tmp_path / "theirs.onnx", PLAIN)


def test_an_onnx_file_has_no_gradients(saved: Any) -> None:
    made = load_onnx_recogniser(saved(), PLAIN)
    with pytest.raises(InputError, match="has no gradients"):
        made.module(torch.zeros(1, 3, 112, 112, requires_grad=True))


def test_file_and_description_go_together(saved: Any, made_basis: Path, tmp_path: Path) -> None:
    path = saved()
    with pytest.raises(UsageError, match=r"does not say how it is fed.*arcface, arcface-raw, sface, or a TOML file"):
        load_sources(made_basis, path)
    with pytest.raises(UsageError, match="no architecture by name"):
        load_sources(made_basis, path, "ir50", description=PLAIN)
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(UsageError, match="is no ONNX file and needs no description"):
        load_sources(made_basis, tmp_path / "a.pt", description=PLAIN)


@pytest.fixture(scope="module")
def made_basis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from immunogate.basis import Eigenbasis, save_basis

    rows = np.linalg.qr(np.random.default_rng(2).standard_normal((112 * 112, 12)))[0].T.astype(np.float32)
    path = tmp_path_factory.mktemp("basis") / "basis.npz"
    values = np.linspace(9, 1, 12).astype(np.float32)
    save_basis(path, Eigenbasis(np.zeros(112 * 112, np.float32), np.ascontiguousarray(rows), values, 60.0, 50))
    return path


@pytest.fixture(scope="module")
def real_onnx(recogniser: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real MobileFaceNet as torch writes it for others: batch of 1, another operator set, not of unit length."""
    model, spec = load_recogniser(recogniser, "auto")
    path = tmp_path_factory.mktemp("theirs") / "mobilefacenet.onnx"
    example = (torch.zeros(1, 3, spec.height, spec.width),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter is what such files were made with, and is on its way out
        torch.onnx.export(model, example, str(path), dynamo=False, opset_version=13)
    return path


@pytest.mark.data
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_real_recogniser_comes_back_from_onnx(
    precision: str, real_onnx: Path, recogniser: Path, yunet: Path, made: Path, faces: Any, tmp_path: Path
) -> None:
    """Held against the torch network of the checkpoint, on raw faces and on what the purifier made of them."""
    description = RecogniserDescription("mfn", width=96, crop_left=8, std=128.0, embedding=128)
    sources = load_sources(made / "basis.npz", real_onnx, description=description)
    bundle = export_bundle(sources, yunet, tmp_path / "bundle", ExportOptions(precision=precision))
    frames = list(range(len(faces.images)))
    with open_chain(bundle) as chain:
        found = chain.recognise(faces.images, frames, frames)
    model, spec = load_recogniser(recogniser, "auto")
    raw = torch.from_numpy(faces.images.astype(np.float32) / 127.5 - 1)
    for ours, rows in ((found.raw, raw), (found.purified, torch.from_numpy(found.faces))):
        with torch.inference_mode():
            theirs = torch.nn.functional.normalize(model(spec.prepare(rows.reshape(-1, 1, 112, 112))))
        assert np.einsum("ij,ij->i", ours, theirs.numpy()).min() > (0.999999 if precision == "fp32" else 0.9995)
    assert bundle.manifest.recogniser.architecture == "mfn"
    assert bundle.manifest.provenance["recogniser_description"] == description.to_dict()


@pytest.mark.data
def test_the_command_exports_and_verifies_it(
    real_onnx: Path, yunet: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mfn.toml").write_text('name = "mfn"\nwidth = 96\ncrop_left = 8\nstd = 128.0\nembedding = 128\n')
    parts = ["export", "--basis", made / "basis.npz", "--recogniser", real_onnx, "--detector", yunet]
    parts += ["--out", tmp_path / "bundle", "--recogniser-description"]
    assert main([str(word) for word in (*parts, "arcface")]) == 2
    assert "1 x 3 x 112 x 96, its description says any x 3 x 112 x 112" in capsys.readouterr().err
    assert main([str(word) for word in (*parts, tmp_path / "mfn.toml")]) == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "bundle"), "--count", "4", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"]
    assert "ONNX - the ONNX given" in {check["between"] for check in report["checks"]}


def test_ready_descriptions_fit_what_they_are_for(saved: Any) -> None:
    """insightface's two kinds of files; SFace is of the second kind."""
    assert load_onnx_recogniser(saved(), READY["arcface"]).embedding == EMBEDDING
    assert load_onnx_recogniser(saved(raw=True, opset=8, ir=3, weights_are_inputs=True), READY["arcface-raw"])
