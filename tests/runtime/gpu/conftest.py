"""The face path over the fake device: the real kernels on the host, networks played by ONNX Runtime."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from fake_device import EmulatedCalls, FakeNetwork, name_as_code

from immunogate.basis import basis_from_bytes
from immunogate.bundle import Bundle
from immunogate.kernels import compile as compiling
from immunogate.kernels.device import Device, binding_versions, open_device, probe
from immunogate.kernels.launch import CudaKernels
from immunogate.runtime.chain import FaceChain, antibody_settings
from immunogate.runtime.detect import Detector
from immunogate.runtime.gpu.face_path import FacePath
from immunogate.runtime.purify import Purifier
from immunogate.runtime.recognise import Recogniser
from immunogate.runtime.runners.base import Runner
from immunogate.runtime.runners.onnx import OnnxRunner


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
    """

    def __init__(self, path: FacePath, cpu: FaceChain, analyzer: FakeNetwork | None, recogniser: FakeNetwork) -> None:
        self.path, self.cpu, self.analyzer, self.recogniser = path, cpu, analyzer, recogniser


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
    purifier = Purifier(basis, settings, analyzer)
    cpu = FaceChain(Detector(recogniser), purifier, Recogniser(recogniser, entry))
    with (
        cpu,
        CudaKernels(basis.mean, rows, device) as kernels,
        FacePath(kernels, settings, *networks, entry, details=True, **options) as path,
    ):
        yield Both(path, cpu, *networks)


@pytest.fixture
def both(tiny_bundle: Bundle, device: Device) -> Callable[..., Any]:
    """``with both("select") as made``: path and chain of the tiny bundle; see `open_both`."""

    def make(mode: str, bundle: Bundle = tiny_bundle, device: Device = device, **options: Any) -> Any:
        return open_both(bundle, device, mode, **options)

    return make
