"""The runner on a FAKE TensorRT and a FAKE GPU: numbers are ONNX Runtime's, on memory that stands for a device's."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_device import short_of_memory

from immunogate.bundle import Bundle
from immunogate.engines.record import EngineError, Flags
from immunogate.export.engine.build import build_network
from immunogate.export.engine.builder import EngineBuilder
from immunogate.export.engine.plan import BuildOptions, plan
from immunogate.kernels.device import Device, DeviceError
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.runtime.runners.tensorrt import MOST_SLOTS, TensorRtRunner, open_engine

Engines = Path


@pytest.fixture
def engines(fake_machine: Any, tiny_bundle: Bundle, here: Any, tmp_path: Path) -> Any:
    """A folder with an engine of each network of the tiny bundle."""
    return build_all(fake_machine, tiny_bundle, here, tmp_path / "engines")


def build_all(trt: Any, bundle: Bundle, machine: Any, folder: Path, flags: Flags | None = None, **options: Any) -> Path:
    builder = EngineBuilder(trt)
    for item in plan(bundle, BuildOptions(**options)):
        build_network(builder, bundle, item, flags or Flags(), machine, folder)
    return folder


def faces(count: int, width: int = 96) -> Any:
    return np.random.default_rng(count).standard_normal((count, 3, 112, width)).astype(np.float32)


def opened(bundle: Bundle, network: str, device: Device, folder: Path, **more: Any) -> TensorRtRunner:
    return open_engine(bundle, network, device, folder, **more)


def onnx_of(bundle: Bundle, file: str) -> OnnxRunner:
    return OnnxRunner(bundle.read(file), file, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 9, 21])
def test_any_number_of_faces_gives_what_onnx_gives(
    tiny_bundle: Bundle, device: Device, engines: Path, count: int
) -> None:
    runner = opened(tiny_bundle, "recogniser", device, engines)
    runner.expect((None, 3, 112, 96), ("embedding",), (None, 16))
    assert runner.buckets == (1, 2, 4, 8)
    expected = onnx_of(tiny_bundle, "recogniser.onnx").run(faces(count))["embedding"]
    for _ in range(2):
        found = runner.run(faces(count))["embedding"]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    runner.close()


def test_no_face_gives_none(tiny_bundle: Bundle, device: Device, engines: Path) -> None:
    runner = opened(tiny_bundle, "recogniser", device, engines)
    assert runner.run(faces(0))["embedding"].shape == (0, 16)
    runner.close()


def test_results_stay_when_the_next_run_comes(tiny_bundle: Bundle, device: Device, engines: Path) -> None:
    runner = opened(tiny_bundle, "recogniser", device, engines)
    first = runner.run(faces(2))["embedding"]
    copy = first.copy()
    runner.run(faces(4))
    np.testing.assert_array_equal(first, copy)
    runner.close()


def test_rows_that_fill_up_are_zeros_and_not_somebody_elses_face(
    tiny_bundle: Bundle, device: Device, engines: Path
) -> None:
    runner = opened(tiny_bundle, "recogniser", device, engines)
    runner.run(faces(4) + 3)
    runner.run(faces(3))
    stream = device.stream()
    seen = runner.input_view(4).get(stream)
    np.testing.assert_array_equal(seen[:3], faces(3))
    assert not seen[3:].any()
    stream.close()
    runner.close()


def test_after_the_warm_up_nothing_is_allocated_and_graphs_run(
    tiny_bundle: Bundle, device: Device, engines: Path
) -> None:
    runner = opened(tiny_bundle, "recogniser", device, engines)
    calls: Any = device.calls
    allocated, launched = calls.allocations, calls.graph_launches
    for count in (1, 2, 3, 4, 5, 8):
        runner.run(faces(count))
    assert (calls.allocations, calls.graph_launches - launched) == (allocated, 6)
    runner.close()


def test_without_graphs_it_computes_the_same(tiny_bundle: Bundle, device: Device, engines: Path) -> None:
    runner = opened(tiny_bundle, "recogniser", device, engines, graphs=False)
    calls: Any = device.calls
    expected = onnx_of(tiny_bundle, "recogniser.onnx").run(faces(3))["embedding"]
    np.testing.assert_allclose(runner.run(faces(3))["embedding"], expected, atol=1e-6)
    assert calls.graph_launches == 0
    runner.close()


def test_where_nothing_can_be_captured_it_says_so_once_and_runs(
    tiny_bundle: Bundle,
    device: Device,
    engines: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(stream: Any) -> Any:
        raise RuntimeError("capture is not permitted")

    monkeypatch.setattr(device.calls, "begin_capture", refuse)
    runner = opened(tiny_bundle, "recogniser", device, engines)
    expected = onnx_of(tiny_bundle, "recogniser.onnx").run(faces(3))["embedding"]
    np.testing.assert_allclose(runner.run(faces(3))["embedding"], expected, atol=1e-6)
    assert caplog.text.count("runs without a CUDA graph: capture is not permitted") == 1
    runner.close()


def test_on_the_device_nothing_is_copied_and_it_can_be_captured(
    tiny_bundle: Bundle, device: Device, engines: Path
) -> None:
    runner = opened(tiny_bundle, "recogniser", device, engines)
    stream = device.stream()
    graph = stream.capture(lambda: runner.enqueue(4, stream))
    runner.input_view(4).put(faces(4), stream)
    graph.launch(stream)
    expected = onnx_of(tiny_bundle, "recogniser.onnx").run(faces(4))["embedding"]
    np.testing.assert_allclose(runner.output_view(4, "embedding").get(stream), expected, atol=1e-6)
    with pytest.raises(DeviceError, match="used by a graph"):
        runner.close()
    graph.close()
    runner.close()
    stream.close()


def test_batches_that_it_does_not_have_are_named(tiny_bundle: Bundle, device: Device, engines: Path) -> None:
    runner = opened(tiny_bundle, "recogniser", device, engines)
    assert [runner.bucket_for(count) for count in (1, 3, 8)] == [1, 4, 8]
    with pytest.raises(EngineError, match=r"9 rows are more than .* 8\. .*--max-batch"):
        runner.bucket_for(9)
    with pytest.raises(EngineError, match=r"has no batch size 3\. It has: 1, 2, 4, 8"):
        runner.input_view(3)
    with pytest.raises(EngineError, match=r"takes \[3, 112, 96\] in each row, it was given \[3, 112, 112\]"):
        runner.run(faces(2, 112))
    runner.close()


def test_frames_of_any_size_within_the_profile(tiny_bundle: Bundle, device: Device, engines: Path) -> None:
    runner = opened(tiny_bundle, "detector", device, engines)
    assert runner.buckets == ()
    assert runner.input_shape == [1, 3, "d2", "d3"]
    onnx = onnx_of(tiny_bundle, "detector.onnx")
    assert set(runner.output_names) == set(onnx.output_names)
    for height, width in ((96, 64), (192, 192), (96, 64), (96, 64), (640, 640)):
        frame = np.random.default_rng(height).uniform(0, 255, (1, 3, height, width)).astype(np.float32)
        found, expected = runner.run(frame), onnx.run(frame)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
    calls: Any = device.calls
    assert calls.graph_launches == 1, "a size is captured once it has come three times"
    with pytest.raises(EngineError, match=r"does not take \[1, 3, 672, 640\].* --detector-size"):
        runner.run(np.zeros((1, 3, 672, 640), np.float32))
    runner.close()


def test_sizes_beyond_those_kept_ready_make_room(tiny_bundle: Bundle, device: Device, engines: Path) -> None:
    runner = opened(tiny_bundle, "detector", device, engines)
    calls: Any = device.calls
    allocated = calls.allocations
    for number in range(1, MOST_SLOTS + 4):
        for _ in range(3):
            runner.run(np.zeros((1, 3, 32, 32 * number), np.float32))
    assert len(runner._slots) == MOST_SLOTS
    assert calls.allocations == allocated
    runner.close()


def test_what_others_hold_is_never_given_back(tiny_bundle: Bundle, device: Device, engines: Path) -> None:
    """A graph of somebody else's, made before so many other sizes came that only a few contexts are kept."""
    runner = opened(tiny_bundle, "detector", device, engines)
    shape = (1, 3, 64, 96)
    frame = np.random.default_rng(2).uniform(0, 255, shape).astype(np.float32)
    runner.hold(shape)
    stream = device.stream()
    graph = stream.capture(lambda: runner.enqueue(shape, stream))
    for number in range(1, MOST_SLOTS + 3):
        runner.run(np.zeros((1, 3, 32, 32 * number), np.float32))
    assert len(runner._slots) == MOST_SLOTS
    runner.input_view(shape).put(frame, stream)
    graph.launch(stream)
    for name, want in onnx_of(tiny_bundle, "detector.onnx").run(frame).items():
        np.testing.assert_allclose(runner.output_view(shape, name).get(stream), want, atol=1e-4)
    with pytest.raises(EngineError, match=r"does not take \[1, 3, 672, 32\]"):
        runner.hold((1, 3, 672, 32))
    graph.close()
    runner.close()
    stream.close()


def test_where_memory_is_short_nothing_stays(tiny_bundle: Bundle, device: Device, engines: Path) -> None:
    failed = short_of_memory(device, lambda: opened(tiny_bundle, "recogniser", device, engines).close())
    assert failed == (2 if device.integrated else 3)


def test_a_closed_runner_and_another_thread_are_refused(tiny_bundle: Bundle, device: Device, engines: Path) -> None:
    runner = opened(tiny_bundle, "recogniser", device, engines)
    errors: list[Exception] = []

    def elsewhere() -> None:
        try:
            runner.run(faces(1))
        except DeviceError as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "opened by thread" in str(errors[0])
    runner.close()
    runner.close()
    with pytest.raises(DeviceError, match=r"recogniser\.onnx was closed"):
        runner.run(faces(1))


def test_a_failure_of_tensorrt_is_an_error(
    tiny_bundle: Bundle, device: Device, engines: Path, fake_machine: Any
) -> None:
    runner = opened(tiny_bundle, "recogniser", device, engines, graphs=False)
    fake_machine.fake.refused = "yes"
    with pytest.raises(EngineError, match=r"TensorRT failed in recogniser\.onnx"):
        runner.run(faces(1))
    runner.close()


def test_an_engine_that_tensorrt_does_not_load(
    tiny_bundle: Bundle, device: Device, engines: Path, fake_machine: Any
) -> None:
    import json

    from immunogate.engines.record import EngineRecord
    from immunogate.files import sha256_of_bytes

    path, beside = engines / "recogniser.engine", engines / "recogniser.engine.json"
    path.write_bytes(b"not an engine")
    about = json.loads(beside.read_text())
    about.update(engine_sha256=sha256_of_bytes(b"not an engine"), engine_bytes=13)
    beside.write_text(EngineRecord.from_json(json.dumps(about), "x").to_json())
    with pytest.raises(
        EngineError, match=r"does not load the engine of recogniser\.onnx: Serialization assertion .*Build"
    ):
        opened(tiny_bundle, "recogniser", device, engines)


def test_an_engine_that_is_not_what_its_side_car_says(tiny_bundle: Bundle, device: Device, engines: Path) -> None:
    import json

    beside = engines / "recogniser.engine.json"
    about = json.loads(beside.read_text())
    about["profiles"].pop()
    beside.write_text(json.dumps(about))
    with pytest.raises(EngineError, match="is not what its side-car says: it takes face in 4 profiles"):
        opened(tiny_bundle, "recogniser", device, engines)


def test_a_version_compatible_engine_of_an_unsigned_bundle_is_not_loaded(
    tiny_bundle: Bundle, device: Device, fake_machine: Any, here: Any, tmp_path: Path
) -> None:
    folder = build_all(fake_machine, tiny_bundle, here, tmp_path, Flags(version_compatible=True))
    with pytest.raises(EngineError, match=r"runs code that it carries.*signed bundle.*without --version-compatible"):
        opened(tiny_bundle, "recogniser", device, folder)


def test_without_an_engine_it_says_how_to_get_one(
    tiny_bundle: Bundle, device: Device, fake_machine: Any, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=r"recogniser\.engine was not built yet\. Build it: immunogate build"):
        opened(tiny_bundle, "recogniser", device, tmp_path)


def test_a_network_without_open_lengths(tiny_bundle: Bundle, device: Device, fake_machine: Any) -> None:
    """A single profile that TensorRT makes itself."""
    import onnx

    model = onnx.load_from_string(tiny_bundle.read("recogniser.onnx"))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    (item,) = plan(tiny_bundle, BuildOptions(("recogniser",)))
    from dataclasses import replace

    item = replace(item, model=model.SerializeToString(), input_shape=(2, 3, 112, 96), profiles=())
    built = EngineBuilder(fake_machine).build(item, Flags())
    record = replace(_some_record(item), engine_bytes=len(built.plan))
    runner = TensorRtRunner(fake_machine, record, built.plan, device)
    assert (runner.buckets, runner.input_shape) == ((2,), [2, 3, 112, 96])
    expected = onnx_of(tiny_bundle, "recogniser.onnx").run(faces(3))["embedding"]
    np.testing.assert_allclose(runner.run(faces(3))["embedding"], expected, atol=1e-6)
    runner.close()


def _some_record(item: Any) -> Any:
    from immunogate.engines.record import EngineRecord, Machine

    machine = Machine("10.3", "12.6", "540", "8.7", "Fake Orin", "Linux", "aarch64", "")
    return EngineRecord(item.network, "m", "0", item.file, "0", "fp32", item.input_name, item.profiles, Flags(),
                        machine, "0", 0, 0.0, "", "")  # fmt: skip
