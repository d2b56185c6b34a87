"""Evens out how large a network's channels are, which changes nothing in float and much in int8.

Source: Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019; the balance between activations and weights as in Xiao et al., "SmoothQuant", ICML 2023.

One scale serves all channels of a tensor in int8, so that a channel a hundred times smaller than another is left with
two or three values. A convolution's result may be divided by any positive number per channel if whoever reads it
multiplies its weights by the same: ReLU and PReLU let positive factors through, and a sum does if all its terms have
the same ones. So the channels that convolutions pass to convolutions are scaled, together wherever sums tie them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from immunogate.calib.precision.networks import tensors
from immunogate.graphs.weights import array_of, weights_of
from immunogate.structs import Floats

TRANSPARENT = ("Relu", "PRelu", "Add")
SMALLEST = 1e-4
"""Of a channel against the largest: channels that are dead on these faces are not blown up further."""


@dataclass(eq=False)
class _Tied:
    """Tensors whose channels have to be scaled alike, with the convolutions that make and read them."""

    makers: list[NodeProto] = field(default_factory=list)
    readers: list[NodeProto] = field(default_factory=list)
    fixed: bool = False


def equalised(model: ModelProto, inputs: Floats) -> ModelProto:
    """The same network to rounding, with channels of similar size.

    Args:
        model: float32, from `networks.float_network`.
        inputs: (N, ...) float32 as they reach the network.
    """
    even = ModelProto()
    even.CopyFrom(model)
    stored = weights_of(even)
    ties = [tie for tie in _ties(even, stored) if tie.makers and tie.readers and not tie.fixed]
    if not ties:
        return even
    sizes = _channel_sizes(even, sorted({node.input[0] for tie in ties for node in tie.readers}), inputs)
    weights: dict[str, Floats] = {}

    def values(name: str) -> Floats:
        if name not in weights:
            weights[name] = array_of(stored[name])
        return weights[name]

    for tie in ties:
        scale = _scale(tie, sizes, values)
        for node in tie.makers:
            values(node.input[1])[:] /= scale[:, None, None, None]
            if len(node.input) > 2:
                values(node.input[2])[:] /= scale
        for node in tie.readers:
            read = values(node.input[1])
            read[:] *= scale[:, None, None, None] if _is_depthwise(read) else scale[None, :, None, None]
    for name, changed in weights.items():
        stored[name].CopyFrom(numpy_helper.from_array(changed, name))
    return even


def _ties(model: ModelProto, weights: dict[str, TensorProto]) -> list[_Tied]:
    """Groups of tensors; whatever is read or made by anything but convolutions and `TRANSPARENT` is fixed."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for node in model.graph.node:
        if node.op_type in TRANSPARENT:
            for name in node.input if node.op_type == "Add" else node.input[:1]:
                parent[root(name)] = root(node.output[0])
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    users = _users(model, weights)
    shared = {name for name, count in users.items() if count > 1}
    found: dict[str, _Tied] = {}
    for node in model.graph.node:
        plain = node.op_type == "Conv" and _is_plain(node, weights) and not shared & set(node.input[1:])
        data = node.input if node.op_type not in ("Conv", "PRelu") else node.input[:1]
        for name, roles in [(n, "readers") for n in data] + [(n, "makers") for n in node.output]:
            tie = found.setdefault(root(name), _Tied())
            tie.fixed |= name in ends or name in weights or not (plain or node.op_type in TRANSPARENT)
            if plain:
                getattr(tie, roles).append(node)
    return list(found.values())


def _users(model: ModelProto, weights: dict[str, TensorProto]) -> dict[str, int]:
    """How many nodes read each stored weight: one that several share can not be scaled for one of them."""
    users = dict.fromkeys(weights, 0)
    for node in model.graph.node:
        for name in node.input:
            if name in users:
                users[name] += 1
    return users


def _is_plain(node: NodeProto, weights: dict[str, TensorProto]) -> bool:
    """A convolution of pictures with stored float weights, all channels together or each for itself."""
    stored = [weights.get(name) for name in node.input[1:] if name]
    if not stored or any(weight is None or weight.data_type != TensorProto.FLOAT for weight in stored):
        return False
    shape = list(weights[node.input[1]].dims)
    group = next((item.i for item in node.attribute if item.name == "group"), 1)
    return len(shape) == 4 and (group == 1 or (shape[1] == 1 and group == shape[0]))


def _is_depthwise(values: Floats) -> bool:
    return bool(values.shape[1] == 1 and values.shape[0] > 1)


def _channel_sizes(model: ModelProto, names: list[str], inputs: Floats) -> dict[str, Floats]:
    """(C,) largest magnitude of every channel of the (B, C, H, W) tensors."""
    sizes: dict[str, Floats] = {}
    for batch in tensors(model, names, inputs):
        for name, values in batch.items():
            largest = np.abs(values).max(axis=(0, 2, 3))
            sizes[name] = np.maximum(sizes.get(name, largest), largest)
    return sizes


def _scale(tie: _Tied, sizes: dict[str, Floats], values: object) -> Floats:
    """(C,) factors around 1: the root of a channel's size over that of the weights that read it.

    Where only depthwise convolutions read, whose weights have a scale for each channel anyway, its size alone.
    """
    size = np.max([sizes[node.input[0]] for node in tie.readers], axis=0)
    dense = [weight for node in tie.readers if not _is_depthwise(weight := values(node.input[1]))]  # type: ignore[operator]
    scale = size
    if dense:
        read = np.max([np.abs(weight).max(axis=(0, 2, 3)) for weight in dense], axis=0)
        scale = np.sqrt(size / np.maximum(read, 1e-6))
    scale = np.maximum(scale, SMALLEST * scale.max())
    return np.asarray(scale / np.exp(np.log(np.maximum(scale, 1e-30)).mean()), np.float32)
