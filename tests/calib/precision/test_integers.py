"""Int8: zero points, channels, equal channels, PReLU written out, layers kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")

import onnx
from onnx import TensorProto

from immunogate.calib.precision import integers
from immunogate.calib.precision.conversion import ConversionSettings, Judges, convert
from immunogate.calib.precision.equalise import equalised
from immunogate.calib.precision.integers import IntegerSettings
from immunogate.calib.precision.networks import finished, float_network
from immunogate.calib.precision.search import cosine_cost, cosines
from immunogate.errors import UsageError
from immunogate.graphs.rectifiers import without_prelu
from immunogate.graphs.weights import array_of, weights_of


def _quantised(model: Any, pictures: Any, settings: IntegerSettings, kept: list[str]) -> Any:
    found = integers.ranges(model, pictures, settings)
    return onnx.load_model_from_string(integers.in_integers(model, found, kept, settings))


@pytest.mark.parametrize("method", integers.METHODS)
def test_for_gpus_all_zero_points_are_zero_and_weights_have_a_scale_a_channel(
    make_network: Any, pictures: Any, method: str
) -> None:
    model = float_network(make_network().SerializeToString(), "small")
    made = _quantised(model, pictures, IntegerSettings(method, 99.9), [])
    weights = weights_of(made)
    pairs = [node for node in made.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) >= 4 * 3
    for node in pairs:
        point = weights[node.input[2]]
        assert point.data_type == TensorProto.INT8
        assert not array_of(point).any()
    channels = {array_of(weights[node.input[1]]).size for node in pairs if node.input[0] in weights}
    assert channels == {8, 6, 5}
    stored = {weight.data_type for weight in made.graph.initializer if weight.name.startswith("first.bias")}
    assert stored == {TensorProto.FLOAT}, "TensorRT wants biases in float"


def test_for_cpus_activations_are_unsigned(make_network: Any, pictures: Any) -> None:
    model = float_network(make_network().SerializeToString(), "small")
    made = _quantised(without_prelu(model), pictures, IntegerSettings("minmax", device="cpu"), [])
    weights = weights_of(made)
    points = [weights[node.input[2]] for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert {point.data_type for point in points} == {TensorProto.UINT8}
    assert any(array_of(point).any() for point in points)
    assert "PRelu" not in {node.op_type for node in made.graph.node}


def test_kept_layers_have_no_q_dq(make_network: Any, pictures: Any) -> None:
    model = float_network(make_network().SerializeToString(), "small")
    made = _quantised(model, pictures, IntegerSettings("minmax"), ["conv2", "conv3", "dense1"])
    assert {node.op_type for node in made.graph.node if node.name == "conv2"} == {"Conv"}
    read = {name: node.op_type for node in made.graph.node for name in node.output}
    taken = {node.name: [read.get(name) for name in node.input[:2]] for node in made.graph.node}
    assert taken["conv1"] == ["DequantizeLinear", "DequantizeLinear"]
    assert taken["conv3"][1] is None
    none = _quantised(model, pictures, IntegerSettings("minmax"), ["conv1", "conv2", "conv3", "dense1"])
    assert "QuantizeLinear" not in {node.op_type for node in none.graph.node}


@pytest.mark.parametrize("spread", [1.0, 300.0])
def test_equalised_networks_say_the_same_and_survive_int8_better(
    make_network: Any, pictures: Any, alone: Any, spread: float
) -> None:
    model = float_network(make_network(spread=spread).SerializeToString(), "small")
    even = equalised(model, pictures)
    judge = alone(pictures)
    reference = judge(finished(model))
    np.testing.assert_allclose(judge(finished(even)), reference, atol=2e-6)
    losses = []
    for network in (model, even):
        found = integers.ranges(network, pictures, IntegerSettings("minmax"))
        losses.append(
            cosine_cost(judge(integers.in_integers(network, found, [], IntegerSettings("minmax"))), reference)
        )
    if spread > 1:
        assert losses[1] < 0.2 * losses[0]


def test_prelu_written_out_says_the_same(make_network: Any, pictures: Any, alone: Any) -> None:
    model = float_network(make_network().SerializeToString(), "small")
    judge = alone(pictures)
    np.testing.assert_allclose(judge(finished(without_prelu(model))), judge(finished(model)), atol=1e-6)


def test_the_worst_layers_stay_in_float_until_the_limit_is_met(make_network: Any, pictures: Any, alone: Any) -> None:
    data = make_network().SerializeToString()
    judge = alone(pictures)
    judges = Judges(judge, judge, judge(data), judge(data))
    loose, tight, exact = (
        convert(data, "small", pictures, judges, ConversionSettings("int8", limit)) for limit in (0.9, 0.9998, 1.0)
    )
    assert loose.kept == []
    assert 0 < len(tight.kept) < 4
    assert tight.kept[0]["node"] == tight.costs[0].node
    assert cosines(judge(tight.data), judge(data)).mean() >= 0.9998
    assert len(exact.kept) == 4
    assert tight.report()["layers"] == 4


@pytest.mark.parametrize("wrong", [{"method": "mean"}, {"percentile": 10.0}, {"percentile": 101.0}, {"device": "tpu"}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        IntegerSettings(**wrong)


def test_targets_and_limits_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="fp8"):
        ConversionSettings("fp8", 0.9)
    with pytest.raises(UsageError, match="--limit"):
        ConversionSettings("fp16", 1.5)
