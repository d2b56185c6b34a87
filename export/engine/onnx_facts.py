"""Reads what an engine's builder has to know from an ONNX file, without the onnx package, which a Jetson lacks.

ONNX is a Protocol Buffers message; its fields are numbered in onnx.proto (ONNX 1.17). Of them, only names, shapes,
types of weights and kinds of operators are looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from immunogate.errors import BundleError

FLOAT, FLOAT16 = 1, 10
"""TensorProto.DataType."""

_MODEL_GRAPH = 7
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OPERATOR = 1, 4
_TENSOR_TYPE, _TENSOR_NAME = 2, 8
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_SHIFT = 63
"""Of the last of at most ten octets of a number."""

_QUANTIZED = {"QuantizeLinear", "DequantizeLinear"}

Shape = tuple[int | str, ...]


@dataclass
class OnnxFacts:
    """What is in a network.

    Attributes:
        inputs: name and shape of each, without weights; names stand for lengths that are open.
        outputs: likewise.
        operators: how often each kind of node occurs.
        precision: fp32, fp16-weights (stored in float16, computed in float32), fp16 or int8 (quantised explicitly).
    """

    inputs: dict[str, Shape] = field(default_factory=dict)
    outputs: dict[str, Shape] = field(default_factory=dict)
    operators: Counter[str] = field(default_factory=Counter)
    precision: str = "fp32"


def onnx_facts(model: bytes, name: str) -> OnnxFacts:
    """Look through a network.

    Args:
        model: content of the ONNX file.
        name: for errors.

    Raises:
        BundleError: it is no ONNX file, or has no graph.
    """
    try:
        facts = _of_graph(next(value for number, value in _fields(memoryview(model)) if number == _MODEL_GRAPH))
    except (IndexError, StopIteration, TypeError, UnicodeDecodeError, ValueError) as error:
        raise BundleError(f"{name} is no ONNX file", "Export the bundle again") from error
    if not facts.inputs or not facts.outputs:
        raise BundleError(f"{name} is no ONNX file: it has no input or no output", "Export the bundle again")
    return facts


def _of_graph(graph: memoryview | int) -> OnnxFacts:
    facts, half, used_by = OnnxFacts(), set(), dict[str, set[str]]()
    weights: set[str] = set()
    for number, value in _fields(_message(graph)):
        if number == _NODE:
            inputs, operator = _node(_message(value))
            facts.operators[operator] += 1
            for name in inputs:
                used_by.setdefault(name, set()).add(operator)
        elif number == _INITIALIZER:
            name, kind = _tensor(_message(value))
            weights.add(name)
            half |= {name} if kind == FLOAT16 else set()
        elif number in (_INPUT, _OUTPUT):
            name, shape = _value(_message(value))
            (facts.inputs if number == _INPUT else facts.outputs)[name] = shape
    for name in weights:
        facts.inputs.pop(name, None)  # older files list their weights among the inputs
    if _QUANTIZED & facts.operators.keys():
        facts.precision = "int8"
    elif half:
        widened = all(used_by.get(name, set()) <= {"Cast"} for name in half)
        facts.precision = "fp16-weights" if widened else "fp16"
    return facts


def _node(data: memoryview) -> tuple[list[str], str]:
    inputs, operator = [], ""
    for number, value in _fields(data):
        if number == _NODE_INPUT:
            inputs.append(_text(value))
        elif number == _NODE_OPERATOR:
            operator = _text(value)
    return inputs, operator


def _tensor(data: memoryview) -> tuple[str, int]:
    name, kind = "", 0
    for number, value in _fields(data):
        if number == _TENSOR_NAME:
            name = _text(value)
        elif number == _TENSOR_TYPE and isinstance(value, int):
            kind = value
    return name, kind


def _value(data: memoryview) -> tuple[str, Shape]:
    """ValueInfoProto: name 1, type 2; TypeProto: tensor_type 1; its shape 2; dim 1; dim_value 1, dim_param 2."""
    name, shape = "", list[int | str]()
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2:
            dimensions = _below(_below(_message(value), 1), 2)
            shape = [_dimension(_message(item), f"d{place}") for place, (_, item) in enumerate(_fields(dimensions))]
    return name, tuple(shape)


def _dimension(data: memoryview | int, unnamed: str) -> int | str:
    for number, value in _fields(_message(data)):
        if number == 1 and isinstance(value, int):
            return value
        if number == 2:
            return _text(value)
    return unnamed


def _below(data: memoryview, wanted: int) -> memoryview:
    """The content of one field; nothing where it is not there."""
    return next((_message(value) for number, value in _fields(data) if number == wanted), memoryview(b""))


def _message(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise TypeError("expected a message, got a number")
    return value


def _text(value: memoryview | int) -> str:
    return bytes(_message(value)).decode()


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of each field of a message, in its order; nothing is copied."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value: memoryview | int
            value, at = _varint(data, at)
        elif kind == _LENGTH:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            width = 8 if kind == _EIGHT_BYTES else 4
            value, at = data[at : at + width], at + width
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(data):
            raise ValueError("a field goes beyond its message")
        yield key >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        octet = data[at]
        if shift > _LONGEST_SHIFT:
            raise ValueError("a number has more than 64 bits")
        value |= (octet & 127) << shift
        at, shift = at + 1, shift + 7
        if octet < 128:
            return value, at
