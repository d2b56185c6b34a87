"""Int8 with explicit Q/DQ nodes, whose scales come from faces.

For GPUs (TensorRT): a scale for each output channel of the weights, int8 on both sides, all zero points 0, biases in
float, and Q/DQ on inputs only, so that a sum or a PReLU behind a convolution is not rounded twice. For CPUs (ONNX
Runtime): activations in uint8 with a zero point, which is what its kernels are fast at, biases in int32, and Q/DQ on
results too, without which no integer kernel is chosen.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    create_calibrator,
)

from immunogate.calib.precision.networks import BATCH, finished
from immunogate.errors import UsageError
from immunogate.graphs.rectifiers import is_rectifier
from immunogate.graphs.weights import weights_of
from immunogate.structs import Floats

METHODS = ("entropy", "percentile", "minmax")
DEVICES = ("gpu", "cpu")
WEIGHTED = ("Conv", "Gemm", "MatMul")
AROUND = ("Relu", "Add")
"""Between two integer layers on a CPU, these are done on integers too."""


@dataclass(frozen=True)
class IntegerSettings:
    """How scales are found.

    Attributes:
        method: entropy (least Kullback-Leibler divergence from the float histogram), percentile or minmax.
        percentile: share of the values within the range, in percent, for method percentile.
        device: gpu or cpu, see the module.

    Raises:
        UsageError: a value is unknown or out of range.
    """

    method: str = "percentile"
    percentile: float = 99.999
    device: str = "gpu"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"unknown method {self.method!r}", f"Use one of: {', '.join(METHODS)}")
        if not 50 < self.percentile <= 100:
            raise UsageError(f"percentile: expected a number above 50, at most 100, got {self.percentile:g}")
        if self.device not in DEVICES:
            raise UsageError(f"unknown device {self.device!r}", f"Use one of: {', '.join(DEVICES)}")

    @property
    def symmetric(self) -> bool:
        """Whether zero points are 0."""
        return self.device == "gpu"


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime's class has no types
    """Gives a calibrator one batch."""

    def __init__(self, name: str, batch: Floats) -> None:
        self._left: list[dict[str, Floats]] = [{name: batch}]

    def get_next(self) -> dict[str, Floats] | None:
        return self._left.pop() if self._left else None


def ranges(model: ModelProto, inputs: Floats, settings: IntegerSettings) -> Any:
    """The range of every tensor that may be quantised, as ONNX Runtime's calibrators give it.

    Args:
        model: float32, from `networks.float_network`.
        inputs: (N, ...) float32 as they reach the network.
        settings: method and percentile.
    """
    method = {
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
        "minmax": CalibrationMethod.MinMax,
    }[settings.method]
    options: dict[str, Any] = {"symmetric": settings.symmetric}
    if settings.method == "percentile":
        options["percentile"] = settings.percentile
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "float.onnx"
        onnx.save(model, path)
        calibrator = create_calibrator(
            str(path),
            [*WEIGHTED, *AROUND],
            augmented_model_path=str(Path(folder) / "watched.onnx"),
            calibrate_method=method,
            extra_options=options,
        )
        name = model.graph.input[0].name
        for start in range(0, len(inputs), BATCH):  # batch by batch: it holds all tensors of what it is given
            calibrator.collect_data(_Reader(name, inputs[start : start + BATCH]))
        return calibrator.compute_data()


def layers(model: ModelProto) -> list[NodeProto]:
    """Nodes with stored weights that int8 is for."""
    weights = weights_of(model)
    return [node for node in model.graph.node if node.op_type in WEIGHTED and node.input[1] in weights]


def in_integers(model: ModelProto, found: Any, kept: list[str], settings: IntegerSettings) -> bytes:
    """The network with Q/DQ nodes; inputs and outputs stay float32.

    Args:
        model: float32, from `networks.float_network`.
        found: from `ranges`.
        kept: names of nodes that stay in float.
        settings: the device.
    """
    chosen = [node.name for node in layers(model) if node.name not in set(kept)]
    if settings.device == "cpu":
        chosen += _between(model, set(chosen))
    if not chosen:
        return finished(model)
    copy = ModelProto()
    copy.CopyFrom(model)
    options = {
        "ActivationSymmetric": settings.symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": not settings.symmetric,
        "OpTypesToExcludeOutputQuantization": list(WEIGHTED) if settings.symmetric else [],
    }
    activations = QuantType.QInt8 if settings.symmetric else QuantType.QUInt8
    with _quiet():
        quantiser = QDQQuantizer(
            copy, True, False, QuantType.QInt8, activations, found, chosen, [], [*WEIGHTED, *AROUND], options
        )
        quantiser.quantize_model()
    return finished(quantiser.model.model)


def _between(model: ModelProto, chosen: set[str]) -> list[str]:
    """Nodes of `AROUND` that read nothing but what integer layers and such nodes made."""
    made: set[str] = set()
    found = []
    for node in model.graph.node:
        between = node.op_type in AROUND and not is_rectifier(node) and made.issuperset(node.input)
        if between:
            found.append(node.name)
        if between or node.name in chosen:
            made.update(node.output)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what ONNX Runtime's tools print off stdout, which is for results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
