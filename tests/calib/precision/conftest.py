"""Small networks whose weaknesses are planted, and judges that run them alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

MakeNetwork = Callable[..., Any]


@pytest.fixture
def pictures() -> Any:
    """(40, 3, 12, 12) float32."""
    return np.random.default_rng(3).standard_normal((40, 3, 12, 12)).astype(np.float32)


@pytest.fixture
def make_network() -> MakeNetwork:
    """``make(gain=1.0, spread=1.0)``: conv, PReLU, depthwise conv, PReLU, conv, dense, unit length.

    The first convolution's results are ``gain`` times as large as they would be and the next layers take that back;
    the channels between differ in size by the factor ``spread``.
    """
    return _network


@pytest.fixture
def alone() -> Callable[[Any], Callable[[bytes], Any]]:
    """A judge that runs a network by itself on these inputs."""
    from immunogate.calib.precision.networks import session

    def of(inputs: Any) -> Callable[[bytes], Any]:
        return lambda data: session(data).run(None, {"face": inputs})[0]

    return of


@pytest.fixture(autouse=True)
def quiet_onnxruntime() -> Iterator[None]:
    """Its warnings of unused weights are no part of a test's output."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    yield
    onnxruntime.set_default_logger_severity(2)


def _network(gain: float = 1.0, spread: float = 1.0, seed: int = 1) -> Any:
    from onnx import TensorProto, checker, helper, numpy_helper

    draw = np.random.default_rng(seed)
    sizes = np.geomspace(1, spread, 8).reshape(8, 1, 1, 1)
    weights = {
        "first": gain * sizes * draw.standard_normal((8, 3, 3, 3)) / 5,
        "first.bias": gain * sizes.ravel() * draw.standard_normal(8) / 10,
        "slopes": draw.uniform(-0.5, 1.5, (8, 1, 1)),
        "each": draw.standard_normal((8, 1, 3, 3)) / 3 / gain / sizes,
        "more": draw.uniform(0, 0.5, (8, 1, 1)),
        "third": draw.standard_normal((6, 8, 1, 1)) / 3,
        "dense": draw.standard_normal((6 * 64, 5)) / 20,
    }
    nodes = [
        helper.make_node("Conv", ["face", "first", "first.bias"], ["a"], "conv1"),
        helper.make_node("PRelu", ["a", "slopes"], ["b"], "prelu1"),
        helper.make_node("Conv", ["b", "each"], ["c"], "conv2", group=8),
        helper.make_node("PRelu", ["c", "more"], ["d"], "prelu2"),
        helper.make_node("Conv", ["d", "third"], ["e"], "conv3"),
        helper.make_node("Flatten", ["e"], ["f"], "flat", axis=1),
        helper.make_node("MatMul", ["f", "dense"], ["g"], "dense1"),
        helper.make_node("LpNormalization", ["g"], ["embedding"], "unit", axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["batch", 3, 12, 12])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    checker.check_model(model)
    return model
