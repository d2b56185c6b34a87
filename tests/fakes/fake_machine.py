"""A machine that has a GPU, a binding and TensorRT, all of them FAKES: what is asked of the real modules goes there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fake_device import FakeCalls
from fake_tensorrt import fake_tensorrt

from immunogate.export.engine import builder as builder_module
from immunogate.kernels.device import Device, DriverState, choose, driver


class FakeMachine:
    """See above; `immunogate.kernels.device.open_device` opens strict devices of it: what is left open fails.

    Args:
        patch: undone by the test.
        make_calls: makes the driver's calls for one device.
        cache: in place of the user's cache, where engines lie.

    Attributes:
        trt: the FAKE TensorRT 10.3.
        devices: all that were opened, open or not.
    """

    def __init__(self, patch: pytest.MonkeyPatch, make_calls: Callable[[], FakeCalls], cache: Path) -> None:
        self.trt, self.devices = fake_tensorrt("10.3"), list[Device]()
        state = DriverState(12060, (FakeCalls.device_name,), (FakeCalls.capability,))
        patch.setitem(sys.modules, "tensorrt", self.trt)
        patch.setattr(driver, "probe", lambda: state)
        patch.setattr(choose, "BINDINGS", {"fake": ("", lambda index: make_calls())})
        patch.setattr(choose, "_version", lambda name: "1.0")
        patch.setattr(choose, "Device", self._open)
        patch.setattr(builder_module, "current_device", nullcontext)
        patch.setenv("XDG_CACHE_HOME", str(cache))

    def _open(self, calls: Any, *, strict: bool) -> Device:
        self.devices.append(Device(calls, strict=True))
        return self.devices[-1]

    @property
    def live(self) -> list[dict[str, int]]:
        """What is open on each device that is open itself."""
        return [device.live for device in self.devices if not device.calls.is_closed]  # type: ignore[attr-defined]
