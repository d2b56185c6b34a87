"""The stored weights of an ONNX graph."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from immunogate.structs import Floats


def array_of(weight: TensorProto) -> Floats:
    """A weight's values, its own copy."""
    return np.array(numpy_helper.to_array(weight))


def weights_of(model: ModelProto) -> dict[str, TensorProto]:
    """The stored weights by name."""
    return {weight.name: weight for weight in model.graph.initializer}


def prune(model: ModelProto) -> None:
    """Take away weights that no node reads."""
    graph = model.graph
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for weight in [weight for weight in graph.initializer if weight.name not in read]:
        graph.initializer.remove(weight)
