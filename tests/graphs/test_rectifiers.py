"""PReLU written out: the same values for every kind of slope, in operators that are quick, and back again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")

import onnxruntime as ort
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, checker, helper, numpy_helper

from immunogate.graphs.rectifiers import is_rectifier, with_prelu, without_prelu
from immunogate.graphs.weights import array_of, weights_of

EPSILON = 2.0**-23


def network(slopes: Any, shape: list[int], *, name: str = "bend", ranks: bool = True) -> Any:
    """``x`` (batch, *shape) through one PRelu to ``y``; ``ranks``: say what is known of the shape."""
    known = ["batch", *shape]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["inner"], "first"),
         helper.make_node("PRelu", ["inner", "slopes"], ["bent"], name),
         helper.make_node("Identity", ["bent"], ["y"], "last")],
        "one",
        [value("x", TensorProto.FLOAT, known if ranks else None)],
        [value("y", TensorProto.FLOAT, known if ranks else None)],
        [numpy_helper.from_array(np.asarray(slopes, np.float32), "slopes")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    if ranks:
        checker.check_model(model, full_check=True)
    return model


def run(model: Any, values: Any) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": values})[0]


def kinds(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node if node.op_type != "Identity"]


def expected(values: Any, slopes: Any) -> Any:
    wide, factor = values.astype(np.float64), np.asarray(slopes, np.float32).astype(np.float64)
    return np.where(wide > 0, wide, wide * factor)


SLOPES = st.sampled_from([0.0, 1.0, -1.0, 0.25, 2.0, -1.3579063, 1e-8]) | st.floats(-4, 4, width=32)


@st.composite
def cases(draw: Any) -> tuple[list[int], list[int], list[float], int]:
    """Shape without the batch, of the slopes, the slopes, batch."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    layouts = {
        "one": [1],
        "scalar": [],
        "channels": [shape[0]] + [1] * (len(shape) - 1),
        "channels, with the batch": [1, shape[0]] + [1] * (len(shape) - 1),
        "last axis": [shape[-1]],
        "every value": shape,
    }
    own = layouts[draw(st.sampled_from(sorted(layouts)))]
    count = int(np.prod(own, dtype=int))
    return shape, own, draw(st.lists(SLOPES, min_size=count, max_size=count)), draw(st.integers(1, 3))


@pytest.mark.parametrize("blocked", [True, False])
@given(case=cases(), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_any_slopes_of_any_shape_give_what_prelu_gives(blocked: bool, case: Any, seed: int) -> None:
    shape, own, listed, batch = case
    slopes = np.array(listed, np.float32).reshape(own)
    draw = np.random.default_rng(seed)
    values = (draw.standard_normal((batch, *shape)) * 10.0 ** draw.uniform(-3, 3)).astype(np.float32)
    values.flat[0] = 0
    plain = without_prelu(network(slopes, shape), blocked=blocked)
    checker.check_model(plain, full_check=True)
    assert "PRelu" not in kinds(plain)
    found, exact = run(plain, values), expected(values, slopes)
    allowed = 2 * EPSILON * (1 + np.abs(slopes)) * np.abs(values) + 1e-37
    assert (np.abs(found - exact) <= allowed).all()
    assert np.array_equal(found[values > 0], values[values > 0]), "above 0 nothing is rounded"
    folded = with_prelu(plain)
    assert kinds(folded) == ["PRelu"]
    assert not weights_of(folded).keys() - {
        weight.name for weight in folded.graph.initializer if "slopes" in weight.name
    }
    assert (np.abs(run(folded, values) - exact) <= allowed).all()


@pytest.mark.parametrize("channels", [3, 16, 64])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_between_convolutions_with_any_batch(channels: int, batch: int) -> None:
    """Where ONNX Runtime makes its own operators of it: the blocked layout, and channels that do not fill a block."""
    model, slopes = between_convolutions(channels)
    plain = without_prelu(model)
    values = np.random.default_rng(1).standard_normal((batch, 3, 9, 7)).astype(np.float32)
    before, after = run(model, values), run(plain, values)
    assert kinds(plain).count("BatchNormalization") == 2
    assert before.shape == (batch, channels, 9, 7)
    np.testing.assert_allclose(after, before, atol=4 * EPSILON * np.abs(before).max() * (1 + np.abs(slopes).max()))
    assert np.abs(before - run(between_convolutions(channels, factor=-1)[0], values)).max() > 0.1, "slopes matter"


def between_convolutions(channels: int, factor: float = 1) -> Any:
    draw = np.random.default_rng(channels)
    slopes = (factor * draw.uniform(-1.5, 2, (1, channels, 1, 1))).astype(np.float32)
    weights = {"first": draw.standard_normal((channels, 3, 3, 3)) / 5, "slopes": slopes,
               "second": draw.standard_normal((channels, channels, 3, 3)) / np.sqrt(9 * channels)}  # fmt: skip
    value, pads = helper.make_tensor_value_info, [1, 1, 1, 1]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "first"], ["a"], "conv1", pads=pads),
         helper.make_node("PRelu", ["a", "slopes"], ["b"], "bend"),
         helper.make_node("Conv", ["b", "second"], ["y"], "conv2", pads=pads)],
        "between",
        [value("x", TensorProto.FLOAT, ["batch", 3, 9, 7])],
        [value("y", TensorProto.FLOAT, ["batch", channels, 9, 7])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), slopes


def test_the_form_follows_from_slopes_and_rank() -> None:
    uneven = np.array([0.1, 0.2, 0.3], np.float32)
    maps = [3, 4, 4]
    assert kinds(without_prelu(network(uneven.reshape(3, 1, 1), maps))) == [
        "BatchNormalization", "Relu", "BatchNormalization", "Add"]  # fmt: skip
    product = ["Neg", "Relu", "Mul", "Add"]
    assert kinds(without_prelu(network(uneven.reshape(3, 1, 1), maps), blocked=False)) == product
    assert kinds(without_prelu(network(uneven.reshape(3, 1, 1), maps, ranks=False))) == product
    assert kinds(without_prelu(network(uneven.reshape(3, 1, 1), [2, 3, 4, 4]))) == product, "channels are axis 1"
    assert kinds(without_prelu(network(uneven, [3]))) == product
    assert kinds(without_prelu(network(np.full((3, 1, 1), 0.25), maps))) == ["LeakyRelu"]


def test_one_slope_is_the_same_to_the_bit() -> None:
    model = network(np.full((4, 1, 1), 0.1), [4, 3, 3])
    values = np.random.default_rng(2).standard_normal((2, 4, 3, 3)).astype(np.float32)
    assert np.array_equal(run(without_prelu(model), values), run(model, values))


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1)])
def test_the_way_back_keeps_slopes_and_everything_else(shape: tuple[int, ...]) -> None:
    slopes = np.array([-0.5, 0.25, 1.75], np.float32).reshape(shape)
    model = network(slopes, [3, 2, 2])
    before = model.SerializeToString()
    plain = without_prelu(model)
    folded = with_prelu(plain)
    assert model.SerializeToString() == before, "what is given is left alone"
    assert [node.name for node in folded.graph.node if node.op_type == "Identity"] == ["first", "last"]
    (weight,) = weights_of(folded).values()
    np.testing.assert_array_equal(array_of(weight).ravel(), slopes.ravel())
    assert with_prelu(model).SerializeToString() == before
    assert without_prelu(plain).SerializeToString() == plain.SerializeToString()


def test_what_only_looks_like_it_stays() -> None:
    """Names are not believed: a part is missing, or reads something else."""
    uneven = np.array([0.1, 0.2, 0.3], np.float32).reshape(3, 1, 1)
    for change in ("missing", "other source", "other name"):
        plain = without_prelu(network(uneven, [3, 2, 2]))
        parts = {node.name.rpartition(".")[2]: node for node in plain.graph.node if is_rectifier(node)}
        if change == "missing":
            parts["above"].name = "something"
        elif change == "other source":
            parts["flip"].input[0] = "x"
        else:
            parts["sum"].name = "prelu.other.sum"
        assert with_prelu(plain).SerializeToString() == plain.SerializeToString(), change


def test_slopes_that_are_computed_or_of_another_type_stay() -> None:
    model = network(np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1), [3, 2, 2])
    half = numpy_helper.from_array(np.array([0.1, 0.2, 0.3], np.float16).reshape(3, 1, 1), "slopes")
    model.graph.initializer[0].CopyFrom(half)
    assert kinds(without_prelu(model)) == ["PRelu"]
    del model.graph.initializer[:]
    assert kinds(without_prelu(model)) == ["PRelu"]


def test_unnamed_nodes_and_names_that_stand_twice() -> None:
    uneven = np.array([0.1, 0.2, 0.3], np.float32).reshape(3, 1, 1)
    model = network(uneven, [3, 2, 2], name="")
    model.graph.node[2].CopyFrom(helper.make_node("PRelu", ["bent", "slopes"], ["y"]))
    plain = without_prelu(model)
    checker.check_model(plain, full_check=True)
    values = np.random.default_rng(4).standard_normal((2, 3, 2, 2)).astype(np.float32)
    np.testing.assert_allclose(run(plain, values), run(model, values), atol=1e-6)
    assert kinds(with_prelu(plain)) == ["PRelu", "PRelu"]
