"""The layers of a network: what each has to compute and to move, and what it took."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]

MATRIX_PRODUCTS = ("Gemm", "MatMul", "FusedMatMul", "FusedGemm")
CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv")
FREE = ("Reshape", "Flatten", "Cast", "Identity", "Squeeze", "Unsqueeze", "Shape", "Constant")
"""Operators that need no arithmetic."""

TOP = 10


@dataclass(frozen=True)
class Layer:
    """One node in one run of a network.

    Attributes:
        name: of the node.
        operator: of ONNX.
        inputs: shape of each input that is there, weights among them.
        outputs: shape of each output.
        weight_bytes: of the weights it reads, as they are stored.
        ms: what it took.
    """

    name: str
    operator: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    weight_bytes: int
    ms: float

    @property
    def macs(self) -> int:
        """Multiply-accumulates: exact for products and convolutions, 0 for all else."""
        if not self.outputs or len(self.inputs) < 2:
            return 0
        size = math.prod(self.outputs[0])
        if self.operator in CONVOLUTIONS:
            return size * math.prod(self.inputs[1][1:])  # input channels of its group times the kernel
        if self.operator in MATRIX_PRODUCTS:
            return size * self.inputs[0][-1]
        return 0

    @property
    def flops(self) -> int:
        """Operations: two for a multiply-accumulate, one for every other value that is made."""
        if self.macs:
            return 2 * self.macs
        return 0 if self.operator in FREE else sum(math.prod(shape) for shape in self.outputs)


@dataclass(frozen=True)
class NetworkCost:
    """What one run of a network has to do at the least.

    Attributes:
        macs: multiply-accumulates.
        flops: operations.
        weight_bytes: of all weights, as they are stored.
        edge_bytes: of its input and outputs in float32; what lies between may stay in a cache.
    """

    macs: int
    flops: int
    weight_bytes: int
    edge_bytes: int

    @property
    def bytes(self) -> int:
        """That have to be moved, each once."""
        return self.weight_bytes + self.edge_bytes


def cost_of(layers: Sequence[Layer], edge_values: int) -> NetworkCost:
    """Of one run.

    Args:
        layers: of the run, in a session that has fused nothing.
        edge_values: numbers in the network's input and outputs together.
    """
    return NetworkCost(
        sum(layer.macs for layer in layers),
        sum(layer.flops for layer in layers),
        sum(layer.weight_bytes for layer in layers),
        4 * edge_values,
    )


def slowest(runs: Sequence[Sequence[Layer]]) -> dict[str, Any]:
    """The ten layers that take longest, by their medians over several runs of one network.

    Args:
        runs: the layers of each run; at least one.
    """
    spent: dict[str, list[float]] = defaultdict(list)
    kinds = {layer.name: layer for run in runs for layer in run}
    for run in runs:
        for layer in run:
            spent[layer.name].append(layer.ms)
    medians = {name: float(np.median(values)) for name, values in spent.items()}
    total = sum(medians.values())
    first = sorted(medians, key=lambda name: -medians[name])[:TOP]
    return {
        "runs": len(runs),
        "layers": len(medians),
        "sum_ms": round(total, 4),
        "top": [
            {
                "name": name,
                "operator": kinds[name].operator,
                "ms": round(medians[name], 4),
                "share": round(medians[name] / total, 4) if total else 0.0,
                "macs": kinds[name].macs,
                "output": list(kinds[name].outputs[0]) if kinds[name].outputs else [],
            }
            for name in first
        ],
    }
