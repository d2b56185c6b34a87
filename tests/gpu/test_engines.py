"""Engines on a real GPU: built, loaded, held against ONNX Runtime, from host arrays and without leaving the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from immunogate.bundle import Bundle, open_bundle
from immunogate.default_models import default_bundle
from immunogate.engines.machine import this_machine
from immunogate.engines.record import Flags
from immunogate.errors import ImmunogateError
from immunogate.export.engine.build import build_network
from immunogate.export.engine.builder import EngineBuilder, load_tensorrt
from immunogate.export.engine.plan import BuildOptions, plan
from immunogate.kernels.device import Device
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.runtime.runners.tensorrt import open_engine


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(default_bundle())


@pytest.fixture(scope="module")
def engines(bundle: Bundle, missing: Callable[[str], NoReturn], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines of the bundle that ships, built here."""
    try:
        trt, state = load_tensorrt()
    except ImmunogateError as error:
        missing(str(error))
    folder = tmp_path_factory.mktemp("engines")
    machine = this_machine(state, 0, str(trt.__version__))
    for item in plan(bundle, BuildOptions()):
        build_network(EngineBuilder(trt), bundle, item, Flags(), machine, folder)
    return folder


def _input(bundle: Bundle, network: str, rows: int) -> Any:
    draw = np.random.default_rng(rows)
    shapes = {"detector": (1, 3, 384, 640), "recogniser": (rows, 3, 112, 96), "analyzer": (rows, 1002)}
    values = draw.uniform(0, 255, shapes[network]) if network == "detector" else draw.standard_normal(shapes[network])
    return values.astype(np.float32)


@pytest.mark.parametrize("network", ["detector", "analyzer", "recogniser"])
def test_an_engine_gives_what_onnx_gives(bundle: Bundle, engines: Path, device: Device, network: str) -> None:
    file = f"{network}.onnx"
    onnx, runner = OnnxRunner(bundle.read(file), file), open_engine(bundle, network, device, engines)
    try:
        for rows in (1, 3, 8, 11):
            given = _input(bundle, network, rows)
            expected = onnx.run(given)
            for _ in range(4):  # plainly, and as a graph
                found = runner.run(given)
                for name, values in expected.items():
                    np.testing.assert_allclose(found[name], values, atol=2e-3, rtol=2e-3, err_msg=f"{name} of {rows}")
    finally:
        runner.close()


def test_on_the_device_an_engine_is_captured_into_a_graph(bundle: Bundle, engines: Path, device: Device) -> None:
    runner = open_engine(bundle, "recogniser", device, engines)
    given = _input(bundle, "recogniser", 4)
    expected = OnnxRunner(bundle.read("recogniser.onnx"), "recogniser.onnx").run(given)["embedding"]
    stream = device.stream()
    graph = stream.capture(lambda: runner.enqueue(4, stream))
    try:
        runner.input_view(4).put(given, stream)
        graph.launch(stream)
        np.testing.assert_allclose(runner.output_view(4, "embedding").get(stream), expected, atol=2e-3)
    finally:
        graph.close()
        runner.close()
        stream.close()
