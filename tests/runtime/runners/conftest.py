"""A fake ONNX Runtime: what it runs is run for real on the CPU, what it says about GPUs is made up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as real
import pytest

from immunogate.bundle import Bundle
from immunogate.kernels.device.driver import DeviceError, DriverState
from immunogate.runtime.runners import onnx, providers, rtx
from immunogate.runtime.runners.base import Network

CPU = "CPUExecutionProvider"
BEHAVIOURS = ("right", "silent", "refuses", "takes nothing", "scaled", "nan", "fails", "other shape", "other name")


class FakeSession:
    """A session that says it runs on a GPU."""

    def __init__(self, model: bytes, provider: str, behaves: str) -> None:
        self._real = real.InferenceSession(model, providers=[CPU])
        self._provider, self._behaves = provider, behaves
        self.get_inputs, self.get_outputs = self._real.get_inputs, self._real.get_outputs

    def get_providers(self) -> list[str]:
        return [CPU] if self._behaves == "silent" else [self._provider, CPU]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [SimpleNamespace(ep_name=CPU if self._behaves == "takes nothing" else self._provider)]

    def run(self, names: list[str], inputs: dict[str, Any]) -> list[Any]:
        if self._behaves == "fails":
            raise RuntimeError("the device was lost")
        values = self._real.run(names, inputs)
        if self._behaves == "scaled":
            return [value * np.float32(1.02) for value in values]
        if self._behaves == "nan":
            return [value * np.float32("nan") for value in values]
        if self._behaves == "other shape":
            return [value[:1] for value in values]
        return values


class FakeOptions(real.SessionOptions):
    """Notes what a real one would hand to a plug-in."""

    def add_provider_for_devices(self, devices: list[Any], settings: dict[str, str]) -> None:
        assert devices
        self.asked = (devices[0].ep_name, dict(settings))


class FakeOnnxRuntime:
    """The names of onnxruntime that the runners use.

    Attributes:
        behaviours: how each provider that is not the CPU behaves, by its name; one of `BEHAVIOURS`.
        opened: (provider, its options, whether it may fall back) of each session, in order.
    """

    __version__ = "1.32.0"
    cuda_version = "13.0"
    SessionOptions = FakeOptions

    def __init__(self) -> None:
        self.behaviours: dict[str, str] = {}
        self.opened: list[tuple[str, dict[str, str], int]] = []
        self.registered: list[str] = []
        self.devices: list[Any] = [SimpleNamespace(ep_name=CPU)]

    def get_available_providers(self) -> list[str]:
        return [*(name for name in self.behaviours if name != rtx.NAME), CPU]

    def preload_dlls(self, directory: str) -> None:
        print("Failed to load libcudnn.so.9")  # noqa: T201 - as the real one does

    def register_execution_provider_library(self, name: str, path: str) -> None:
        assert name not in self.registered, "EP library is already registered"
        self.registered.append(name)
        if self.behaviours.get(name) != "no device":
            self.devices.append(SimpleNamespace(ep_name=name))

    def get_ep_devices(self) -> list[Any]:
        return self.devices

    def InferenceSession(  # noqa: N802 - its name
        self, model: bytes, options: FakeOptions, providers: Any = None, enable_fallback: int = 1
    ) -> Any:
        first = providers[0] if providers else options.asked
        name, settings = (first, {}) if isinstance(first, str) else first
        self.opened.append((name, settings, enable_fallback))
        if name == CPU:
            return real.InferenceSession(model, options, providers=[CPU], enable_fallback=enable_fallback)
        if self.behaviours[name] == "refuses":
            raise RuntimeError("libcublas.so.13:\n cannot open shared object file")
        return FakeSession(model, name, self.behaviours[name])


@pytest.fixture
def fake_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOnnxRuntime]:
    """In the place of the real one, on a machine with a GPU that is not there either."""
    fake = FakeOnnxRuntime()
    for module in (onnx, providers, rtx):
        monkeypatch.setattr(module, "ort", fake)
    state = DriverState(13000, ("A made-up card",), ((8, 9),))
    for needs_one in (providers, rtx):
        monkeypatch.setattr(needs_one, "require_device", lambda index=0: state)
    plugin = SimpleNamespace(get_library_path=lambda: "/nowhere/libplugin.so")
    monkeypatch.setitem(sys.modules, rtx.PLUGIN, plugin)
    monkeypatch.setattr(rtx, "find_spec", lambda name: object() if rtx.NAME in fake.behaviours else None)
    rtx._register.cache_clear()
    yield fake
    rtx._register.cache_clear()


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a driver, wherever this runs."""

    def refuse(index: int = 0) -> None:
        raise DeviceError("no NVIDIA driver is installed", "Install the driver of your GPU")

    for needs_one in (providers, rtx):
        monkeypatch.setattr(needs_one, "require_device", refuse)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def network(tiny_bundle: Bundle) -> Network:
    """The recogniser of the tiny bundle."""
    return Network(tiny_bundle.read("recogniser.onnx"), "recogniser.onnx", (16, 3, 112, 96), threads=1)
