"""Torch networks and foreign detectors as ONNX graphs that any runner takes."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto
from torch import nn

from immunogate.errors import InputError, UsageError
from immunogate.files import read_bytes
from immunogate.graphs.rectifiers import with_prelu, without_prelu
from immunogate.manifest import DETECTOR_OUTPUTS

OPSET = 18
"""ONNX operator set of exported networks: the lowest that torch's exporter writes, and TensorRT 10.3 reads it."""

LARGEST_BATCH = 64
DETECTOR_LIMIT = 64 << 20
LEAST_ROUNDED = 4096
"""Values from which weights are worth rounding."""


def graph_of(network: nn.Module, input_shape: tuple[int, ...], input_name: str, output_name: str) -> ModelProto:
    """The network with a dynamic batch, weights inside, and nothing in it about the machine that made it.

    Args:
        network: in evaluation mode, one input, one output.
        input_shape: (C, H, W) of one face.
        input_name: of the graph's input.
        output_name: of its output.
    """
    return without_prelu(traced(network, input_shape, input_name, output_name))


def traced(network: nn.Module, input_shape: tuple[int, ...], input_name: str, output_name: str) -> ModelProto:
    """The same as torch's exporter gives it, before anything is written otherwise (`immunogate.graphs`)."""
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    return exported(network, torch.zeros(2, *input_shape), {0: batch}, input_name, [output_name])


def exported(
    network: nn.Module, example: torch.Tensor, dynamic: dict[int, Any], input_name: str, output_names: list[str]
) -> ModelProto:
    """The network as torch's exporter gives it for an example, without traces of this machine.

    Args:
        network: in evaluation mode, one input.
        example: of the input.
        dynamic: axes of the input whose length is free.
        input_name: of the graph's input.
        output_names: of its outputs, in order.
    """
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[input_name],
                output_names=output_names,
                dynamic_shapes=(dynamic,),
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model_proto
    strip(model)
    onnx.checker.check_model(model)
    return model


def in_half_precision(model: ModelProto) -> ModelProto:
    """Weights and arithmetic in float16, which is for GPUs: PReLU is one node; inputs and outputs stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half: ModelProto = convert_float_to_float16(with_prelu(model), keep_io_types=True)
    return half


def in_precision(model: ModelProto, precision: str) -> ModelProto:
    """The network in one of `immunogate.manifest.PRECISIONS`."""
    changes = {"fp16": in_half_precision, "fp16-weights": with_half_weights}
    return changes[precision](model) if precision in changes else model


def with_half_weights(model: ModelProto) -> ModelProto:
    """Weights rounded to float16, which halves the file; a runtime makes float32 of them again as it loads them.

    Short ones (biases, scalars, shapes) stay as they are.
    """
    graph = model.graph
    for weight in list(graph.initializer):
        if weight.data_type != onnx.TensorProto.FLOAT or np.prod(weight.dims) < LEAST_ROUNDED:
            continue
        rounded = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight).astype(np.float16))
        rounded.name = f"{weight.name}.float16"
        graph.initializer.remove(weight)
        graph.initializer.append(rounded)
        cast = onnx.helper.make_node("Cast", [rounded.name], [weight.name], f"{weight.name}.cast", to=weight.data_type)
        graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    return model


def portable_yunet(path: Path) -> ModelProto:
    """A YuNet file with its fixed input size made dynamic.

    YuNet is fully convolutional and its outputs are flattened by Reshape(1, -1, channels), so the same weights take
    any height and width that are multiples of 32; only the recorded shapes say otherwise.

    Raises:
        UsageError: the file is not there.
        InputError: it is no ONNX file, or not a YuNet with class, object, box and landmark outputs.
    """
    model = read_detector(path)
    if not is_yunet(model):
        names = [output.name for output in model.graph.output]
        raise InputError(
            f"{path} is not a YuNet detector: its outputs are {', '.join(names[:6])}...",
            f"Expected the outputs {', '.join(DETECTOR_OUTPUTS[:3])}, ... as in face_detection_yunet_2023mar.onnx",
        )
    free_sides(model)
    strip(model)
    return model


def read_detector(path: Path) -> ModelProto:
    """The graph of a detector's ONNX file.

    Raises:
        UsageError: the file is not there.
        InputError: it is no ONNX file.
    """
    if not path.is_file():
        raise UsageError(f"there is no detector {path}", "Give the path of face_detection_yunet_2023mar.onnx")
    try:
        model = onnx.load_model_from_string(read_bytes(path, DETECTOR_LIMIT))
        onnx.checker.check_model(model)
    except InputError:
        raise
    except Exception as error:  # protobuf and the checker raise many classes of their own
        raise InputError(f"{path} is no ONNX file: {str(error).splitlines()[0]}") from error
    return model


def is_yunet(model: ModelProto) -> bool:
    """Whether a graph has one input and the outputs of a YuNet."""
    names = [output.name for output in model.graph.output]
    return sorted(names) == sorted(DETECTOR_OUTPUTS) and len(model.graph.input) == 1


def free_sides(model: ModelProto) -> None:
    """Say of a detector with the outputs of a YuNet that it takes pictures of any height and width."""
    for value, symbols in [(model.graph.input[0], {2: "height", 3: "width"})] + [
        (output, {1: f"cells_{output.name.rsplit('_')[-1]}"}) for output in model.graph.output
    ]:
        for axis, symbol in symbols.items():
            value.type.tensor_type.shape.dim[axis].dim_param = symbol
    del model.graph.value_info[:]


def strip(model: ModelProto) -> None:
    """Take away traces of the exporting machine: stack traces and file paths in the graph's notes."""
    model.doc_string = ""
    del model.metadata_props[:]
    graph = model.graph
    graph.doc_string = ""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
        if hasattr(part, "doc_string"):
            part.doc_string = ""
