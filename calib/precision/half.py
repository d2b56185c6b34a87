"""Float16, with the layers that it would break found on real faces and left in float32.

Weights and tensors are stored in float16 and so are the results of every node; inputs and outputs of the network stay
float32. Float16 ends at 65504 and loses digits below 6.1e-5 (IEEE 754-2019, binary16).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from immunogate.calib.precision.networks import finished, float_outputs, tensors
from immunogate.calib.precision.search import Judge, LayerCost, cosine_cost
from immunogate.graphs.weights import array_of, weights_of
from immunogate.structs import Floats

LARGEST = 65504.0
HEADROOM = 4.0
"""Other faces may reach further than the ones at hand: what comes within this factor of the end counts as over it."""

MOST_ROUNDING = 1e-2
"""Rounding error of a tensor, as a share of its length, above which too much of it lies where digits are lost. Normal
is 2e-4."""

COSTLY = 0.1
"""Share of what the limit allows that one layer may cost before it is kept."""

ALWAYS = ("ReduceL2", "ReduceSumSquare", "ReduceSum", "ReduceMean", "LpNormalization", "LayerNormalization", "Softmax")
"""Sums over a whole vector: their squares overflow long before their result does, and they cost next to no time."""


@dataclass(frozen=True)
class TensorFacts:
    """What a tensor looked like on all faces.

    Attributes:
        largest: magnitude.
        rounding: length of the float16 rounding error over the length of the tensor.
    """

    largest: float
    rounding: float


@dataclass(frozen=True)
class KeptNode:
    """A node that stays in float32.

    Attributes:
        node: its name.
        op: ONNX operator.
        reason: overflow, underflow, cost or reduction.
        number: largest magnitude, rounding error or loss of cosine; 0 for a reduction.
    """

    node: str
    op: str
    reason: str
    number: float


def observed(model: ModelProto, inputs: Floats) -> dict[str, TensorFacts]:
    """Facts of the input and of every float tensor that a node makes, over all inputs.

    Args:
        model: float32, from `networks.float_network`.
        inputs: (N, ...) float32 as they reach the network.
    """
    names = [model.graph.input[0].name, *float_outputs(model)]
    largest = dict.fromkeys(names, 0.0)
    error, length = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for batch in tensors(model, names[1:], inputs):
        for name, values in batch.items():
            _add(name, values, largest, error, length)
    _add(names[0], inputs, largest, error, length)
    return {name: TensorFacts(largest[name], _share(error[name], length[name])) for name in names}


def _add(
    name: str, values: Floats, largest: dict[str, float], error: dict[str, float], length: dict[str, float]
) -> None:
    if values.size == 0:
        return
    largest[name] = max(largest[name], float(np.abs(values).max()))
    within = np.clip(values, -LARGEST, LARGEST).astype(np.float64)
    error[name] += float(np.square(within - within.astype(np.float16)).sum())
    length[name] += float(np.square(within).sum())


def _share(error: float, length: float) -> float:
    return float(np.sqrt(error / length)) if length else 0.0


def kept_by_range(model: ModelProto, facts: dict[str, TensorFacts]) -> list[KeptNode]:
    """Nodes that make or read a tensor, or hold a weight, which float16 can not hold, and reductions."""
    stored = {name: _weight_facts(array_of(weight)) for name, weight in weights_of(model).items() if _is_float(weight)}
    known = {**facts, **stored}
    found = []
    for node in model.graph.node:
        touched = [known[name] for name in (*node.input, *node.output) if name in known]
        largest = max((entry.largest for entry in touched), default=0.0)
        rounding = max((entry.rounding for entry in touched), default=0.0)
        if not largest * HEADROOM <= LARGEST:  # not finite counts as over the end
            found.append(KeptNode(node.name, node.op_type, "overflow", largest))
        elif rounding > MOST_ROUNDING:
            found.append(KeptNode(node.name, node.op_type, "underflow", rounding))
        elif node.op_type in ALWAYS:
            found.append(KeptNode(node.name, node.op_type, "reduction", 0.0))
    return found


def _is_float(weight: TensorProto) -> bool:
    return bool(weight.data_type == TensorProto.FLOAT)


def _weight_facts(values: Floats) -> TensorFacts:
    """As of a tensor. Single numbers are bounds and epsilons, whose digits do not count."""
    if values.size == 0:
        return TensorFacts(0.0, 0.0)
    within = np.clip(values, -LARGEST, LARGEST).astype(np.float64)
    error = float(np.square(within - within.astype(np.float16)).sum())
    rounding = _share(error, float(np.square(within).sum())) if values.size > 1 else 0.0
    return TensorFacts(float(np.abs(values).max()), rounding)


def costs(model: ModelProto, kept: list[KeptNode], judge: Judge, reference: Floats) -> list[LayerCost]:
    """What rounding one node's weights and results to float16 costs, node by node, the costliest first.

    Only nodes with more than single numbers for weights are tried: what else there is only passes tensors on.
    """
    safe = {entry.node for entry in kept}
    weights = {name for name, weight in weights_of(model).items() if _is_float(weight) and np.prod(weight.dims) > 1}
    tried = [node for node in model.graph.node if node.name not in safe and weights & set(node.input)]
    found = [
        LayerCost(node.name, node.op_type, cosine_cost(judge(rounded(model, {node.name})), reference)) for node in tried
    ]
    return sorted(found, key=lambda entry: -entry.cost)


def rounded(model: ModelProto, chosen: set[str]) -> bytes:
    """The float32 network in which these nodes have float16 weights and read and give float16 tensors.

    What a device with float16 arithmetic and float32 sums computes. The converted network itself would not show it
    here: ONNX Runtime has hardly any float16 kernels for CPUs and passes float32 from one node to the next.

    Args:
        model: float32, from `networks.float_network`.
        chosen: names of nodes.
    """
    exact = ModelProto()
    exact.CopyFrom(model)
    graph, weights = exact.graph, weights_of(exact)
    results, source = set(float_outputs(exact)), graph.input[0].name
    nodes = _casts(source, f"{source}.half", f"{source}.rounded")
    for node in [NodeProto.FromString(node.SerializeToString()) for node in graph.node]:
        nodes.append(node)
        if node.name not in chosen:
            continue
        for place, name in enumerate(node.input):
            if name == source or (name in weights and _is_float(weights[name])):
                node.input[place] = f"{name}.rounded"
        for place, name in enumerate(node.output):
            if name in results:
                node.output[place] = f"{name}.exact"
                nodes += _casts(f"{name}.exact", f"{name}.half", name)
    del graph.node[:]
    graph.node.extend(nodes)
    for name, weight in weights.items():
        if _is_float(weight):
            with np.errstate(over="ignore"):  # where it does, the judge sees it
                values = array_of(weight).astype(np.float16).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(values, f"{name}.rounded"))
    return finished(exact)


def _casts(source: str, half: str, result: str) -> list[NodeProto]:
    return [
        helper.make_node("Cast", [source], [half], f"{half}.down", to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [result], f"{half}.up", to=TensorProto.FLOAT),
    ]


def in_half(model: ModelProto, kept: list[str]) -> ModelProto:
    """The network in float16 but for the kept nodes; inputs and outputs stay float32.

    Args:
        model: float32, from `networks.float_network`.
        kept: names of nodes.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = ModelProto()
    copy.CopyFrom(model)
    half: ModelProto = convert_float_to_float16(copy, keep_io_types=True, node_block_list=kept)
    _join(half)
    return half


def _join(model: ModelProto) -> None:
    """Let float32 tensors pass from one kept node to the next as they are.

    The converter puts a cast to float16 behind every kept node and one back before the next: what overflows would
    overflow there.
    """
    graph = model.graph
    down = {
        node.output[0]: node.input[0] for node in graph.node if _is_cast(node, TensorProto.FLOAT16) and _added(node)
    }
    direct = {
        node.output[0]: down[node.input[0]]
        for node in graph.node
        if _is_cast(node, TensorProto.FLOAT) and node.input[0] in down
    }
    outputs = {output.name for output in graph.output}
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = direct.get(name, name)
    for node in [node for node in graph.node if _is_cast(node, TensorProto.FLOAT) and node.output[0] in outputs]:
        if node.output[0] in direct:
            _rename_result(model, direct[node.output[0]], node)
    _drop_unread(model)


def _added(node: NodeProto) -> bool:
    """Whether the converter put this cast from float32 there; a network may have casts of its own, from integers."""
    return node.name.startswith("graph_input_cast") or node.name.endswith("_cast_to_fp16_node")


def _rename_result(model: ModelProto, source: str, cast: NodeProto) -> None:
    """Let the node behind ``source`` give the network's output itself, instead of through two casts."""
    if source in {value.name for value in model.graph.input}:
        return
    result = cast.output[0]
    model.graph.node.remove(cast)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == source:
                    names[place] = result


def _drop_unread(model: ModelProto) -> None:
    graph = model.graph
    outputs = {output.name for output in graph.output}
    while True:
        read = {name for node in graph.node for name in node.input} | outputs
        unread = [node for node in graph.node if node.op_type == "Cast" and node.output[0] not in read]
        if not unread:
            return
        for node in unread:
            graph.node.remove(node)


def _is_cast(node: NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(item.name == "to" and item.i == kind for item in node.attribute)
