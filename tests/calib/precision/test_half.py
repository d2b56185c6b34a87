"""Float16: what would overflow is found and stays in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")

import onnx

from immunogate.calib.precision import half
from immunogate.calib.precision.conversion import ConversionSettings, Judges, convert
from immunogate.calib.precision.networks import finished, float_network, session
from immunogate.calib.precision.search import cosines


def _judges(judge: Any, reference: Any) -> Judges:
    return Judges(judge, judge, reference, reference)


def test_a_planted_overflow_is_found_and_kept(make_network: Any, pictures: Any, alone: Any) -> None:
    data = make_network(gain=3e5).SerializeToString()
    judge = alone(pictures)
    reference = judge(data)
    model = float_network(data, "small")
    with np.errstate(invalid="ignore"):
        blind = judge(half.rounded(model, {node.name for node in model.graph.node}))
    assert not np.isfinite(blind).all(), "the fault is not there to be found"
    done = convert(data, "small", pictures, _judges(judge, reference), ConversionSettings("fp16", 0.9999))
    kept = {entry["node"]: entry for entry in done.kept}
    assert {"conv1", "prelu1", "conv2"} <= set(kept)
    assert kept["conv1"]["reason"] == "overflow"
    assert kept["conv1"]["number"] > 65504 / half.HEADROOM
    assert "conv3" not in kept
    made = {node.name: node for node in onnx.load_model_from_string(done.data).graph.node}
    assert made["prelu1"].input[0] == made["conv1"].output[0], "a cast to float16 stands between what was kept"
    assert made["conv2"].input[0] == made["prelu1"].output[0]
    assert cosines(judge(done.data), reference).min() > 0.9999
    assert cosines(judge(done.judged), reference).min() > 0.9999


def test_a_weight_beyond_the_end_is_found_though_no_tensor_is(make_network: Any, pictures: Any) -> None:
    model = float_network(make_network(gain=1e-6).SerializeToString(), "small")
    kept = {entry.node: entry for entry in half.kept_by_range(model, half.observed(model, pictures))}
    assert kept["conv2"].reason == "overflow"
    assert kept["conv1"].reason == "underflow"


def test_what_float16_holds_is_converted(make_network: Any, pictures: Any, alone: Any) -> None:
    from onnx import TensorProto

    data = make_network().SerializeToString()
    judge = alone(pictures)
    done = convert(data, "small", pictures, _judges(judge, judge(data)), ConversionSettings("fp16", 0.9999))
    assert [entry["node"] for entry in done.kept] == ["unit"]
    assert done.kept[0]["reason"] == "reduction"
    opened = session(done.data)
    assert {opened.get_inputs()[0].type, opened.get_outputs()[0].type} == {"tensor(float)"}
    stored = {weight.name: weight.data_type for weight in onnx.load_model_from_string(done.data).graph.initializer}
    assert stored["first"] == stored["dense"] == TensorProto.FLOAT16
    assert {entry.node for entry in done.costs} == {"conv1", "prelu1", "conv2", "prelu2", "conv3", "dense1"}


def test_weights_stored_in_float16_are_folded_first(make_network: Any, pictures: Any, alone: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper

    model = make_network()
    weight = next(w for w in model.graph.initializer if w.name == "dense")
    stored = numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), "dense.float16")
    model.graph.initializer.remove(weight)
    model.graph.initializer.append(stored)
    model.graph.node.insert(0, helper.make_node("Cast", ["dense.float16"], ["dense"], to=TensorProto.FLOAT))
    data = model.SerializeToString()
    plain = float_network(data, "small")
    assert "Cast" not in {node.op_type for node in plain.graph.node}
    assert {w.data_type for w in plain.graph.initializer} == {TensorProto.FLOAT}
    judge = alone(pictures)
    np.testing.assert_array_equal(judge(finished(plain)), judge(data))
    assert onnx.load_model_from_string(finished(plain)).graph.node[0].op_type == "Conv"


def test_a_converted_network_is_refused(make_network: Any) -> None:
    from immunogate.errors import UsageError

    model = float_network(make_network().SerializeToString(), "small")
    with pytest.raises(UsageError, match="converted before"):
        float_network(finished(half.in_half(model, [])), "small")
