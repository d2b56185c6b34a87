"""PReLU in terms of operations that ONNX Runtime's CPU provider is quick at.

ONNX Runtime 1.32 works through PRelu with a slope for each channel one value at a time. With
PReLU(x) = a x + (1 - a) max(x, 0) the same values come from operations that use the whole width of the processor.
TensorRT has PReLU of its own and needs none of this.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from immunogate.calib.precision.networks import array_of, prune, weights_of

MARK = "prelu"
"""Names of the nodes made here begin with this word and the name of the one they stand for."""


def without_prelu(model: ModelProto) -> ModelProto:
    """The same network to rounding, each PRelu with stored slopes written out."""
    plain = ModelProto()
    plain.CopyFrom(model)
    graph, weights = plain.graph, weights_of(plain)
    nodes = []
    for node in graph.node:
        if node.op_type != "PRelu" or node.input[1] not in weights:
            nodes.append(NodeProto.FromString(node.SerializeToString()))
            continue
        name, source, slopes = f"{MARK}.{node.name}", node.input[0], array_of(weights[node.input[1]])
        graph.initializer.append(numpy_helper.from_array(np.asarray(1 - slopes, np.float32), f"{name}.rest"))
        nodes += [
            helper.make_node("Relu", [source], [f"{name}.positive"], f"{name}.relu"),
            helper.make_node("Mul", [f"{name}.positive", f"{name}.rest"], [f"{name}.kept"], f"{name}.upper"),
            helper.make_node("Mul", [source, node.input[1]], [f"{name}.sloped"], f"{name}.lower"),
            helper.make_node("Add", [f"{name}.kept", f"{name}.sloped"], [node.output[0]], f"{name}.sum"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    prune(plain)
    return plain


def is_rectifier(node: NodeProto) -> bool:
    """Whether the node was made here."""
    return node.name.startswith(f"{MARK}.")
