"""A network of one matrix product, written byte by byte, for what ONNX Runtime's own products can do here.

NumPy's BLAS may lack kernels that ONNX Runtime has for a processor, and a floor that a network beats is none.
Field numbers are those of onnx.proto (ONNX 1.17), the encoding is that of Protocol Buffers.
"""

from __future__ import annotations

import time

import numpy as np
import onnxruntime as ort

_VARINT, _LENGTH = 0, 2
_FLOAT = 1
IR_VERSION, OPERATOR_SET = 8, 18


def product_rate(side: int, threads: int, rounds: int = 20) -> float:
    """Operations a second of a float32 product of square matrices in ONNX Runtime, the best of several rounds.

    Args:
        side: of the matrices.
        threads: of a run.
        rounds: how many.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(product_network(side), options, providers=["CPUExecutionProvider"])
    matrices = {name: np.full((side, side), 0.5, np.float32) for name in ("a", "b")}
    best = float("inf")
    for _ in range(1 + rounds):
        start = time.perf_counter()
        session.run(None, matrices)
        best = min(best, time.perf_counter() - start)
    return float(2 * side**3 / best)


def product_network(side: int) -> bytes:
    """An ONNX file: c = a b for (side, side) float32."""
    node = _text(1, "a") + _text(1, "b") + _text(2, "c") + _text(4, "MatMul")
    graph = _part(1, node) + _text(2, "product")
    graph += _part(11, _matrix("a", side)) + _part(11, _matrix("b", side)) + _part(12, _matrix("c", side))
    return _number(1, IR_VERSION) + _part(7, graph) + _part(8, _text(1, "") + _number(2, OPERATOR_SET))


def _matrix(name: str, side: int) -> bytes:
    dimension = _part(1, _number(1, side))
    tensor = _number(1, _FLOAT) + _part(2, dimension + dimension)
    return _text(1, name) + _part(2, _part(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _part(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _LENGTH) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _part(field, text.encode("ascii"))


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])
