"""ONNX files of other makers, read and brought to this project's operator set; refusals say what mends them."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, inliner, version_converter

from immunogate.errors import InputError, UsageError
from immunogate.export.onnx_graph import OPSET, strip
from immunogate.files import read_bytes

LARGEST_FILE = 1 << 30
STANDARD = ("", "ai.onnx")
IR_VERSIONS = (8, 10)
"""Of the file format: operator set 18 needs 8, and ONNX Runtime 1.18 reads up to 10."""

AGAIN = f"Export it again: torch.onnx.export(model, (example,), 'model.onnx', dynamo=True, opset_version={OPSET})"
_INSIDE = "Put them inside: onnx.save(onnx.load('model.onnx'), 'whole.onnx', save_as_external_data=False)"


def read_onnx(path: Path) -> tuple[bytes, ModelProto]:
    """The content of an ONNX file, and its graph: all weights inside, standard operators, no functions.

    Raises:
        UsageError: the file is not there.
        InputError: it is no ONNX file, keeps weights in other files, or uses operators of no standard.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "Check the path")
    data = read_bytes(path, LARGEST_FILE)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf raises classes of its own
        raise InputError(f"{path} is no ONNX file: {first_line(error)}") from error
    if any(weight.data_location == TensorProto.EXTERNAL for weight in model.graph.initializer):
        raise InputError(f"{path} keeps its weights in other files, which nobody would have hashed", _INSIDE)
    if not model.graph.node:
        raise InputError(f"{path} is no ONNX file, or an empty one")
    if model.functions:
        model = inliner.inline_local_functions(model)
    strangers = sorted({node.domain for node in model.graph.node} - set(STANDARD))
    if strangers:
        raise InputError(f"{path} uses operators of {strangers[0]!r}, which other runtimes do not know", AGAIN)
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise InputError(f"{path} is no valid ONNX file: {first_line(error)}", AGAIN) from error
    return data, model


def at_opset(model: ModelProto, origin: str) -> ModelProto:
    """The same graph in operator set `OPSET`, without traces of its maker, its weights no longer inputs.

    Raises:
        InputError: the converter can not do it.
    """
    held = next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 0)
    model.ir_version = max(model.ir_version, 4)  # in older files the converter asks every weight to be an input
    try:
        converted = model if held == OPSET else version_converter.convert_version(model, OPSET)
        converted.ir_version = min(max(converted.ir_version, IR_VERSIONS[0]), IR_VERSIONS[1])
        _weights_are_no_inputs(converted)
        onnx.checker.check_model(converted)
    except Exception as error:  # the converter raises RuntimeError and ConvertError
        raise InputError(
            f"{origin} has operator set {held}, {OPSET} is needed, and it can not be converted: {first_line(error)}",
            AGAIN,
        ) from error
    strip(converted)
    del converted.graph.value_info[:]
    return converted


def keep_output(model: ModelProto, name: str) -> None:
    """Leave one output, and only the operators and weights that it depends on."""
    graph = model.graph
    others = [output for output in graph.output if output.name != name]
    for output in others:
        graph.output.remove(output)
    needed, kept = {name}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input) | _outer_names(node)
    rest = [NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    del graph.node[:]
    graph.node.extend(rest)
    for weight in [w for w in graph.initializer if w.name not in needed]:
        graph.initializer.remove(weight)


def free_batch(model: ModelProto) -> None:
    """Make the first axis of the only input and output free, also where a Reshape has written it down.

    A Reshape of what the input flows through that begins with the fixed batch keeps its input's first axis instead.
    Whether that was right is for a run with several batches to show.
    """
    graph = model.graph
    fixed = graph.input[0].type.tensor_type.shape.dim[0].dim_value
    flowing = {graph.input[0].name}
    shapes = {weight.name: weight for weight in graph.initializer}
    constants = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].HasField("t")]
    shapes |= {node.output[0]: node.attribute[0].t for node in constants}
    for index, node in enumerate(list(graph.node)):
        if not flowing & set(node.input):
            continue
        flowing |= set(node.output)
        target = shapes.get(node.input[1]) if node.op_type == "Reshape" else None
        if target is None or node.input[0] not in flowing:
            continue
        lengths = onnx.numpy_helper.to_array(target).copy()
        if fixed and lengths.ndim == 1 and len(lengths) > 1 and lengths[0] == fixed:
            lengths[0] = 0
            name = f"{node.output[0]}.shape"
            graph.initializer.append(onnx.numpy_helper.from_array(lengths, name))
            graph.node[index].input[1] = name
            for attribute in [entry for entry in node.attribute if entry.name == "allowzero"]:
                graph.node[index].attribute.remove(attribute)  # a zero stands for the input's own length
    for value in (graph.input[0], graph.output[0]):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _weights_are_no_inputs(model: ModelProto) -> None:
    weights = {weight.name for weight in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in weights]:
        model.graph.input.remove(value)


def _outer_names(node: NodeProto) -> set[str]:
    """What the branches of an If or Loop take from around them."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return {name for graph in graphs for inner in graph.node for name in (*inner.input, *_outer_names(inner))}


def first_line(error: Exception) -> str:
    """What an error of protobuf, ONNX or ONNX Runtime says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
