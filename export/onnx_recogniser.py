"""Any ONNX recogniser with a description, brought to the bundle's contract: ``face`` in, unit ``embedding`` out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import ModelProto, NodeProto, TensorProto, checker, compose, helper, numpy_helper
from torch import Tensor, nn

from immunogate.errors import InputError
from immunogate.export.description import RecogniserDescription
from immunogate.export.onnx_graph import OPSET
from immunogate.export.onnx_reading import AGAIN, at_opset, first_line, free_batch, keep_output, read_onnx
from immunogate.graphs.rectifiers import without_prelu
from immunogate.structs import Floats

BATCHES = (1, 3)
"""Tried on random faces before a graph is believed."""

LARGEST_DIFFERENCE = 1e-4
"""Of an embedding's component, between the file as it came and the graph made of it."""

_INNER = "network/"


@dataclass(frozen=True, eq=False)
class OnnxRecogniser:
    """What was made of an ONNX file.

    Attributes:
        module: the file as it came, on ONNX Runtime, as a torch module without gradients: (B, 3, height, width) to
            (B, E), what verification holds the bundle against.
        graph: input ``face`` (batch, 3, height, width), output ``embedding`` (batch, E) of unit length.
        embedding: E.
    """

    module: OnnxModule
    graph: ModelProto
    embedding: int


def load_onnx_recogniser(path: Path, description: RecogniserDescription) -> OnnxRecogniser:
    """Read, convert, complete and try an ONNX recogniser.

    Raises:
        UsageError: the file is not there.
        InputError: it is no ONNX file, not what the description says, or can not be brought to the contract; says
            what the file has, what is needed, and which command mends it.
    """
    data, model = read_onnx(path)
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    _check_input(inputs, description, str(path))
    output = _output_name(model, description, str(path))
    module = OnnxModule(data, description, output, str(path))
    converted = at_opset(model, str(path))
    keep_output(converted, output)
    free_batch(converted)
    rank = len(converted.graph.output[0].type.tensor_type.shape.dim)
    graph = without_prelu(_completed(converted, description, flatten=rank != 2))
    embedding = _tried(graph, module, description, str(path))
    return OnnxRecogniser(module, graph, embedding)


class OnnxModule(nn.Module):
    """An ONNX recogniser as it came, fed as its description says.

    Args:
        data: content of the file.
        description: how to feed and read it.
        output: name of the embedding.
        origin: names the file in errors.

    Raises:
        InputError: ONNX Runtime does not accept the file.
    """

    def __init__(self, data: bytes, description: RecogniserDescription, output: str, origin: str) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's classes share no public base
            raise InputError(f"ONNX Runtime does not accept {origin}: {first_line(error)}", AGAIN) from error
        self._description, self._output, self._origin = description, output, origin

    def forward(self, faces: Tensor) -> Tensor:
        """(B, 3, height, width) float32, normalised by the manifest's mean and std, to (B, E), face by face.

        Raises:
            InputError: a gradient is asked for, or the network fails.
        """
        if faces.requires_grad:
            raise InputError(f"{self._origin} has no gradients", "Attacks and training need the torch checkpoint")
        entry = self._description
        planes = faces.detach().numpy()[:, : entry.channels]
        if not entry.is_plain:  # the manifest says 0 and 1: these are pixel values
            mean, std = (np.array(entry.per_channel(v), np.float32) for v in (entry.mean, entry.std))
            planes = (planes - mean[:, None, None]) / std[:, None, None]
        if entry.layout == "NHWC":
            planes = planes.transpose(0, 2, 3, 1)
        name = self._session.get_inputs()[0].name
        try:
            each = [
                self._session.run([self._output], {name: np.ascontiguousarray(one[None])})[0].reshape(-1)
                for one in planes
            ]
        except Exception as error:
            raise InputError(f"{self._origin} can not be run: {first_line(error)}", AGAIN) from error
        return torch.from_numpy(np.stack(each).astype(np.float32, copy=False))


def _check_input(inputs: list[Any], description: RecogniserDescription, origin: str) -> None:
    if len(inputs) != 1:
        raise InputError(f"{origin} has {len(inputs)} inputs ({', '.join(v.name for v in inputs)}); one is needed")
    kind = inputs[0].type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        name = TensorProto.DataType.Name(kind.elem_type).lower()
        raise InputError(f"{origin} takes {name}; float32 is needed (weights may be of another type)", AGAIN)
    has = [dim.dim_value or None for dim in kind.shape.dim]
    sides = [description.height, description.width]
    described = [description.channels, *sides] if description.layout == "NCHW" else [*sides, description.channels]
    if len(has) != 4 or any(own not in (None, asked) for own, asked in zip(has[1:], described, strict=True)):
        raise InputError(
            f"{origin} takes {_shape(has)}, its description says {_shape([None, *described])} ({description.layout})",
            "Correct height, width, colour or layout in the description",
        )
    if has[0] not in (None, 1):
        raise InputError(
            f"{origin} takes batches of {has[0]} only; a free batch or 1 is needed",
            f"{AGAIN}, with dynamic_shapes=({{0: torch.export.Dim('batch')}},)",
        )


def _output_name(model: ModelProto, description: RecogniserDescription, origin: str) -> str:
    names = [str(output.name) for output in model.graph.output]
    if description.output in names:
        return description.output
    if description.output or len(names) != 1:
        asked = f"none called {description.output!r}" if description.output else "more than one"
        raise InputError(
            f"{origin} has {asked} of these outputs: {', '.join(names[:8])}",
            'Name the embedding in a description file: output = "..."',
        )
    return names[0]


def _completed(model: ModelProto, description: RecogniserDescription, *, flatten: bool) -> ModelProto:
    """The graph with what is missing before and behind it: channels, normalisation, layout; shape, unit length."""
    inner = compose.add_prefix(model, _INNER)
    before, weights = _entrance(description, inner.graph.input[0].name)
    last = inner.graph.output[0].name
    behind: list[NodeProto] = []
    if flatten:
        behind.append(helper.make_node("Flatten", [last], ["flat"], axis=1))
        last = "flat"
    if description.normalised:
        behind.append(helper.make_node("Identity", [last], ["embedding"]))
    else:
        weights["least"], weights["last_axis"] = np.array(1e-12, np.float32), np.array([1])
        behind += [
            helper.make_node("ReduceL2", [last, "last_axis"], ["length"], keepdims=1),
            helper.make_node("Max", ["length", "least"], ["divisor"]),
            helper.make_node("Div", [last, "divisor"], ["embedding"]),
        ]
    shape: list[str | int | None] = ["batch", 3, description.height, description.width]
    graph = helper.make_graph(
        [*before, *inner.graph.node, *behind],
        description.name,
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", None])],
        [*inner.graph.initializer, *(numpy_helper.from_array(array, name) for name, array in weights.items())],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=inner.ir_version)
    made.producer_name = ""
    return made


def _entrance(description: RecogniserDescription, into: str) -> tuple[list[NodeProto], dict[str, Any]]:
    """From ``face`` to the network's own input."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    weights: dict[str, Any] = {}
    if description.colour == "GREY":
        weights |= {"first": np.array([0]), "second": np.array([1]), "channel_axis": np.array([1])}
        steps.append(("Slice", ["first", "second", "channel_axis"], {}))
    if not description.is_plain:
        for name, value in (("channel_means", description.mean), ("channel_stds", description.std)):
            weights[name] = np.array(description.per_channel(value), np.float32)[:, None, None]
        steps += [("Sub", ["channel_means"], {}), ("Div", ["channel_stds"], {})]
    if description.layout == "NHWC":
        steps.append(("Transpose", [], {"perm": [0, 2, 3, 1]}))
    nodes, place = [], "face"
    for index, (kind, operands, options) in enumerate(steps or [("Identity", [], {})]):
        after = into if index == max(len(steps), 1) - 1 else f"entrance{index}"
        nodes.append(helper.make_node(kind, [place, *operands], [after], **options))
        place = after
    return nodes, weights


def _tried(graph: ModelProto, module: OnnxModule, description: RecogniserDescription, origin: str) -> int:
    """Run the graph on random faces and hold it against the file as it came; the length of the embedding.

    Sets that length in the graph.
    """
    session = _opened(graph, origin)
    first = _run(session, _random_faces(1, description), origin)
    if first.ndim != 2 or (description.embedding and first.shape[1] != description.embedding):
        asked = description.embedding or "E"
        raise InputError(f"{origin} gives {_shape(list(first.shape))}, its description says 1 x {asked}")
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = first.shape[1]
    checker.check_model(graph)
    for batch in BATCHES:
        faces = _random_faces(batch, description)
        found, own = _run(session, faces, origin), module(torch.from_numpy(faces)).numpy()
        lengths = np.linalg.norm(own, axis=1, keepdims=True)
        if description.normalised and np.abs(lengths - 1).max() > 1e-3:
            raise InputError(
                f"{origin} gives embeddings of length {lengths.max():.3g}, its description says normalised = true",
                "Write normalised = false: the graph is then completed",
            )
        if found.shape != own.shape or not np.isfinite(found).all():
            raise InputError(f"{origin} gives {_shape(list(found.shape))} for a batch of {batch}", _free_batch_mend())
        difference = float(np.abs(found - own / lengths).max())
        if not difference <= LARGEST_DIFFERENCE:
            raise InputError(
                f"{origin} in operator set {OPSET} and with a free batch gives another embedding for a batch of "
                f"{batch} (by {difference:.2g})",
                _free_batch_mend(),
            )
    return int(first.shape[1])


def _free_batch_mend() -> str:
    return f"{AGAIN}, with dynamic_shapes=({{0: torch.export.Dim('batch')}},)"


def _opened(graph: ModelProto, origin: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's classes share no public base
        why = first_line(error)
        raise InputError(f"{origin} in operator set {OPSET} is not accepted by ONNX Runtime: {why}", AGAIN) from error


def _run(session: Any, faces: Floats, origin: str) -> Floats:
    try:
        return np.asarray(session.run(["embedding"], {"face": faces})[0], np.float32)
    except Exception as error:  # as above
        raise InputError(
            f"{origin} in operator set {OPSET} can not be run with a batch of {len(faces)}: {first_line(error)}",
            _free_batch_mend(),
        ) from error


def _random_faces(batch: int, description: RecogniserDescription) -> Floats:
    """(batch, 3, height, width) as the runtime would give them, of grey noise with structure."""
    draw = np.random.default_rng(batch)
    coarse = draw.uniform(0, 255, (batch, 1, -(-description.height // 8), -(-description.width // 8)))
    grey = np.kron(coarse, np.ones((8, 8)))[:, :, : description.height, : description.width]
    mean, std = (description.mean, description.std) if description.is_plain else (0.0, 1.0)
    planes = np.repeat((grey - mean) / std, 3, axis=1)
    return np.ascontiguousarray(planes, np.float32)


def _shape(lengths: list[Any]) -> str:
    return " x ".join("any" if length is None else str(length) for length in lengths)
