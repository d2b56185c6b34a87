"""What the gate computes between its networks, as ONNX graphs: spectrum, antibody and act, views, mean.

The definitions are those of `immunogate.kernels.reference`, in float32: c = E (x - mu); x_hat = mu + E^T (a c), with a
gate g for the remainder mu + E^T ((a - g) c) + g (x - mu). Modes that draw clones are not here: they need the
counter-based generator, which ONNX does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from immunogate.basis import LEAST_REMAINDER, MOST_GRAIN, Eigenbasis, truncate
from immunogate.export.onnx_graph import OPSET
from immunogate.kernels.antibody import AntibodySettings
from immunogate.manifest import RecogniserEntry
from immunogate.structs import CROP_SIZE, Floats
from immunogate.views import VIEWS, View

IR_VERSION = 8
FACE = (1, CROP_SIZE, CROP_SIZE)

Shape = tuple[int, ...]


class Graph:
    """Nodes and weights under construction.

    Args:
        basis: mean face and eigenfaces; ``centred`` (B, D) becomes known by `centre`.
    """

    def __init__(self, basis: Eigenbasis | None = None) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, Any] = {}
        if basis is not None:
            self.weights["mean_face"] = basis.mean
            self._eigenfaces(basis.basis)

    def add(self, kind: str, inputs: list[str], output: str, **options: Any) -> str:
        """One operator; the name of its output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], **options))
        return output

    def weight(self, name: str, value: Any, kind: type = np.float32) -> str:
        """One constant; its name."""
        self.weights[name] = np.asarray(value, kind)
        return name

    def centre(self) -> None:
        """``face`` (B, 1, 112, 112) to ``centred`` (B, D), x - mu."""
        self.add("Flatten", ["face"], "pixels", axis=1)
        self.add("Sub", ["pixels", "mean_face"], "centred")

    def model(self, name: str, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> ModelProto:
        """The finished graph; shapes are of one face."""

        def declared(values: Mapping[str, Shape]) -> list[Any]:
            return [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", *shape]) for n, shape in values.items()
            ]

        weights = [numpy_helper.from_array(np.ascontiguousarray(array), key) for key, array in self.weights.items()]
        graph = helper.make_graph(self.nodes, name, declared(inputs), declared(outputs), weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(made)
        return made

    def _eigenfaces(self, rows: Floats) -> None:
        """(n, D), kept in float16 where that loses nothing, which is how bundles store them."""
        half = rows.astype(np.float16)
        if np.array_equal(half.astype(np.float32), rows):
            self.weights["eigenfaces.float16"] = half
            self.add("Cast", ["eigenfaces.float16"], "eigenfaces", to=TensorProto.FLOAT)
        else:
            self.weights["eigenfaces"] = rows


def spectrum_graph(basis: Eigenbasis) -> ModelProto:
    """``face`` (B, 1, 112, 112) in [-1, 1] to ``spectrum`` (B, n + 2): coefficients, length of the remainder, grain."""
    graph = Graph(basis)
    graph.centre()
    graph.add("Gemm", ["centred", "eigenfaces"], "coefficients", transB=1)
    axis = graph.weight("last_axis", [1], np.int64)
    graph.add("ReduceSumSquare", ["centred", axis], "whole", keepdims=1)
    graph.add("ReduceSumSquare", ["coefficients", axis], "explained", keepdims=1)
    graph.add("Sub", ["whole", "explained"], "rest")
    graph.add("Max", ["rest", graph.weight("least_rest", LEAST_REMAINDER**2)], "rest_or_least")
    graph.add("Sqrt", ["rest_or_least"], "remainder")
    mixed = graph.weight("mixed_difference", [[[[0.5, -0.5], [-0.5, 0.5]]]])  # half the mixed second difference
    graph.add("Conv", ["face", mixed], "differences", kernel_shape=[2, 2])
    graph.add("Abs", ["differences"], "sizes")
    graph.add("Min", ["sizes", graph.weight("most_grain", MOST_GRAIN)], "limited")
    graph.add("Flatten", ["limited"], "grains", axis=1)
    graph.add("ReduceMean", ["grains", axis], "grain", keepdims=1)
    graph.add("Concat", ["coefficients", "remainder", "grain"], "spectrum", axis=1)
    return graph.model("spectrum", {"face": FACE}, {"spectrum": (basis.components + 2,)})


def purifier_graph(
    basis: Eigenbasis, settings: AntibodySettings, entry: RecogniserEntry, *, reads: str = "face", gated: bool = False
) -> ModelProto:
    """From a face and its probabilities to what the recogniser is given: the raw face and the purified one's views.

    Args:
        basis: mean face and eigenfaces.
        settings: mode fixed, expected or threshold.
        entry: the recogniser's crop, normalisation and views.
        reads: what the analyzer reads; where that is the spectrum, coefficients are taken from it.
        gated: whether the last probability is the remainder's share.

    Returns:
        inputs ``face`` (B, 1, 112, 112), ``probabilities`` (B, n) or gated (B, n + 1) but in mode fixed, ``spectrum``
        (B, n + 2) where it is read; outputs ``raw_planes`` and ``planes_0`` ... (B, 3, height, width), one a view.
    """
    kept = settings.top_k if settings.mode == "fixed" else basis.components
    graph = Graph(truncate(basis, kept))
    graph.centre()
    inputs: dict[str, Shape] = {"face": FACE}
    if settings.mode == "fixed" or reads == "face":
        graph.add("Gemm", ["centred", "eigenfaces"], "coefficients", transB=1)
    else:
        inputs["spectrum"] = (kept + 2,)
        _slice(graph, "spectrum", "coefficients", 0, kept)
    if settings.mode == "fixed":
        graph.add("Gemm", ["coefficients", "eigenfaces", "mean_face"], "purified_pixels")
    else:
        inputs["probabilities"] = (kept + gated,)
        _act(graph, settings.mode, kept, gated)
    square = graph.weight("square", [-1, *FACE], np.int64)
    graph.add("Reshape", ["purified_pixels", square], "purified")
    outputs = {"raw_planes": (3, entry.height, entry.width)}
    _look(graph, "face", View(), "raw_planes", entry)
    for number, view in enumerate(VIEWS[entry.views]):
        _look(graph, "purified", view, f"planes_{number}", entry)
        outputs[f"planes_{number}"] = outputs["raw_planes"]
    return graph.model("purifier", inputs, outputs)


def mean_graph(views: int, length: int) -> ModelProto:
    """``embedding_0`` ... (B, E), one a view, to ``embedding`` (B, E): their mean, brought back to unit length."""
    graph = Graph()
    names = [f"embedding_{number}" for number in range(views)]
    graph.add("Mean", names, "mean")
    axis = graph.weight("last_axis", [1], np.int64)
    graph.add("ReduceL2", ["mean", axis], "length", keepdims=1)
    graph.add("Max", ["length", graph.weight("least", 1e-12)], "divisor")
    graph.add("Div", ["mean", "divisor"], "embedding")
    return graph.model("mean", dict.fromkeys(names, (length,)), {"embedding": (length,)})


def _act(graph: Graph, mode: str, genes: int, gated: bool) -> None:
    antibody = "probabilities"
    if mode == "threshold":
        graph.add("Greater", ["probabilities", graph.weight("half", 0.5)], "chosen")
        antibody = graph.add("Cast", ["chosen"], "antibody", to=TensorProto.FLOAT)
    if not gated:
        graph.add("Mul", [antibody, "coefficients"], "weighted")
        graph.add("Gemm", ["weighted", "eigenfaces", "mean_face"], "purified_pixels")
        return
    _slice(graph, antibody, "kept", 0, genes)
    _slice(graph, antibody, "gate", genes, genes + 1)
    graph.add("Sub", ["kept", "gate"], "beyond_gate")
    graph.add("Mul", ["beyond_gate", "coefficients"], "weighted")
    graph.add("Gemm", ["weighted", "eigenfaces", "mean_face"], "explained_pixels")
    graph.add("Mul", ["gate", "centred"], "let_through")
    graph.add("Add", ["explained_pixels", "let_through"], "purified_pixels")


def _slice(graph: Graph, source: str, output: str, first: int, end: int) -> None:
    places = [graph.weight(f"{output}.{word}", [value], np.int64) for word, value in (("first", first), ("end", end))]
    graph.add("Slice", [source, *places, graph.weight(f"{output}.axis", [1], np.int64)], output)


def _look(graph: Graph, source: str, view: View, output: str, entry: RecogniserEntry) -> None:
    """One view of (B, 1, 112, 112), cropped, normalised, in three equal channels; see `immunogate.views.seen`."""
    rows = np.clip(np.arange(CROP_SIZE) - view.down, 0, CROP_SIZE - 1)[: entry.height]
    columns = np.clip(np.arange(CROP_SIZE) - view.right, 0, CROP_SIZE - 1)
    columns = CROP_SIZE - 1 - columns if view.mirrored else columns
    columns = columns[entry.crop_left : entry.crop_left + entry.width]
    graph.add("Gather", [source, graph.weight(f"{output}.rows", rows, np.int64)], f"{output}.in_rows", axis=2)
    wide = graph.weight(f"{output}.columns", columns, np.int64)
    graph.add("Gather", [f"{output}.in_rows", wide], f"{output}.cropped", axis=3)
    graph.weight("scale", 127.5 / entry.std)
    graph.weight("offset", (127.5 - entry.mean) / entry.std)
    graph.add("Mul", [f"{output}.cropped", "scale"], f"{output}.scaled")
    grey = graph.add("Add", [f"{output}.scaled", "offset"], f"{output}.grey")
    graph.add("Concat", [grey] * 3, output, axis=1)
