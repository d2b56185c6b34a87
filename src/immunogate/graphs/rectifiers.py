"""PReLU in terms of operators that ONNX Runtime's CPU provider is quick at, and back again.

ONNX Runtime 1.32 works through PRelu with a slope for each channel one value at a time, and takes a picture's channels
out of its blocked layout (NCHWc) before it and puts them back behind it. With slope a

    PReLU(x) = x + (1 - a) max(-x, 0)

exactly, and every part of that stays in the blocked layout if the factors are those of a BatchNormalization: ONNX
Runtime makes a depthwise convolution of it, takes the ReLU up into the first and the sum into the second, and is left
with two passes. In float arithmetic values above 0 are exact, and others are off by a few units in the last place of
x. Tensors of another rank than four have Mul in its place, and so have networks in int8, whose layout is another one.
One slope for all is a LeakyRelu, to the bit.

Seven ways of writing it were tried on MobileFaceNet and the paper's analyzer; this one and a depthwise convolution
in so many words were the quickest, a x + (1 - a) max(x, 0) little slower, and max(x, 0) + a min(x, 0) and
max(x, 0) - a max(-x, 0), which round nothing, much slower; Greater and Where were slower than PRelu itself.
(`benchmarks/bench_networks.py` measures the networks with PRelu and without.) TensorRT has PReLU of its own, and where
a network is converted for it, `with_prelu` gives it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from immunogate.graphs.weights import array_of, prune, weights_of
from immunogate.structs import Floats

MARK = "prelu"
"""Names of the nodes made here begin with this word and the name of the one they stand for."""

MAPS = 4
"""Rank of a tensor of pictures: batch, channels, height, width."""

_PARTS = _FLIP, _ABOVE, _SCALE, _SUM, _LEAKY = ("flip", "above", "scale", "sum", "leaky")


def without_prelu(model: ModelProto, *, blocked: bool = True) -> ModelProto:
    """The same network to rounding, each PRelu with stored float32 slopes written out.

    Args:
        model: of operator set 14 or later; it is left alone.
        blocked: whether its convolutions will run in the blocked layout, as float ones do; int8 ones do not.
    """
    plain = ModelProto()
    plain.CopyFrom(model)
    weights, ranks = weights_of(plain), _ranks(plain)
    nodes = []
    for node in plain.graph.node:
        stored = weights.get(node.input[1]) if node.op_type == "PRelu" else None
        if stored is None or stored.data_type != TensorProto.FLOAT:
            nodes.append(node)
        else:
            nodes += _written_out(plain, node, array_of(stored), blocked and ranks.get(node.input[0]) == MAPS)
    _exchange(plain, nodes)
    return plain


def with_prelu(model: ModelProto) -> ModelProto:
    """The same network to rounding, with PRelu where `without_prelu` wrote one out; its slopes to rounding too.

    Args:
        model: it is left alone.
    """
    folded = ModelProto()
    folded.CopyFrom(model)
    weights, parts = weights_of(folded), {node.name: node for node in folded.graph.node if is_rectifier(node)}
    found = {node.output[0]: slopes for node in parts.values() if (slopes := _slopes(node, parts, weights)) is not None}
    nodes, gone = [], {f"{MARK}.{result}" for result in found}
    for node in folded.graph.node:
        name = node.name.rpartition(".")[0]
        if node.name not in parts or name not in gone:
            nodes.append(node)
        elif node.output[0] in found:
            stored = _stored(folded, f"{name}.slopes", found[node.output[0]])
            nodes.append(helper.make_node("PRelu", [node.input[0], stored], list(node.output), name))
    _exchange(folded, nodes)
    return folded


def is_rectifier(node: NodeProto) -> bool:
    """Whether the node was made by `without_prelu`."""
    return node.name.startswith(f"{MARK}.") and node.name.rpartition(".")[2] in _PARTS


def _written_out(model: ModelProto, node: NodeProto, slopes: Floats, blocked: bool) -> list[NodeProto]:
    source, result = node.input[0], node.output[0]
    name = f"{MARK}.{result}"  # there is one such tensor, while names of nodes may be missing or stand twice
    if slopes.size and (slopes == slopes.flat[0]).all():
        alpha = float(slopes.flat[0])
        return [helper.make_node("LeakyRelu", [source], [result], f"{name}.{_LEAKY}", alpha=alpha)]
    by_channel = blocked and slopes.size == ((1,) * MAPS + slopes.shape)[-MAPS + 1]
    times: Callable[[ModelProto, str, str, Floats], NodeProto] = _normalisation if by_channel else _product
    return [
        times(model, source, f"{name}.{_FLIP}", np.full_like(slopes, -1)),
        helper.make_node("Relu", [f"{name}.{_FLIP}"], [f"{name}.{_ABOVE}"], f"{name}.{_ABOVE}"),
        times(model, f"{name}.{_ABOVE}", f"{name}.{_SCALE}", 1 - slopes),
        helper.make_node("Add", [source, f"{name}.{_SCALE}"], [result], f"{name}.{_SUM}"),
    ]


def _normalisation(model: ModelProto, source: str, name: str, factors: Floats) -> NodeProto:
    """Factors of the channels as a BatchNormalization of mean 0 and variance 1; result and node are called ``name``."""
    count = factors.size
    scale = _stored(model, f"{name}.factors", factors.reshape(count))
    zeros, ones = (_stored(model, f"{MARK}.{value:d}x{count}", np.full(count, value)) for value in (0, 1))
    return helper.make_node("BatchNormalization", [source, scale, zeros, zeros, ones], [name], name, epsilon=0.0)


def _product(model: ModelProto, source: str, name: str, factors: Floats) -> NodeProto:
    """Likewise for factors of any shape."""
    if (factors == -1).all():
        return helper.make_node("Neg", [source], [name], name)
    return helper.make_node("Mul", [source, _stored(model, f"{name}.factors", factors)], [name], name)


def _stored(model: ModelProto, name: str, values: Floats) -> str:
    if name not in weights_of(model):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
    return name


def _slopes(node: NodeProto, parts: Mapping[str, NodeProto], weights: Mapping[str, TensorProto]) -> Floats | None:
    """Of the PRelu whose last part this node is; None where it is none, or not all of it is there."""
    name, _, part = node.name.rpartition(".")
    if name != f"{MARK}.{node.output[0]}":
        return None
    if part == _LEAKY and node.op_type == "LeakyRelu":
        return np.array([helper.get_node_attr_value(node, "alpha")], np.float32)
    flip, above, scale = (parts.get(f"{name}.{other}") for other in (_FLIP, _ABOVE, _SCALE))
    if part != _SUM or flip is None or above is None or scale is None or scale.input[1] not in weights:
        return None
    linked = (flip.input[0], above.input[0], scale.input[0]) == (node.input[0], flip.output[0], above.output[0])
    if not linked or node.input[1] != scale.output[0]:
        return None
    slopes = np.asarray(1 - array_of(weights[scale.input[1]]), np.float32)
    return slopes.reshape(-1, 1, 1) if scale.op_type == "BatchNormalization" else slopes


def _ranks(model: ModelProto) -> dict[str, int]:
    """Ranks of the tensors that have one to be known."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def _exchange(model: ModelProto, nodes: list[NodeProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    prune(model)
