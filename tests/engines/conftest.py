"""A FAKE TensorRT on the FAKE device, for everything about engines: what builds, keeps and runs them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fake_device import FakeCalls
from fake_tensorrt import VERSIONS, fake_tensorrt

from immunogate.engines.machine import this_machine
from immunogate.engines.record import Machine
from immunogate.export.engine import builder as builder_module
from immunogate.kernels.device import Device, DriverState
from immunogate.kernels.device import driver as driver_module

FAKE_DRIVER = DriverState(12060, ("Fake Orin",), ((8, 7),))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(params=[False, True], ids=["discrete", "integrated"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A strict FAKE device, which works when somebody waits for it: what a test leaves open fails it."""
    with Device(FakeCalls(lazy=True, integrated=request.param), strict=True) as opened:
        yield opened


@pytest.fixture
def discrete_device() -> Iterator[Device]:
    """As `device`, with memory of its own only."""
    with Device(FakeCalls(lazy=True), strict=True) as opened:
        yield opened


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest) -> Any:
    """The FAKE library, once for each version."""
    return fake_tensorrt(request.param)


@pytest.fixture
def here() -> Machine:
    """This machine with the FAKE GPU and TensorRT 10.3."""
    return this_machine(FAKE_DRIVER, 0, "10.3")


@pytest.fixture
def make_fake() -> Callable[..., Any]:
    """Make the FAKE library of a version: ``make_fake("11.4", without=("BuilderFlag.TF32",))``."""
    return fake_tensorrt


@pytest.fixture
def fake_machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A FAKE driver, GPU and TensorRT 10.3 in this process; the library is given."""
    trt = fake_tensorrt("10.3")
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(driver_module, "probe", lambda: FAKE_DRIVER)
    trt.fake.used_device = []

    @contextmanager
    def current_device(index: int | None) -> Iterator[None]:
        trt.fake.used_device.append(index)
        yield

    monkeypatch.setattr(builder_module, "current_device", current_device)
    return trt
