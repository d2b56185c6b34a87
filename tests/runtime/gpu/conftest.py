"""The face path over the fake device: the real kernels on the host, networks played by ONNX Runtime."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_device import EmulatedCalls, name_as_code
from fake_networks import FakeNetwork

from immunogate.basis import basis_from_bytes
from immunogate.bundle import Bundle
from immunogate.kernels import compile as compiling
from immunogate.kernels.device import Device, binding_versions, open_device, probe
from immunogate.kernels.launch import CudaKernels
from immunogate.runtime.chain import FaceChain, antibody_settings
from immunogate.runtime.decide import Policy
from immunogate.runtime.detect import Detector
from immunogate.runtime.gallery import Templates
from immunogate.runtime.gpu.face_path import FacePath
from immunogate.runtime.pipeline import Gate
from immunogate.runtime.purify import Purifier, kernels_for
from immunogate.runtime.recognise import Recogniser
from immunogate.runtime.runners.base import Runner
from immunogate.runtime.runners.onnx import OnnxRunner

VARYING = ("decision_id", "captured_at", "decided_at", "age_ms", "latency_ms")


@pytest.fixture
def make_calls(emulator_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EmulatedCalls]:
    """Fake drivers: ``make_calls(lazy=False, integrated=False)``."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is needed to read the kernels' signatures")
    monkeypatch.setattr(compiling, "cubin_for", name_as_code)
    return lambda **options: EmulatedCalls(emulator_library, **options)


@pytest.fixture
def calls(request: pytest.FixtureRequest, make_calls: Callable[..., EmulatedCalls]) -> EmulatedCalls:
    """A device that works when somebody waits for it (lazy), or at once (eager), or that only copies at once (hasty).

    The first stream is that of the kernels, the second one copies frames.
    """
    pace = getattr(request, "param", "lazy")
    return make_calls(lazy=pace != "eager", hasty=(1,) if pace == "hasty" else ())


@pytest.fixture
def device(calls: EmulatedCalls) -> Iterator[Device]:
    """A strict device: what a test leaves open fails it."""
    with Device(calls, strict=True) as opened:
        yield opened


@pytest.fixture
def anywhere(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A strict device that runs the real kernels: on the host, thread by thread, and on a GPU where there is one."""
    if request.param == "on the host":
        opened = Device(request.getfixturevalue("make_calls")(lazy=True), strict=True)
    else:
        state = probe()
        if not (state.usable and any(binding_versions().values())):
            why = state.problem or "neither PyCUDA nor cuda-core is installed"
            (pytest.fail if os.environ.get("IMMUNOGATE_REQUIRE_GPU") == "1" else pytest.skip)(why)
        opened = open_device(strict=True)
    with opened:
        yield opened


class Both:
    """The same bundle's face path on the fake device and the chain on the CPU.

    Attributes:
        path: on the device.
        cpu: its `recognise` is the CPU's.
        analyzer, recogniser: the fake networks.
        kernels: on the device.
    """

    def __init__(
        self,
        path: FacePath,
        cpu: FaceChain,
        analyzer: FakeNetwork | None,
        recogniser: FakeNetwork,
        kernels: CudaKernels,
    ) -> None:
        self.path, self.cpu, self.analyzer, self.recogniser, self.kernels = path, cpu, analyzer, recogniser, kernels


@contextmanager
def open_both(
    bundle: Bundle,
    device: Device,
    mode: str,
    *,
    views: int | None = None,
    analyzer: Runner | None = None,
    **options: Any,
) -> Iterator[Both]:
    manifest = bundle.manifest
    settings = antibody_settings(manifest.purifier, mode)
    settings = replace(settings, clones=min(settings.clones, 20))
    entry = manifest.recogniser if views is None else replace(manifest.recogniser, views=views)
    basis = basis_from_bytes(bundle.read(manifest.purifier.basis), "basis.npz")
    if settings.needs_probabilities and analyzer is None:
        assert manifest.analyzer is not None
        analyzer = OnnxRunner(bundle.read(manifest.analyzer.file), manifest.analyzer.file)
    recogniser = OnnxRunner(bundle.read(entry.file), entry.file)
    rows = basis.basis[: settings.top_k] if mode == "fixed" else basis.basis
    networks = FakeNetwork(analyzer) if analyzer else None, FakeNetwork(recogniser, largest=5)
    purifier = Purifier(settings, kernels_for(basis, settings), analyzer)
    cpu = FaceChain(Detector(recogniser), purifier, Recogniser(recogniser, entry))
    with (
        cpu,
        CudaKernels(basis.mean, rows, device) as kernels,
        FacePath(kernels, settings, *networks, entry, details=True, **options) as path,
    ):
        yield Both(path, cpu, *networks, kernels)


@pytest.fixture
def both(tiny_bundle: Bundle, device: Device) -> Callable[..., Any]:
    """``with both("select") as made``: path and chain of the tiny bundle; see `open_both`."""

    def make(mode: str, bundle: Bundle = tiny_bundle, device: Device = device, **options: Any) -> Any:
        return open_both(bundle, device, mode, **options)

    return make


def decisions(chain: FaceChain, frames: list[Any], templates: Templates) -> list[dict[str, Any]]:
    """Of fresh frames of the same pixels, without what differs from run to run."""
    gate = Gate(chain, templates, Policy(0.4, 0.6, confirm_frames=2, max_decision_age_ms=60_000), "0" * 64)
    found = []
    for frame in frames:
        records = [decision.__dict__ for decision in gate.process(frame).decisions]
        found += [{name: value for name, value in record.items() if name not in VARYING} for record in records]
    return found


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert len(one) == len(other) > 1
    for a, b in zip(one, other, strict=True):
        numbers = [name for name, value in a.items() if isinstance(value, float)]
        for name in numbers:
            assert abs(a[name] - b[name]) < 2e-3, name
        # Soft antibodies differ in their last bits, and so do their hashes.
        whole = [{**each, "antibody": {**each["antibody"], "sha256": ""}} for each in (a, b)]
        assert {k: v for k, v in whole[0].items() if k not in numbers} == {
            k: v for k, v in whole[1].items() if k not in numbers
        }


def enrolled(chain: FaceChain, frames: list[Any]) -> Templates:
    """The man of the first frame, and two who do not come."""
    landmarks = chain.detector.detect(frames[0].pixels).landmarks[0]
    crop, _ = chain.crop(frames[0].pixels, landmarks)
    man = chain.recognise(crop[None], [0], [0]).purified[0]
    others = np.random.default_rng(1).normal(size=(2, len(man)))
    vectors = np.stack([others[0], man, others[1]]).astype(np.float32)
    return Templates(["nobody", "man", "else"], vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture
def deciding() -> SimpleNamespace:
    """How gates are compared: ``decisions``, ``same``, ``enrolled``."""
    return SimpleNamespace(decisions=decisions, same=same, enrolled=enrolled)
