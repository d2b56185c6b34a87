"""Engines are held against their ONNX: what is the same passes, what was changed is found, what is not here is said.

The chains that are compared here are real; where a command is run, TensorRT and the GPU are FAKES.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import Bundle, open_bundle
from immunogate.cli import main
from immunogate.cli.verify_engines import chain_with
from immunogate.default_models import default_bundle
from immunogate.engines.record import EngineRecord
from immunogate.export.verify_engines import frames_of, verify_engines
from immunogate.faces_file import AlignedFaces
from immunogate.files import sha256_of_bytes
from immunogate.kernels import device as device_package
from immunogate.kernels.device import Device, probe
from immunogate.runtime.runners.base import Array, Runner
from immunogate.runtime.runners.onnx import OnnxRunner

ALL = {"detector": "fp32", "analyzer": "fp16-weights", "recogniser": "fp16-weights"}


class Shaken(Runner):
    """A real network whose outputs are changed on their way out."""

    def __init__(self, bundle: Bundle, file: str, change: Any) -> None:
        self._runner, self._change = OnnxRunner(bundle.read(file), file), change
        self.name, self.input_name = file, self._runner.input_name
        self.input_shape, self.output_shapes = self._runner.input_shape, self._runner.output_shapes
        self.output_names = self._runner.output_names

    def run(self, batch: Array) -> dict[str, Array]:
        return {name: self._change(name, values) for name, values in self._runner.run(batch).items()}


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return open_bundle(default_bundle())


@pytest.fixture(scope="module")
def crops(aligned_faces: AlignedFaces) -> Any:
    return aligned_faces.images[100:106]


@pytest.fixture(scope="module")
def onnx(shipped: Bundle) -> Iterator[Any]:
    with chain_with(shipped, {}) as chain:
        yield chain


def compared(onnx: Any, engines: Any, crops: Any, precisions: dict[str, str]) -> dict[str, Any]:
    return {check.output: check for check in verify_engines(onnx, engines, crops, precisions, 0.5)}


@pytest.mark.data
def test_the_same_networks_pass_and_every_output_is_compared(onnx: Any, crops: Any) -> None:
    checks = compared(onnx, onnx, crops, ALL)
    assert set(checks) == {
        "faces in frames", "landmarks in frames", "probabilities", "chosen bits", "embedding of raw faces",
        "embedding of purified faces", "score of a pair", "decisions of pairs",
    }  # fmt: skip
    assert all(check.passed and check.between == "engine - ONNX" for check in checks.values())
    assert checks["decisions of pairs"].measure == "changed of 15"
    assert compared(onnx, onnx, crops[:2], {"detector": "fp32"}).keys() == {"faces in frames", "landmarks in frames"}


@pytest.mark.data
def test_the_frames_hold_faces_that_the_detector_finds(onnx: Any, crops: Any) -> None:
    found = [len(onnx.detector.detect(frame)) for frame in frames_of(crops)]
    assert len(found) == 3
    assert sum(found) >= 4


@pytest.mark.data
@pytest.mark.parametrize(
    ("network", "change", "failed"),
    [
        ("analyzer", lambda name, p: np.clip(p + 0.01, 0, 1), {"probabilities"}),
        ("analyzer", lambda name, p: 1 - p, {"probabilities", "chosen bits", "embedding of purified faces"}),
        ("recogniser", lambda name, e: e[:, ::-1].copy(), {"embedding of raw faces", "embedding of purified faces"}),
        ("detector", lambda name, v: v + (0.3 if name.startswith("kps") else 0), {"landmarks in frames"}),
        ("detector", lambda name, v: v * (0 if name.startswith("obj") else 1), {"faces in frames"}),
    ],
)
def test_a_network_that_computes_something_else_fails(
    shipped: Bundle, onnx: Any, crops: Any, network: str, change: Any, failed: set[str]
) -> None:
    with chain_with(shipped, {network: Shaken(shipped, f"{network}.onnx", change)}) as engines:
        checks = compared(onnx, engines, crops, {network: ALL[network]})
    found = {name for name, check in checks.items() if not check.passed}
    assert failed <= found, found


def test_pairs_decided_otherwise_are_counted_and_some_may_be() -> None:
    from immunogate.export.verify_engines import _decisions

    first = np.eye(4, dtype=np.float32)
    second = first.copy()
    second[1] = [0.6, 0.8, 0, 0]
    check = _decisions(first, second, 0.5, 0.01)
    assert (check.value, check.limit, check.passed) == (1, 0, False)
    check = _decisions(first, second, 0.005, 0.01)
    assert (check.value, check.limit, check.passed) == (1, 6, True)


@pytest.fixture
def faces_file(tmp_path: Path) -> Any:
    draw = np.random.default_rng(1)
    path = tmp_path / "faces.npz"
    np.savez(path, images=draw.integers(0, 256, (6, 112, 112), np.uint8))
    return path


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str], tiny_bundle: Bundle, faces_file: Path) -> Any:
    def run(*words: object, bundle: Bundle = tiny_bundle) -> Any:
        capsys.readouterr()
        status = main(["verify", str(bundle.folder), "--faces", str(faces_file), *map(str, words)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def on_fakes(
    fake_machine: Any, discrete_device: Device, tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The folder of engines of the tiny bundle, built on the FAKE GPU, which then runs them."""
    monkeypatch.setattr(device_package, "open_device", lambda index: discrete_device)
    folder = tmp_path / "engines"
    assert main(["build", str(tiny_bundle.folder), "--out", str(folder)]) == 0
    return folder


def test_without_a_gpu_it_says_so(verify: Any) -> None:
    if probe().version is not None:
        pytest.skip("a driver is installed here")
    status, out, err = verify("--engines-only")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("immunogate: engines: not checked: no NVIDIA driver is installed")


def test_engines_pass_where_they_are_found(verify: Any, on_fakes: Path) -> None:
    status, out, err = verify("--engines-only", "--engines", on_fakes, "--json")
    assert status == 0, err
    report = json.loads(out)
    assert report["passed"] is True
    assert report["engines"]["checked"] is True
    assert set(report["engines"]["sha256"]) == {"detector", "analyzer", "recogniser"}
    assert {"embedding of raw faces", "score of a pair", "decisions of pairs"} <= {
        check["output"] for check in report["checks"]
    }


def test_in_words_it_names_what_was_on_an_engine(verify: Any, on_fakes: Path) -> None:
    for suffix in ("engine", "engine.json"):
        (on_fakes / f"analyzer.{suffix}").unlink()
    status, out, _ = verify("--engines-only", "--engines", on_fakes)
    assert status == 0
    assert out.splitlines()[-2:] == ["engines: detector fp32, recogniser fp32", "verified"]


def test_an_engine_of_other_weights_fails(verify: Any, on_fakes: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    path, beside = on_fakes / "recogniser.engine", on_fakes / "recogniser.engine.json"
    header, _, model = path.read_bytes().partition(b"\n")
    network = onnx.load_from_string(model)
    for weight in network.graph.initializer:
        values = onnx.numpy_helper.to_array(weight) + np.float32(0.05)
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
    plan = header + b"\n" + network.SerializeToString()
    path.write_bytes(plan)
    record = EngineRecord.from_json(beside.read_text(), "x")
    record = replace(record, engine_sha256=sha256_of_bytes(plan), engine_bytes=len(plan))
    beside.write_text(record.to_json())
    status, out, _ = verify("--engines-only", "--engines", on_fakes)
    assert status == 1
    assert out.splitlines()[-1] == "NOT verified: a limit is passed"


def test_a_stale_engine_is_named(verify: Any, on_fakes: Path) -> None:
    beside = on_fakes / "detector.engine.json"
    record = EngineRecord.from_json(beside.read_text(), "x")
    beside.write_text(replace(record, machine=replace(record.machine, driver="1.2.3")).to_json())
    status, _, err = verify("--engines-only", "--engines", on_fakes)
    assert status == 1
    assert "does not fit: driver: built with 1.2.3" in err.splitlines()[-1]


def test_where_none_was_built_it_says_so(verify: Any, on_fakes: Path, tmp_path: Path) -> None:
    status, _, err = verify("--engines-only", "--engines", tmp_path / "nowhere")
    assert status == 1
    assert "engines: not checked: there is none in" in err.splitlines()[-1]
