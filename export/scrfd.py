"""insightface's SCRFD with the inputs and outputs of a YuNet, so that one decoder serves both.

Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", ICLR 2022; facts of its ONNX files
from insightface's ``scrfd.py``: input RGB, (x - 127.5) / 128; strides 8, 16 and 32 with two anchors a cell, the second
after the first; scores, then distances left, top, right, bottom from the cell's corner in strides, then five points
from it likewise. A box about a corner is centre and logarithm of its sides, as YuNet has it, and nothing is lost by
that; but a YuNet's cell has one box, so the weaker of a cell's two anchors is left out: two faces in one cell come out
as one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, compose, helper, numpy_helper

from immunogate.errors import InputError
from immunogate.export.onnx_graph import strip
from immunogate.manifest import DETECTOR_OUTPUTS, DETECTOR_STRIDES

ANCHORS = 2
CHANNELS = {1: "score", 4: "bbox", 10: "kps"}
LEAST_OPSET = 11
LEAST_SIDE = 1e-4
"""Of a box in strides, below which its logarithm is not taken; YuNet's decoder has a limit of the same size."""

TRIED = ((64, 96), (128, 64))
"""Heights and widths on which a file shows what its outputs are, and that it takes every size."""

_INNER = "network/"
_AGAIN = "Give insightface's det_500m.onnx, det_2.5g.onnx or det_10g.onnx (with key points, of any input size)"


def looks_like_scrfd(model: ModelProto) -> bool:
    """Whether a graph has one input of pictures, and three outputs a stride, or two: which they are, a run shows."""
    return len(_inputs(model)) == 1 and len(model.graph.output) in (
        2 * len(DETECTOR_STRIDES),
        3 * len(DETECTOR_STRIDES),
    )


def portable_scrfd(model: ModelProto, origin: str) -> ModelProto:
    """The network behind ``input`` (1, 3, H, W) BGR 0..255 and before the outputs of a YuNet.

    Args:
        model: as read.
        origin: names it in errors.

    Raises:
        InputError: it has no key points, takes one size only, or its outputs are not those of an SCRFD.
    """
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < LEAST_OPSET:
        raise InputError(f"{origin} has operator set {opset}, at least {LEAST_OPSET} is needed", _AGAIN)
    inner = ModelProto()
    inner.CopyFrom(model)
    strip(inner)
    picture = _inputs(inner)[0]
    for axis, length in enumerate((1, 3, "height", "width")):
        dim = picture.type.tensor_type.shape.dim[axis]
        dim.Clear()
        setattr(dim, "dim_value" if isinstance(length, int) else "dim_param", length)
    del inner.graph.value_info[:]
    for output in inner.graph.output:
        output.type.tensor_type.ClearField("shape")
    names = _output_names(inner, picture.name, origin)
    return _with_the_outputs_of_a_yunet(inner, picture.name, names)


def _inputs(model: ModelProto) -> list[Any]:
    weights = {weight.name for weight in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _output_names(model: ModelProto, picture: str, origin: str) -> dict[tuple[str, int], str]:
    """Which output is what, by the shapes that two pictures give: names and order differ between files."""
    found: list[dict[tuple[str, int], str]] = []
    for height, width in TRIED:
        lengths = {ANCHORS * (height // stride) * (width // stride): stride for stride in DETECTOR_STRIDES}
        named: dict[tuple[str, int], str] = {}
        for name, shape in _shapes(model, picture, height, width, origin).items():
            kind, stride = CHANNELS.get(shape[-1]), lengths.get(int(np.prod(shape[:-1])))
            if kind is None or stride is None or (kind, stride) in named:
                raise InputError(f"{origin} is no SCRFD: {name} is {shape} for a picture of {height} x {width}", _AGAIN)
            named[kind, stride] = name
        found.append(named)
    if found[0] != found[1]:
        raise InputError(f"{origin} is no SCRFD: its outputs change places with the size of the picture", _AGAIN)
    missing = {(kind, stride) for kind in CHANNELS.values() for stride in DETECTOR_STRIDES} - found[0].keys()
    if missing:
        raise InputError(f"{origin} has no key points, by which faces are aligned", _AGAIN)
    return found[0]


def _shapes(model: ModelProto, picture: str, height: int, width: int, origin: str) -> dict[str, tuple[int, ...]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    grey = np.zeros((1, 3, height, width), np.float32)
    names = [output.name for output in model.graph.output]
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = session.run(names, {picture: grey})
    except Exception as error:  # ONNX Runtime's classes share no public base
        why = str(error).strip().splitlines()[0][:200]
        raise InputError(f"{origin} does not take pictures of {height} x {width}: {why}", _AGAIN) from error
    return {name: tuple(result.shape) for name, result in zip(names, results, strict=True)}


def _with_the_outputs_of_a_yunet(model: ModelProto, picture: str, names: dict[tuple[str, int], str]) -> ModelProto:
    inner = compose.add_prefix(model, _INNER)
    nodes, weights = _entrance(f"{_INNER}{picture}")
    nodes += inner.graph.node
    for stride in DETECTOR_STRIDES:
        nodes += _better_anchor(stride, *(f"{_INNER}{names[kind, stride]}" for kind in CHANNELS.values()))
    widths = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    outputs = []
    for name in DETECTOR_OUTPUTS:
        part, _, stride_word = name.partition("_")
        shape: list[str | int | None] = [1, f"cells_{stride_word}", widths[part]]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    for channels, name in CHANNELS.items():
        weights |= {f"{name}_two": np.array([-1, ANCHORS, channels]), f"{name}_one": np.array([1, -1, channels])}
    weights |= {"zero": np.array(0), "one": np.array(1), "half": np.float32(0.5), "least_side": np.float32(LEAST_SIDE)}
    weights |= {"from_0": np.array([0]), "to_2": np.array([2]), "to_4": np.array([4]), "axis_1": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "scrfd",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])],
        outputs,
        [*inner.graph.initializer, *(numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items())],
    )
    made = helper.make_model(graph, opset_imports=inner.opset_import, ir_version=min(max(inner.ir_version, 4), 10))
    onnx.checker.check_model(made)
    return made


def _entrance(into: str) -> tuple[list[NodeProto], dict[str, Any]]:
    """From BGR 0..255 to RGB, (x - 127.5) / 128."""
    weights = {"rgb": np.array([2, 1, 0]), "centre": np.float32(127.5), "range": np.float32(128)}
    return [
        helper.make_node("Gather", ["input", "rgb"], ["in_rgb"], axis=1),
        helper.make_node("Sub", ["in_rgb", "centre"], ["centred"]),
        helper.make_node("Div", ["centred", "range"], [into]),
    ], weights


def _better_anchor(stride: int, score: str, box: str, points: str) -> list[NodeProto]:
    """Of each cell the anchor with the higher score, the first of equals; box and points as YuNet has them."""

    def at(name: str) -> str:
        return f"{name}@{stride}"

    nodes = []
    for name, source in (("score", score), ("bbox", box), ("kps", points)):
        nodes.append(helper.make_node("Reshape", [source, f"{name}_two"], [at(f"{name}_pair")]))
        for anchor, index in (("first", "zero"), ("second", "one")):
            nodes.append(helper.make_node("Gather", [at(f"{name}_pair"), index], [at(f"{name}_{anchor}")], axis=1))
    nodes.append(helper.make_node("Greater", [at("score_second"), at("score_first")], [at("second")]))
    for name in ("score", "bbox", "kps"):
        choice = [at("second"), at(f"{name}_second"), at(f"{name}_first")]
        nodes.append(helper.make_node("Where", choice, [at(f"{name}_flat")]))
    nodes += [
        helper.make_node("Reshape", [at("score_flat"), "score_one"], [f"cls_{stride}"]),
        helper.make_node("Identity", [f"cls_{stride}"], [f"obj_{stride}"]),
        helper.make_node("Reshape", [at("kps_flat"), "kps_one"], [f"kps_{stride}"]),
        helper.make_node("Slice", [at("bbox_flat"), "from_0", "to_2", "axis_1"], [at("before")]),
        helper.make_node("Slice", [at("bbox_flat"), "to_2", "to_4", "axis_1"], [at("behind")]),
        helper.make_node("Sub", [at("behind"), at("before")], [at("difference")]),
        helper.make_node("Mul", [at("difference"), "half"], [at("shift")]),
        helper.make_node("Add", [at("behind"), at("before")], [at("sides")]),
        helper.make_node("Max", [at("sides"), "least_side"], [at("sides_or_least")]),
        helper.make_node("Log", [at("sides_or_least")], [at("logarithm")]),
        helper.make_node("Concat", [at("shift"), at("logarithm")], [at("box")], axis=1),
        helper.make_node("Reshape", [at("box"), "bbox_one"], [f"bbox_{stride}"]),
    ]
    return nodes
