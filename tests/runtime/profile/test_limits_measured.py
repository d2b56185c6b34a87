"""Layers and rates on this machine; times are compared as ratios only."""

from __future__ import annotations

import numpy as np
import pytest

from immunogate.bundle import open_bundle
from immunogate.default_models import shipped_bundle
from immunogate.errors import BundleError
from immunogate.profiling.layers import cost_of
from immunogate.runtime.profile.layer_times import layer_runs
from immunogate.runtime.profile.product_network import product_network, product_rate
from immunogate.runtime.profile.rates import machine_rates


def test_a_product_is_counted_exactly_and_is_a_network() -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    model = onnx.load_model_from_string(product_network(300))
    onnx.checker.check_model(model)
    assert product_rate(64, 1, rounds=2) > 0


@pytest.mark.parametrize(("file", "shape"), [("recogniser.onnx", (3, 3, 112, 96)), ("detector.onnx", (1, 3, 96, 128))])
def test_counted_work_agrees_with_the_graphs_own_shapes(file: str, shape: tuple[int, ...]) -> None:
    """Against the onnx package: weights and shapes inferred by it, summed over the nodes."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    model = open_bundle(shipped_bundle()).read(file)
    runs, edge = layer_runs(model, file, shape, runs=1, fused=False, threads=1)
    counted = cost_of(runs[0], edge)
    graph = onnx.load_model_from_string(model)
    for value, size in zip(graph.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        value.dim_value = size
    for output in graph.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    shapes = {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.output)
    }
    weights = {one.name: tuple(one.dims) for one in inferred.initializer}
    casts = {node.output[0]: node.input[0] for node in inferred.node if node.op_type == "Cast"}
    macs = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            filters = weights[casts.get(node.input[1], node.input[1])]
            macs += int(np.prod(shapes[node.output[0]])) * int(np.prod(filters[1:]))
    assert macs > 0
    assert counted.macs == macs
    stored = {1: 4, 7: 8, 10: 2}
    known = sum(int(np.prod(one.dims)) * stored[one.data_type] for one in inferred.initializer)
    assert 0.95 * known <= counted.weight_bytes <= 1.05 * known


def test_layers_of_several_runs_are_the_same_and_take_time() -> None:
    model = open_bundle(shipped_bundle()).read("recogniser.onnx")
    runs, _ = layer_runs(model, "recogniser.onnx", (1, 3, 112, 96), runs=3, threads=1)
    assert len(runs) == 3
    assert len({tuple(layer.name for layer in run) for run in runs}) == 1
    assert all(sum(layer.ms for layer in run) > 0 for run in runs)


def test_what_is_no_network_is_named() -> None:
    with pytest.raises(BundleError, match=r"does not profile broken\.onnx"):
        layer_runs(b"no network", "broken.onnx", (1,), runs=1)


def test_rates_are_possible_ones() -> None:
    rates = machine_rates(1, array=1 << 20, side=256)
    assert 1e8 < rates.triad < 1e13
    assert 1e8 < rates.read < 1e13
    assert 1e8 < rates.sgemm < 1e14
    assert rates.product == pytest.approx(rates.sgemm, rel=20)
    assert rates.threads == 1
