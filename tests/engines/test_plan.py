"""What would be built, read from the ONNX without the onnx package, and the equal command of trtexec."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunogate.bundle import Bundle, open_bundle
from immunogate.default_models import default_bundle
from immunogate.engines.record import Flags, Profile
from immunogate.errors import BundleError, UsageError
from immunogate.export.engine.onnx_facts import onnx_facts
from immunogate.export.engine.plan import CLOSE_LOOK, DETECTOR_SIDE, BuildOptions, buckets, detector_profiles, plan
from immunogate.export.engine.trtexec import trtexec_command
from immunogate.files import sha256_of_bytes
from immunogate.manifest import FileEntry
from immunogate.runtime import chain, upright


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return open_bundle(default_bundle())


def _facts_by_onnx(model: bytes) -> Any:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    graph = onnx.load_from_string(model).graph

    def shape(value: Any) -> Any:
        dimensions = value.type.tensor_type.shape.dim
        return tuple(item.dim_param or item.dim_value for item in dimensions)

    weights = {weight.name for weight in graph.initializer}
    inputs = {value.name: shape(value) for value in graph.input if value.name not in weights}
    operators = [node.op_type for node in graph.node]
    return inputs, {value.name: shape(value) for value in graph.output}, operators


@pytest.mark.parametrize("file", ["detector.onnx", "analyzer.onnx", "recogniser.onnx"])
def test_facts_are_those_that_onnx_reads(shipped: Bundle, tiny_bundle: Bundle, file: str) -> None:
    for bundle in (shipped, tiny_bundle):
        model = bundle.read(file)
        inputs, outputs, operators = _facts_by_onnx(model)
        facts = onnx_facts(model, file)
        assert (facts.inputs, facts.outputs) == (inputs, outputs)
        assert facts.operators.total() == len(operators)
        assert set(facts.operators) == set(operators)


def test_the_precision_is_read_from_the_weights(shipped: Bundle, tiny_bundle: Bundle) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx import TensorProto, helper, numpy_helper

    assert onnx_facts(shipped.read("recogniser.onnx"), "r").precision == shipped.manifest.recogniser.precision
    assert onnx_facts(tiny_bundle.read("recogniser.onnx"), "r").precision == "fp32"

    def made(*nodes: Any) -> bytes:
        half = numpy_helper.from_array(__import__("numpy").ones((2, 2), "float16"), "w")
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
        return bytes(
            helper.make_model(helper.make_graph(list(nodes), "g", ends[:1], ends[1:], [half])).SerializeToString()
        )

    widened = helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT)
    product = helper.make_node("MatMul", ["x", "v"], ["y"])
    assert onnx_facts(made(widened, product), "m").precision == "fp16-weights"
    narrow = helper.make_node("MatMul", ["x", "w"], ["y"])
    assert onnx_facts(made(widened, product, narrow), "m").precision == "fp16"
    quantised = helper.make_node("DequantizeLinear", ["q", "s"], ["x"])
    assert onnx_facts(made(widened, product, quantised), "m").precision == "int8"


@given(st.binary(max_size=200))
def test_anything_else_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"x\.onnx is no ONNX file"):
        onnx_facts(data, "x.onnx")


@given(st.integers(0, 69_000))
def test_a_network_cut_short_is_refused_or_read(tiny_recogniser: bytes, length: int) -> None:
    with suppress(BundleError):
        assert onnx_facts(tiny_recogniser[:length], "x.onnx").inputs


@pytest.fixture(scope="module")
def tiny_recogniser(tiny_bundle: Bundle) -> bytes:
    return tiny_bundle.read("recogniser.onnx")


def test_the_plan_of_the_shipped_bundle(shipped: Bundle) -> None:
    detector, analyzer, recogniser = plan(shipped, BuildOptions(max_batch=3))
    assert [item.precision for item in (detector, analyzer, recogniser)] == ["fp32", "fp16-weights", "fp16-weights"]
    assert [profile.opt for profile in recogniser.profiles] == [(n, 3, 112, 96) for n in (1, 2, 3)]
    assert analyzer.input_name == "spectrum"
    assert all(profile.min == profile.opt == profile.max for profile in (*analyzer.profiles, *recogniser.profiles))
    frames, look = detector.profiles
    assert frames == Profile((1, 3, 32, 32), (1, 3, 384, 640), (1, 3, 640, 640))
    assert look == Profile(*[(1, 3, 192, 192)] * 3)


def test_numbers_that_the_runtime_has_too() -> None:
    assert (upright.VIEW, chain.LONGEST_SIDE) == (CLOSE_LOOK, DETECTOR_SIDE)


@given(st.integers(1, 64))
def test_buckets_are_doubles_and_the_largest(most: int) -> None:
    found = buckets(most)
    assert found[-1] == most
    assert list(found[:-1]) == [size for size in (1, 2, 4, 8, 16, 32) if size < most]


@pytest.mark.parametrize("most", [0, -1, 65])
def test_batches_out_of_range(most: int) -> None:
    with pytest.raises(UsageError, match=r"--max-batch must be in 1 \.\. 64"):
        buckets(most)


@given(st.integers(192, 4096))
def test_every_frame_that_the_detector_makes_fits_its_profile(side: int) -> None:
    frames, look = detector_profiles((1, 3, "h", "w"), side)
    assert all(low <= usual <= high for low, usual, high in zip(frames.min, frames.opt, frames.max, strict=True))
    for height, width in ((side, side), (side * 9 // 16, side), (1, 1), (side, 1)):
        assert frames.admits((1, 3, -(-height // 32) * 32, -(-width // 32) * 32))
    assert look.admits((1, 3, 192, 192))


@pytest.mark.parametrize("side", [0, 191, 4097])
def test_sides_out_of_range(side: int) -> None:
    with pytest.raises(UsageError, match="--detector-size must be in"):
        detector_profiles((1, 3, "h", "w"), side)


def test_another_precision_than_the_onnx_holds_is_refused(shipped: Bundle) -> None:
    assert len(plan(shipped, BuildOptions(precision="fp32"))) == 3, "the arithmetic of fp16-weights is that of float32"
    for asked in ("fp16", "int8"):
        words = rf"analyzer\.onnx holds fp16-weights, not {asked}.*calibrate precision .* --to {asked} "
        with pytest.raises(UsageError, match=words):
            plan(shipped, BuildOptions(precision=asked))
    assert plan(shipped, BuildOptions(("detector",), "int8")), "the detector keeps its own"


def test_int8_for_processors_is_refused(tiny_bundle: Bundle) -> None:
    entry = replace(tiny_bundle.manifest.recogniser, precision="int8-cpu")
    bundle = replace(tiny_bundle, manifest=replace(tiny_bundle.manifest, recogniser=entry))
    with pytest.raises(UsageError, match=r"recogniser\.onnx is quantised for processors.* --to int8 --for gpu"):
        plan(bundle, BuildOptions())


def test_a_network_that_the_bundle_lacks(make_tiny_bundle: Any, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "b", analyzer=False)
    assert [item.network for item in plan(bundle, BuildOptions())] == ["detector", "recogniser"]
    with pytest.raises(UsageError, match=r"has no analyzer\. It has: detector, recogniser"):
        plan(bundle, BuildOptions(("analyzer",)))


def test_open_lengths_that_no_profile_is_known_for(make_tiny_bundle: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    bundle = make_tiny_bundle(tmp_path / "b")
    path = bundle.folder / "recogniser.onnx"
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "width"
    onnx.save(model, path)
    data = path.read_bytes()
    files = {**bundle.manifest.files, "recogniser.onnx": FileEntry(sha256_of_bytes(data), len(data))}
    changed = replace(bundle, manifest=replace(bundle.manifest, files=files))
    with pytest.raises(BundleError, match=r"recogniser\.onnx takes \['batch', 3, 112, 'width'\]: no profile"):
        plan(changed, BuildOptions())


def test_the_equal_command_of_trtexec(shipped: Bundle) -> None:
    (item,) = plan(shipped, BuildOptions(("recogniser",), max_batch=2))
    line = trtexec_command(item, Flags(), Path("a b/r.onnx"), Path("r.engine"))
    assert shlex.split(line) == [
        "trtexec", "--onnx=a b/r.onnx", "--saveEngine=r.engine", "--stronglyTyped", "--device=0", "--noTF32",
        "--builderOptimizationLevel=3",
        "--profile=0", "--minShapes=face:1x3x112x96", "--optShapes=face:1x3x112x96", "--maxShapes=face:1x3x112x96",
        "--profile=1", "--minShapes=face:2x3x112x96", "--optShapes=face:2x3x112x96", "--maxShapes=face:2x3x112x96",
        "--skipInference",
    ]  # fmt: skip
    line = trtexec_command(item, Flags(True, "ampere+", True, 64, 5), Path("r"), Path("e"), Path("t"), 1)
    words = set(shlex.split(line))
    assert {"--device=1", "--versionCompatible", "--hardwareCompatibilityLevel=ampere+", "--timingCacheFile=t",
            "--memPoolSize=workspace:64M", "--builderOptimizationLevel=5"} <= words  # fmt: skip
    assert "--noTF32" not in words
