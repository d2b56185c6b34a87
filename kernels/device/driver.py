"""Looks at the NVIDIA driver through ctypes alone, so that a machine without one gets a plain answer and no crash."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from immunogate.errors import ImmunogateError

LIBRARY = "libcuda.so.1"
OLDEST_DRIVER = 12000
"""CUDA 12.0: older drivers do not know the graph calls used here."""

NO_DEVICE, UNKNOWN_ERROR, DRIVER_MISMATCH = 100, 999, 803
"""CUresult values that tell their own remedy, from cuda.h."""

_MAJOR, _MINOR = 75, 76
"""CUdevice_attribute: compute capability."""

REMEDIES = {
    NO_DEVICE: "Check that nvidia-smi lists a GPU, that CUDA_VISIBLE_DEVICES is not empty and that a container was "
    "started with access to it",
    UNKNOWN_ERROR: "Load the nvidia_uvm kernel module, or restart the machine",
    DRIVER_MISMATCH: "The driver's library and its kernel module differ: restart the machine after a driver update",
}


class DeviceError(ImmunogateError):
    """The GPU, its driver or a binding to it is missing, failed, or was used wrongly."""


@dataclass(frozen=True)
class DriverState:
    """What the driver says.

    Attributes:
        version: 13000 for CUDA 13.0; None where no driver could be loaded.
        devices: names of the devices, in the driver's order.
        capabilities: compute capability of each, (9, 0) for instance.
        problem: why no device can be used; empty where one can.
        remedy: what to do about it.
    """

    version: int | None
    devices: tuple[str, ...] = ()
    capabilities: tuple[tuple[int, int], ...] = ()
    problem: str = ""
    remedy: str = ""

    @property
    def usable(self) -> bool:
        """Whether a device can be used."""
        return bool(self.devices) and not self.problem

    def version_text(self) -> str:
        """13.0 for instance."""
        return "none" if self.version is None else f"{self.version // 1000}.{self.version % 1000 // 10}"


def probe() -> DriverState:
    """Ask the driver for its version and devices; it is started by that, a context is not made."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return DriverState(
            None,
            problem=f"no NVIDIA driver is installed ({LIBRARY} can not be loaded)",
            remedy="Install the driver of your GPU, or use the CPU: --backend cpu, --runner cpu",
        )
    version = ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    status = library.cuInit(0)
    if status == 0 and version.value < OLDEST_DRIVER:
        too_old = f"the NVIDIA driver knows CUDA {version.value // 1000} only"
        return DriverState(version.value, problem=too_old, remedy="Install a driver for CUDA 12 or newer")
    count = ctypes.c_int(0)
    if status == 0:
        status = library.cuDeviceGetCount(ctypes.byref(count)) or (0 if count.value else NO_DEVICE)
    if status:
        what = "found no device" if status == NO_DEVICE else f"does not start: {_describe(library, status)}"
        remedy = REMEDIES.get(status, "Check the driver with nvidia-smi")
        return DriverState(version.value, problem=f"the NVIDIA driver {what}", remedy=remedy)
    names, capabilities = zip(*(_device(library, index) for index in range(count.value)), strict=True)
    return DriverState(version.value, names, capabilities)


def require_device(index: int = 0) -> DriverState:
    """The driver's state, where the device with this number can be used.

    Raises:
        DeviceError: it can not; the message says why and what to do.
    """
    state = probe()
    if not state.usable:
        raise DeviceError(state.problem, state.remedy)
    if not 0 <= index < len(state.devices):
        raise DeviceError(f"there is no device {index}, the driver found {len(state.devices)}", "Count from 0")
    return state


@contextmanager
def current_device(index: int | None) -> Iterator[None]:
    """Make a device's primary context current in the calling thread for a while, for libraries that take what is.

    Args:
        index: number of the device; None changes nothing.

    Raises:
        DeviceError: the context can not be made.
    """
    if index is None:
        yield
        return
    library = ctypes.CDLL(LIBRARY)
    device, context, popped = ctypes.c_int(0), ctypes.c_void_p(), ctypes.c_void_p()
    status = library.cuDeviceGet(ctypes.byref(device), index)
    status = status or library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    if status:
        raise DeviceError(f"device {index} can not be used: {_describe(library, status)}", "Check it with nvidia-smi")
    try:
        status = library.cuCtxPushCurrent_v2(context)
        if status:
            raise DeviceError(f"device {index} can not be used: {_describe(library, status)}")
        try:
            yield
        finally:
            library.cuCtxPopCurrent_v2(ctypes.byref(popped))
    finally:
        library.cuDevicePrimaryCtxRelease_v2(device)


def _device(library: ctypes.CDLL, index: int) -> tuple[str, tuple[int, int]]:
    device = ctypes.c_int(0)
    library.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGetName(name, len(name), device)
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return name.value.decode(errors="replace"), (major.value, minor.value)


def _describe(library: ctypes.CDLL, status: int) -> str:
    name, text = ctypes.c_char_p(), ctypes.c_char_p()
    library.cuGetErrorName(status, ctypes.byref(name))
    library.cuGetErrorString(status, ctypes.byref(text))
    words = [part.decode(errors="replace") for part in (name.value, text.value) if part]
    return ", ".join(words) or f"error {status}"
