"""The builder with a real TensorRT behind it: TensorRT-RTX, which builds without a GPU.

It has the same interface under another name. Its wheel brings the library and the parser, another one the bindings.
What it builds runs on desktop cards only and is thrown away: what counts is that networks are parsed, strongly typed,
given profiles, built, and that a build can be stopped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.default_models import default_bundle

BINDINGS = "tensorrt-rtx-cu13-bindings==1.7.1.116"
LIBRARIES = "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0"
LOADED = ("libcudart.so", "libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so")

BUILD = """
import ctypes, json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
libraries, bindings, *words = sys.argv[1:]
for library in libraries.split(":"):
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
sys.path.insert(0, bindings)
import tensorrt_rtx_bindings as trt
from immunogate.bundle import open_bundle
from immunogate.engines.record import EngineError, Flags
from immunogate.export.engine.builder import EngineBuilder
from immunogate.export.engine.onnx_facts import onnx_facts
from immunogate.export.engine.plan import BuildOptions, NetworkPlan, face_profiles, plan

def planned(path):
    if path.is_dir():
        return plan(open_bundle(path), BuildOptions())
    model = path.read_bytes()
    facts = onnx_facts(model, path.name)
    ((name, shape),) = facts.inputs.items()
    profiles = face_profiles(shape, 8)
    return [NetworkPlan(path.stem, path.name, model, facts.precision, name, shape, profiles)]

report = []
builder = EngineBuilder(trt, needs_device=False)
for path in map(Path, words[1:]):
    for item in planned(path):
        seen = []
        stop = (lambda: len(seen) > 3) if words[0] == "stop" else (lambda: False)
        show = lambda share, phase: seen.append(share)
        try:
            built = builder.build(item, Flags(workspace_mib=512), None, show, stop)
            about = [len(built.plan), built.plan[:4].hex(), seen == sorted(seen), seen[-1]]
            report.append([item.network, item.precision, *about])
        except KeyboardInterrupt:
            report.append([item.network, "stopped"])
        except EngineError as error:
            report.append([item.network, str(error)])
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def build(fetched: Callable[[str], Path]) -> Any:
    bindings, libraries = fetched(BINDINGS), fetched(LIBRARIES)
    found = [next(libraries.rglob(f"{name}*")) for name in LOADED]

    def run(*words: object) -> Any:
        command = [sys.executable, "-c", BUILD, ":".join(map(str, found)), str(bindings), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_the_default_bundle_is_built(build: Any) -> None:
    report = build("go", default_bundle())
    assert [(row[0], row[1]) for row in report] == [
        ("detector", "fp32"), ("analyzer", "fp16-weights"), ("recogniser", "fp16-weights")
    ]  # fmt: skip
    for _, _, size, magic, rising, last in report:
        assert size > 1_000_000
        assert bytes.fromhex(magic) == b"vtrt"
        assert rising
        assert 0.5 < last <= 1.0  # it leaves out the last steps itself


def test_a_build_can_be_stopped(build: Any) -> None:
    assert build("stop", default_bundle()) == [[name, "stopped"] for name in ("detector", "analyzer", "recogniser")]


def test_the_parsers_words_come_through(build: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    model = onnx.load(default_bundle() / "recogniser.onnx")
    model.graph.node[3].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "recogniser.onnx")
    ((_, words),) = build("go", tmp_path / "recogniser.onnx")
    assert words.startswith("TensorRT does not accept recogniser.onnx: ")
    assert "NoSuchOperator" in words


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's analyzer and IR-50, of random weights, in every precision."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    import onnx

    from immunogate.export.onnx_graph import graph_of
    from immunogate.networks.irse import IrBackbone
    from immunogate.networks.purifier import Purifier

    folder = tmp_path_factory.mktemp("large")
    torch.manual_seed(0)
    networks = {"analyzer": (Purifier(1500), 1, "probabilities"), "ir50": (IrBackbone(squeeze=False), 3, "embedding")}
    for name, (network, channels, result) in networks.items():
        for module in network.modules():
            if isinstance(module, torch.nn.PReLU):  # as training leaves them: written out at export
                module.weight.data.uniform_(-0.5, 1.5)
        graph = graph_of(network, (channels, 112, 112), "face", result)
        assert "PRelu" not in {node.op_type for node in graph.graph.node}
        onnx.save(graph, folder / f"{name}.onnx")
    return folder


def test_the_papers_analyzer_and_ir50_are_built_in_float32_float16_and_int8(build: Any, large: Path) -> None:
    import onnx

    from immunogate.export.onnx_graph import in_precision

    paths = []
    for name in ("analyzer", "ir50"):
        for kind in ("fp16", "fp16-weights"):
            onnx.save(in_precision(onnx.load(large / f"{name}.onnx"), kind), large / f"{name}_{kind}.onnx")
        _quantise(large / f"{name}.onnx", large / f"{name}_int8.onnx")
        paths += [large / f"{name}{kind}.onnx" for kind in ("", "_fp16", "_fp16-weights", "_int8")]
    report = build("go", *paths)
    assert [row[1] for row in report] == ["fp32", "fp16", "fp16-weights", "int8"] * 2, report
    sizes = {row[0]: row[2] for row in report}
    assert sizes["ir50_fp16"] < 0.6 * sizes["ir50"]
    assert sizes["ir50_int8"] < 0.6 * sizes["ir50"]


def _quantise(source: Path, target: Path) -> None:
    """Explicit Q/DQ as TensorRT wants it: symmetric, weights per channel, biases left alone."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Faces(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            channels = 1 if "analyzer" in source.name else 3
            draw = np.random.default_rng(0)
            self._faces = iter([{"face": draw.uniform(-1, 1, (1, channels, 112, 112)).astype(np.float32)}])

        def get_next(self) -> Any:
            return next(self._faces, None)

    extra = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    quantize_static(
        str(source), str(target), Faces(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, extra_options=extra,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
    )  # fmt: skip
