"""Engines of `immunogate build` on the FAKE TensorRT, run by a gate whose faces stay on the FAKE device."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_machine import FakeMachine

from immunogate.bundle import Bundle, open_bundle
from immunogate.cli import main
from immunogate.default_models import shipped_bundle
from immunogate.engines.record import EngineError, EngineRecord
from immunogate.engines.store import engines_folder, record_path
from immunogate.errors import ImmunogateError
from immunogate.kernels.device import DeviceError, Stream
from immunogate.kernels.device.buffers import View
from immunogate.kernels.queued import Queued
from immunogate.runtime import chain as chain_module
from immunogate.runtime.chain import FaceChain, open_chain
from immunogate.runtime.detect import Detector
from immunogate.runtime.gallery import Gallery, Sample
from immunogate.runtime.gpu import face_path
from immunogate.runtime.gpu.device_detector import DeviceDetector
from immunogate.runtime.gpu.face_path import FacePath
from immunogate.runtime.runners.check import largest_error

NETWORKS = ("detector", "analyzer", "recogniser")


@pytest.fixture
def machine(
    request: pytest.FixtureRequest, make_calls: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[FakeMachine]:
    """A FAKE machine; at the end all its devices are closed, each of them empty."""
    options = {"buckets": getattr(request, "param", (1, 2)), "details": False, "stream": None}
    monkeypatch.setattr(face_path.FacePath.__init__, "__kwdefaults__", options)
    made = FakeMachine(monkeypatch, lambda: make_calls(lazy=True), tmp_path / "cache")
    yield made
    assert made.live == []


@pytest.fixture
def engines(machine: FakeMachine, tiny_bundle: Bundle) -> Path:
    """The folder of the tiny bundle's engines in the user's cache."""
    return built(tiny_bundle)


def built(bundle: Bundle) -> Path:
    assert main(["build", str(bundle.folder), "--max-batch", "4"]) == 0
    return engines_folder(bundle, "9.0")


def stays_on_the_device(chain: FaceChain) -> bool:
    return isinstance(chain._path, FacePath) and isinstance(chain.detector, DeviceDetector)


def kinds(chain: FaceChain) -> list[str]:
    return [runner.kind for runner in chain.runners]


def make_stale(folder: Path, network: str) -> None:
    beside = record_path(folder, network)
    record = EngineRecord.from_json(beside.read_text(), "x")
    beside.write_text(replace(record, machine=replace(record.machine, driver="1.2.3")).to_json())


@pytest.mark.data
def test_decisions_are_the_cpus(
    machine: FakeMachine, engines: Path, tiny_bundle: Bundle, clip: Any, frame_of: Any, deciding: Any
) -> None:
    frames = [frame_of(frame.pixels, frame.index) for frame in clip("both")[:3]]
    with (
        open_chain(tiny_bundle, mode="select") as cpu,
        open_chain(tiny_bundle, mode="select", backend="auto", runner="auto") as chain,
    ):
        assert stays_on_the_device(chain)
        assert kinds(chain) == ["tensorrt"] * 3
        (device,) = machine.devices
        templates = deciding.enrolled(cpu, frames)
        want = deciding.decisions(cpu, frames, templates)
        runs = machine.trt.fake.runs
        deciding.same(deciding.decisions(chain, frames, templates), want)
        assert machine.trt.fake.runs > runs
        assert [size for size, slot in chain.detector._slots.items() if slot] == [
            frames[0].pixels.shape[:2],
            (192, 192),
        ]
        before = dict(device.made)
        deciding.decisions(chain, frames[:1], templates)
        assert device.made == before


@pytest.mark.data
@pytest.mark.parametrize("machine", [(1,)], indirect=True, ids=["one face"])
def test_decisions_of_the_bundle_that_ships(machine: FakeMachine, clip: Any, frame_of: Any, deciding: Any) -> None:
    if not (shipped_bundle() / "manifest.json").is_file():
        pytest.skip("no bundle ships with this checkout")
    bundle = open_bundle(shipped_bundle())
    built(bundle)
    frames = [frame_of(frame.pixels, frame.index) for frame in clip("man")[:2]]
    with open_chain(bundle) as cpu, open_chain(bundle, backend="cuda", runner="tensorrt") as chain:
        assert stays_on_the_device(chain)
        templates = deciding.enrolled(cpu, frames)
        want = deciding.decisions(cpu, frames, templates)
        deciding.same(deciding.decisions(chain, frames, templates), want)
    assert "allow" in {decision["outcome"] for decision in want}


@pytest.mark.parametrize("network", NETWORKS)
def test_one_that_is_not_there_or_stale_is_refused_by_name(
    machine: FakeMachine, engines: Path, tiny_bundle: Bundle, network: str
) -> None:
    """What was opened before it is given back."""
    make_stale(engines, network)
    with pytest.raises(EngineError, match=rf"{network}\.engine does not fit: driver: built with 1\.2\.3.* Build it"):
        open_chain(tiny_bundle, mode="select", backend="cuda", runner="tensorrt")
    record_path(engines, network).unlink()
    with pytest.raises(EngineError, match=rf"{network}\.engine was not built yet\. Build it: immunogate build"):
        open_chain(tiny_bundle, mode="select", backend="cuda", runner="tensorrt")
    assert machine.live == []


def test_auto_goes_on_without_the_one_that_is_stale(machine: FakeMachine, engines: Path, tiny_bundle: Bundle) -> None:
    make_stale(engines, "recogniser")
    crops = np.random.default_rng(4).integers(0, 256, (3, 112, 112), dtype=np.uint8)
    with (
        open_chain(tiny_bundle, mode="select") as cpu,
        open_chain(tiny_bundle, mode="select", backend="cuda", runner="auto") as chain,
    ):
        assert kinds(chain) == ["tensorrt", "tensorrt", "cpu"]
        assert dict(chain.runners[2].passed_over)["tensorrt"].startswith(
            f"{engines / 'recogniser.engine'} does not fit: driver: built with 1.2.3"
        )
        assert chain._path is None
        found, want = (one.recognise(crops, [1, 1, 1], [1, 2, 3]) for one in (chain, cpu))
    assert largest_error(found.purified, want.purified) < 1e-3


def test_kernels_on_the_cpu_and_networks_on_the_device(
    machine: FakeMachine, engines: Path, tiny_bundle: Bundle
) -> None:
    """Each runner opens a device for itself, and closes it."""
    crops = np.random.default_rng(4).integers(0, 256, (3, 112, 112), dtype=np.uint8)
    with open_chain(tiny_bundle, mode="select") as cpu:
        with open_chain(tiny_bundle, mode="select", runner="tensorrt") as chain:
            assert len(machine.live) == 3
            found, want = (one.recognise(crops, [1, 1, 1], [1, 2, 3]) for one in (chain, cpu))
        assert machine.live == []
    assert largest_error(found.purified, want.purified) < 1e-5
    make_stale(engines, "detector")
    with pytest.raises(EngineError, match="does not fit"):
        open_chain(tiny_bundle, mode="select", runner="tensorrt")


def test_an_engine_that_fails_while_it_is_opened_leaves_nothing(
    machine: FakeMachine, engines: Path, tiny_bundle: Bundle
) -> None:
    machine.trt.fake.refused = "out of memory"
    with pytest.raises(EngineError, match=r"TensorRT failed in analyzer\.onnx"):
        open_chain(tiny_bundle, mode="select", backend="cuda", runner="tensorrt")
    assert machine.live == []
    with open_chain(tiny_bundle, mode="fixed", backend="cuda", runner="auto") as chain:
        assert kinds(chain) == ["cpu"] * 2
        with open_chain(tiny_bundle, mode="fixed", backend="cuda", runner="cpu"):
            assert machine.live[0] == machine.live[1]


@pytest.mark.parametrize("fault", ["pixels", "code"])
def test_a_detector_that_says_something_else_is_not_taken(
    machine: FakeMachine, engines: Path, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, fault: str,
) -> None:  # fmt: skip
    """A letterbox that is one pixel off, or that there is no code of; faces stay on the device all the same."""
    shrink, load = Queued.letterbox_bgr, Queued.load

    def shifted(queued: Queued, stream: Stream, pixels: View, planes: View, shrunk: tuple[int, int]) -> None:
        shrink(queued, stream, pixels, planes, (shrunk[0] - 1, shrunk[1]))

    def refuse(queued: Queued, *files: str) -> None:
        if "letterbox" in files:
            raise DeviceError("no code for this device")
        load(queued, *files)

    monkeypatch.setattr(*((Queued, "letterbox_bgr", shifted) if fault == "pixels" else (Queued, "load", refuse)))
    with open_chain(tiny_bundle, mode="threshold", backend="cuda", runner="tensorrt") as chain:
        assert type(chain.detector) is Detector
        assert chain._path is not None
    assert caplog.text.count("frames are searched by way of the host") == 1
    assert ("says other things" if fault == "pixels" else "no code") in caplog.text


def test_a_path_is_given_back_where_the_detector_can_not_be_opened(
    machine: FakeMachine, engines: Path, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path was open already, and so were the engines."""

    def refuse(*_: Any) -> None:
        raise DeviceError("no code for this device")

    monkeypatch.setattr(chain_module, "detector_for", refuse)
    with pytest.raises(DeviceError, match="no code for this device"):
        open_chain(tiny_bundle, backend="cuda", runner="tensorrt")
    assert machine.live == []


def test_an_engine_for_smaller_frames_is_refused_before_the_first(
    machine: FakeMachine, engines: Path, tiny_bundle: Bundle
) -> None:
    with pytest.raises(ImmunogateError, match=r"does not take \[1, 3, 1280, 1280\].*--detector-size"):
        open_chain(tiny_bundle, backend="cuda", runner="tensorrt", longest_side=1280)


@pytest.mark.data
def test_by_the_command_line(
    machine: FakeMachine, tiny_bundle: Bundle, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """build, verify, run; nobody is enrolled."""
    draw = np.random.default_rng(1)
    np.savez(tmp_path / "faces.npz", images=draw.integers(0, 256, (6, 112, 112), np.uint8))
    folder = str(tiny_bundle.folder)
    clip = str(data_dir / "video" / "head-pose-face-detection-male.gif")
    watch = ["run", "--bundle", folder, "--gallery", str(tmp_path / "people.db"), "--source", clip, "--json"]
    watch += ["--max-frames", "2", "--max-decision-age-ms", "60000", "--backend", "cuda", "--runner", "tensorrt"]
    with Gallery(tmp_path / "people.db", tiny_bundle.manifest.embedding_hash(), 16, create=True) as gallery:
        gallery.enroll([Sample("somebody", np.eye(16, dtype=np.float32)[0], "a.jpg", "0" * 64)])
    assert main(watch) == 1
    assert "was not built yet. Build it: immunogate build" in capsys.readouterr().err.splitlines()[-1]
    assert main(["build", folder]) == 0
    assert main(["verify", folder, "--engines-only", "--faces", str(tmp_path / "faces.npz")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "verified"
    assert main(watch) == 0
    said = capsys.readouterr()
    assert "runner: tensorrt" in said.err
    assert {json.loads(line)["reason"] for line in said.out.splitlines()} == {"no_match"}
