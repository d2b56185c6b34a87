"""ONNX networks as plain float32 graphs whose nodes have names, and runs of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from immunogate.errors import BundleError, UsageError
from immunogate.graphs.rectifiers import with_prelu
from immunogate.graphs.weights import array_of, prune
from immunogate.structs import Floats

BATCH = 16
"""Faces in one run; bounds memory, for all intermediate tensors of a batch are held at once."""

_LOW = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.UINT8)


def float_network(data: bytes, name: str) -> ModelProto:
    """The network with float32 weights in place of those stored in float16, shapes inferred and every node named.

    PReLUs that export wrote out are PRelu nodes again: TensorRT has them, and factors of channels pass through them.

    Args:
        data: content of the ONNX file, already verified.
        name: what to call it in errors.

    Raises:
        BundleError: it is no ONNX network.
        UsageError: its arithmetic is float16 or integer already.
    """
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker raise many classes of their own
        raise BundleError(
            f"{name} is no ONNX network: {str(error).splitlines()[0]}", "Export the bundle again"
        ) from error
    _fold_casts(model)
    if any(weight.data_type in _LOW for weight in model.graph.initializer):
        raise UsageError(
            f"{name} was converted before: its weights are not float32",
            "Begin with a bundle of precision fp32 or fp16-weights",
        )
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    inferred: ModelProto = onnx.shape_inference.infer_shapes(with_prelu(model))
    return inferred


def _fold_casts(model: ModelProto) -> None:
    """Do what a runtime does as it loads float16 weights for float32 arithmetic: cast them once, here."""
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    for node in list(graph.node):
        to_float = any(item.name == "to" and item.i == TensorProto.FLOAT for item in node.attribute)
        if node.op_type != "Cast" or not to_float or node.input[0] not in weights:
            continue
        stored = weights[node.input[0]]
        graph.initializer.append(numpy_helper.from_array(array_of(stored).astype(np.float32), node.output[0]))
        graph.node.remove(node)
    prune(model)


def sort(model: ModelProto) -> None:
    """Put the nodes into an order in which each comes after those it reads, as ONNX asks for."""
    graph = model.graph
    made = {name for node in graph.node for name in node.output}
    left, done, ordered = list(graph.node), set[str](), []
    while left:
        ready = [node for node in left if all(name not in made or name in done for name in node.input)]
        if not ready:
            raise RuntimeError("the network's nodes wait for each other")
        ordered += ready
        done |= {name for node in ready for name in node.output}
        chosen = {id(node) for node in ready}
        left = [node for node in left if id(node) not in chosen]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def finished(model: ModelProto) -> bytes:
    """The file's content: nodes in order, only weights that are read, no notes on shapes, checked.

    Raises:
        onnx.checker.ValidationError: it is no valid network, which is a fault of the conversion.
    """
    prune(model)
    sort(model)
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def float_outputs(model: ModelProto) -> dict[str, NodeProto]:
    """The node behind every float32 tensor that a node makes, in the graph's order."""
    noted = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    return {
        name: node
        for node in model.graph.node
        for name in node.output
        if noted.get(name, TensorProto.FLOAT) == TensorProto.FLOAT and name
    }


def session(data: bytes, optimised: bool = True) -> ort.InferenceSession:
    """A session on one CPU thread.

    Args:
        data: of the network.
        optimised: let ONNX Runtime rewrite the graph, as it does where the network is deployed.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def tensors(model: ModelProto, names: Sequence[str], inputs: Floats) -> Iterator[dict[str, Floats]]:
    """The named intermediate tensors, for one batch of inputs after the other."""
    watched = ModelProto()
    watched.CopyFrom(model)
    there = {output.name for output in watched.graph.output}
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in there
    )
    opened = session(watched.SerializeToString(), optimised=False)
    source = opened.get_inputs()[0].name
    for start in range(0, len(inputs), BATCH):
        values = opened.run(list(names), {source: inputs[start : start + BATCH]})
        yield dict(zip(names, values, strict=True))
